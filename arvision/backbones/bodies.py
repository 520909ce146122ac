"""Bodies of a decoder: one stack of layers, branches, and U-ViT's skips."""

import dataclasses

import jax.numpy as jnp

from arvision.backbones.base import Body
from arvision.ranges import Few, Natural


@dataclasses.dataclass(frozen=True)
class OneStack:
  """A stack of layers and the last norm."""

  def sizes(self, size):
    return (size,)

  def __call__(self, run, x, caches):
    x, cache = run.stack('stack', x, *caches)
    return run.norm('norm', x)[:, :, None], (cache,)


@dataclasses.dataclass(frozen=True)
class Repeated(OneStack):
  """The same, with the learned positions added to x again between layers.

  Source: FoundationVision/Infinity, its add_lvl_embeding_only_first_block = 0.

  Attributes:
    every: layers from one addition to the next.
  """

  every: Few = 1

  def __call__(self, run, x, caches):
    if run.positions is None:
      raise ValueError(
        'config.backbone.body repeats positions: state config.backbone.position'
      )
    x, cache = run.stack('stack', x, *caches, every=self.every)
    return run.norm('norm', x)[:, :, None], (cache,)


@dataclasses.dataclass(frozen=True)
class Branches:
  """A trunk, and layers after it for every further branch (NAR).

  Branch 0 is read after the trunk, branch r after r times `extra` layers more;
  every branch has a last norm of its own, and predicts another token.

  Source: arXiv 2503.10696; ThisisBillhe/NAR, whose one further branch has one
  layer.

  Attributes:
    branches: how many.
    extra: layers between one branch and the next.
  """

  branches: Few = 2
  extra: Natural = 1

  def sizes(self, size):
    further = size._replace(depth=self.extra)
    return size, *(further,) * (self.branches - 1)

  def __call__(self, run, x, caches):
    hidden, written = [], []
    for r, size in enumerate(self.sizes(run.size)):
      end = f'_{r}' if r else ''
      x, cache = run.stack(f'stack{end}', x, caches[r], size)
      written.append(cache)
      hidden.append(run.norm(f'norm{end}', x))
    return jnp.stack(hidden, axis=2), tuple(written)


@dataclasses.dataclass(frozen=True)
class Fork:
  """A shared trunk with two ends: for passes over masked tokens, and for others.

  Each end has the last layers and a last norm of its own. A pass runs one of
  them: that for masked tokens where `Slots.masked` is given. Steps see nothing of
  one another (`Layout.markov`), so that neither end has to know what the other
  one was given.

  Source: arXiv 2506.04421; NVlabs/HMAR, models/hmar.py.

  Attributes:
    last: layers of an end; `config.backbone.depth` counts trunk and one end.
    masked: whether there is an end for masked tokens.
  """

  last: Natural = 8
  masked: bool = True

  def sizes(self, size):
    if self.last > size.depth:
      raise ValueError(
        f'config.backbone.body.last={self.last}: wanted at most '
        f'config.backbone.depth={size.depth}'
      )
    trunk = size._replace(depth=size.depth - self.last)
    return trunk, *(size._replace(depth=self.last),) * (1 + self.masked)

  def __call__(self, run, x, caches):
    if run.layout.steps > 1 and not run.layout.markov:
      raise ValueError(
        'config.backbone.body is a fork, whose steps may not see one another; '
        'set config.layout.window=0'
      )
    over_masked = run.slots.masked is not None
    if over_masked and not self.masked:
      raise ValueError(
        'config.backbone.body.masked=False: there is no end for masked tokens, '
        'which config.feed has'
      )
    rate = run.net.drop_path / max(run.size.depth - 1, 1)

    def layers(name, x, size, first):
      if not size.depth:
        return x
      rates = rate * first, rate * (first + size.depth - 1)
      return run.stack(name, x, size=size, drop_path=rates)[0]

    trunk, *ends = self.sizes(run.size)
    x = layers('stack', x, trunk, 0)
    found = {}
    for masked, size in enumerate(ends):
      # A pass has one end, a model all of them.
      if masked == over_masked or run.net.is_initializing():
        end = '_masked' if masked else ''
        y = layers(f'stack_last{end}', x, size, trunk.depth)
        found[masked] = run.norm(f'norm{end}', y)
    return found[over_masked][:, :, None], caches


@dataclasses.dataclass(frozen=True)
class Unjoined:
  """Three stacks in a row: depth // 2 layers, one in the middle, depth // 2 more."""

  def sizes(self, size):
    half = size._replace(depth=size.depth // 2)
    return half, size._replace(depth=1), half

  def __call__(self, run, x, caches):
    first, middle, last = self.sizes(run.size)
    x, (one, kept) = run.stack('stack', x, caches[0], first, keep=True)
    x, two = run.stack('stack_mid', x, caches[1], middle)
    skips = self.skips(kept)
    x, three = run.stack('stack_out', x, caches[2], last, skips=skips)
    return run.norm('norm', x)[:, :, None], (one, two, three)

  def skips(self, kept):
    """What enters the last layers, of the outputs (layers, b, n, d) of the first."""


@dataclasses.dataclass(frozen=True)
class Skips(Unjoined):
  """U-ViT long skips: layer L - i concatenates the output of layer i.

  A linear map takes the concatenation back to the width. There are depth // 2
  layers, one in the middle, and depth // 2 more.

  Source: arXiv 2209.12152; bytedance/1d-tokenizer, UViTBert.
  """

  def skips(self, kept):
    return kept[::-1]


@dataclasses.dataclass(frozen=True)
class TiedLogits:
  """Another body, and logits by the table of the input (ELM, ReCAP's MaskGIT).

  For `heads.categorical.Given`.

  Source: Pepper-lll/LMforImageGeneration, llama/mlm_model.py.

  Attributes:
    body: gives the hidden vectors.
  """

  body: Body = OneStack()

  def sizes(self, size):
    return self.body.sizes(size)

  def __call__(self, run, x, caches):
    hidden, caches = self.body(run, x, caches)
    return run.logits('output', hidden), caches
