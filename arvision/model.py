"""ARModel: the trainable parts, glued to layout, feed and codec."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.layers.spread import spread
from arvision.layers.stack import unstack
from arvision.layouts.base import Layout, take
from arvision.metrics import Mean, Term
from arvision.structs import Cond, Draw, Slots, Tokens


class ARModel(nn.Module):
  """Condition, backbone and head are the trainable tree.

  Attributes:
    condition, backbone, head: Linen modules.
    layout, feed: static.
  """

  condition: nn.Module
  backbone: nn.Module
  head: nn.Module
  layout: Layout
  feed: Any

  def losses(
    self,
    tokens: Tokens,
    inputs: dict,
    draw: Draw,
    codec: Any = None,
    weight: jax.Array | None = None,
    train: bool = True,
  ) -> tuple[dict[str, Term], dict[str, Mean]]:
    """The terms of the objective, which the task reduces over a global batch.

    Args:
      tokens: of b examples.
      inputs: of the condition.
      draw: keys of the b examples.
      codec: the bound tokenizer; only feeds that need vectors use it.
      weight: (b,) weights of examples (0 = padding), or None.
      train: dropout, drop path and null dropping.

    Returns:
      name -> term, and name -> metric: those of the head, and the loss of every
      step of layouts with few.
    """
    batch = draw.batch
    null = jnp.zeros((batch,), bool)
    if train:
      null = draw.uniform('condition/null') < self.condition.drop
    slots = self.feed.train(tokens, self.layout, codec, draw)
    z, at = self.hidden(slots, inputs, null, train)
    loss, metrics = self.head.loss(z, slots.targets, draw, at)
    each = 1.0 if weight is None else weight[:, None]
    w = jnp.broadcast_to(slots.weight, loss.shape) * each
    counted = slots.counted
    if counted is not None:
      counted = jnp.broadcast_to(counted, loss.shape) * each
    terms = {'tokens': Term(loss, w, counted)}
    measured = {k: Mean.of(v, w) for k, v in metrics.items()}
    return terms, measured | self._by_step(loss, w)

  def _by_step(self, loss, weight):
    """Losses of every scale."""
    if not 1 < self.layout.steps <= 16 or loss.shape[1] != self.layout.tokens:
      return {}
    steps = range(self.layout.steps)
    here = [self.layout.entity_of_token == s for s in steps]
    return {
      f'loss/step_{s}': Mean.of(loss[:, at], weight[:, at])
      for s, at in enumerate(here)
    }

  def hidden(self, slots: Slots, inputs: dict, null: jax.Array, train=False):
    """z (b, t, r, d) of all tokens, and the rows it was read from."""
    cond = self.condition(inputs, slots, null=null)
    h, _ = self.backbone(slots, cond, self.layout, train=train)
    readout = slots.readout
    readout = self.layout.readout if readout is None else readout
    return gather(h, readout), rows_at(slots, readout, self.layout)

  def taught(
    self, tokens: Tokens, inputs: dict, codec: Any = None, null=None, draw=None
  ) -> tuple[jax.Array, Slots]:
    """z (b, t, r, d) of all tokens in one masked pass, without dropout.

    Returns:
      z, and the rows it was read from.
    """
    batch = tokens.values.shape[0]
    draw = Draw.create(0, jnp.arange(batch)) if draw is None else draw
    slots = self.feed.train(tokens, self.layout, codec, draw)
    null = jnp.zeros((batch,), bool) if null is None else null
    return self.hidden(slots, inputs, null)

  def logits(
    self, tokens: Tokens, inputs: dict, codec: Any = None, null=None
  ) -> jax.Array:
    """The logits (b, t, v) of all tokens, see `taught`."""
    return self.head.field(*self.taught(tokens, inputs, codec, null))

  def conditions(
    self, inputs: dict, null: jax.Array, slots: Slots | None = None
  ) -> Cond:
    return self.condition(inputs, slots, null=null)

  def read(self, slots, cond, cache, readout, commit=True):
    """One decoding step: z (b, t, r, d) of its tokens, and the new cache.

    Without a cache the rows see one another alone.
    """
    h, cache = self.backbone(
      slots, cond, self.layout, cache=cache, commit=commit
    )
    return gather(h, readout), cache

  def draw(self, z, draw, guide, choose, at):
    return self.head.sample(z, draw, guide, choose, at)

  def field(self, z, at):
    return self.head.field(z, at)


def gather(hidden: jax.Array, readout: Any) -> jax.Array:
  """Hidden (b, n, r, d) at the rows (t, r) tokens are read from.

  A hidden vector has one axis entry per branch, or one for all of them.
  Absent branches (-1) are zero.

  Returns:
    (b, t, r, d).
  """
  branches = readout.shape[1]
  z = jnp.stack(
    [
      hidden[:, readout[:, r], min(r, hidden.shape[2] - 1)]
      for r in range(branches)
    ],
    axis=2,
  )
  z = spread(z, ('act_batch', 'act_length', None, 'act_embed'))
  if isinstance(readout, np.ndarray) and (readout >= 0).all():
    return z
  return jnp.where((readout >= 0)[..., None], z, 0)


def rows_at(slots: Slots, readout: Any, layout: Layout) -> Slots:
  """The rows of Slots that tokens are read from, as heads are given them.

  Of a token with several branches it is the row of the first.

  Args:
    slots: what the backbone was given.
    readout: (t, r) row of every token and branch, -1 absent.
    layout: says the entities and the coordinates of the tokens.
  """
  xp = readout.__array_namespace__()
  first = xp.where(readout >= 0, readout, readout.max(1, keepdims=True))[:, 0]
  index = slots.index[first]
  return dataclasses.replace(
    slots,
    index=index,
    entity=take(layout.entity, index),
    coords=take(layout.coords, index),
    hole=None if slots.hole is None else slots.hole[:, first],
  )


@dataclasses.dataclass(frozen=True, eq=False)
class BoundModel:
  """A model with its variables, as samplers are handed it.

  Attributes:
    module: static.
    variables: {'params': ...}; unstacked where loops would slice them, see
      `sample`.
    codec: the bound tokenizer.
  """

  module: ARModel
  variables: Any
  codec: Any = None

  @property
  def layout(self) -> Layout:
    return self.module.layout

  def condition(self, inputs, null, slots=None) -> Cond:
    return self._apply('conditions', inputs, null, slots)

  def empty_cache(self, batch: int):
    return self.module.backbone.empty_cache(batch, self.layout)

  def read(self, slots, cond, cache, readout, commit=True):
    return self._apply('read', slots, cond, cache, readout, commit)

  def draw(self, z, draw, guide, choose, slots, readout):
    """Tokens of an entity whose z was read from the rows `readout` of slots."""
    at = rows_at(slots, readout, self.layout)
    return self._apply('draw', z, draw, guide, choose, at)

  def start(self, batch: int):
    return self.module.feed.init(batch, self.layout, self.codec)

  def feed_slots(self, state, step):
    return self.module.feed.slots(state, step, self.layout, self.codec)

  def shown(self, values, hole):
    return self.module.feed.shown(values, hole, self.layout, self.codec)

  def push(self, state, step, tokens):
    return self.module.feed.push(state, step, tokens, self.layout, self.codec)

  def finish(self, state) -> Tokens:
    return self.module.feed.finish(state)

  def field(self, z, at):
    return self._apply('field', z, at)

  def _apply(self, method, *args):
    return self.module.apply(self.variables, *args, method=method)


def sample(
  module: ARModel,
  params: Any,
  sampler: Any,
  inputs: dict,
  draw: Draw,
  codec: Any = None,
  known: Any = None,
) -> Tokens:
  """Tokens of a batch, drawn by a sampler; pure, to be called under jit.

  Args:
    module: static.
    params: of the module, stacked or not.
    sampler: static.
    inputs: of the condition, leading axis b.
    draw: keys of the b examples.
    codec: the bound tokenizer.
    known: a `samplers.base.Known`, tokens that are not drawn; None for none.
  """
  if sampler.layout is not None:
    module = module.clone(layout=sampler.layout)
  # A loop copies what it slices: of the layers while tokens are decoded one after
  # another, and of a head while it integrates (10 of 100 s of MAR-B on a CPU).
  if sampler.cached:
    params = unstack(params)
  elif 'head' in params:
    params = {**params, 'head': unstack(params['head'])}
  bound = BoundModel(module, {'params': params}, codec)
  return sampler(bound, inputs, draw, draw.batch, known)
