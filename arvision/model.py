"""ARModel: the trainable parts, glued to layout, feed and codec."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.backbones.base import Backbone
from arvision.feeds.base import Feed
from arvision.heads.base import Head
from arvision.layers.condition import Condition
from arvision.layers.stack import unstack
from arvision.layouts.base import Layout, take
from arvision.metrics import Mean, Term
from arvision.parallel.constrain import constrain
from arvision.random import Draw
from arvision.structs import Array, Cond, Query, Slots, Tokens


class ARModel(nn.Module):
  """Autoregressive model: condition, backbone, head, layout and feed.

  Attributes:
    condition, backbone, head: Linen modules with the trainable parameters.
    layout, feed: static.
  """

  condition: Condition
  backbone: Backbone
  head: Head
  layout: Layout
  feed: Feed

  def losses(
    self,
    tokens: Tokens,
    inputs: dict,
    draw: Draw,
    codec: Any = None,
    weight: jax.Array | None = None,
    train: bool = True,
  ) -> tuple[dict[str, Term], dict[str, Mean]]:
    """Loss terms, which the task reduces over the global batch.

    Args:
      tokens: tokens of b examples.
      inputs: inputs of the condition, leading axis b.
      draw: keys of the b examples.
      codec: the bound tokenizer; only feeds that embed tokens use it.
      weight: (b,) weights of examples (0 = padding), or None.
      train: turns on dropout, drop path and dropping of the condition.

    Returns:
      name -> term, and name -> metric: the metrics of the head, and the loss of
      every step of a layout of 2 to 16 steps.
    """
    batch = draw.batch
    null = jnp.zeros((batch,), bool)
    slots, targets = self.feed.train(tokens, self.layout, codec, draw)
    if train:
      drop = self.condition.drop
      if drop is None:
        null = draw.uniform('condition/null') < _level(slots)
      elif isinstance(drop, tuple) and None in drop:
        raise ValueError(
          f'config.condition.parts drop {drop} of the examples: wanted numbers'
        )
      else:
        share = np.asarray(drop, np.float32)
        null = draw.uniform('condition/null', share.shape) < share
    z, query = self.hidden(slots, inputs, null, train, targets.readout)
    loss, metrics = self.head.loss(z, targets.values, draw, query)
    each: jax.Array | float = 1.0
    if isinstance(loss, Term):  # tokens of different weights
      loss, each = loss.loss, like(loss.weight, loss.loss)
    if weight is not None:
      each = each * like(weight, loss)
    w = like(targets.weight, loss) * each
    denominator = targets.denominator
    if denominator is not None:
      denominator = like(denominator, loss) * each
    terms = {'tokens': Term(loss, w, denominator)}
    measured = {k: Mean.of(v, w) for k, v in metrics.items()}
    return terms, measured | self._by_step(loss, w)

  def _by_step(self, loss, weight):
    """name -> loss of every step, {} for layouts of one or many steps."""
    if not 1 < self.layout.steps <= 16 or loss.shape[1] != self.layout.tokens:
      return {}
    steps = range(self.layout.steps)
    here = [self.layout.entity_of_token == s for s in steps]
    return {
      f'loss/step_{s}': Mean.of(loss[:, at], weight[:, at])
      for s, at in enumerate(here)
    }

  def hidden(
    self,
    slots: Slots,
    inputs: dict,
    null: jax.Array,
    train: bool = False,
    readout: Array | None = None,
  ) -> tuple[jax.Array, Query]:
    """Hidden states z (b, t, r, d) at the readout of all tokens, and the query.

    Args:
      slots: all slots of the layout, or some that attend to one another.
      inputs: inputs of the condition, leading axis b.
      null: (b,) bool, True = unconditional.
      train: turns on dropout and drop path.
      readout: (t, r), see `Targets`.
    """
    cond = self.condition(inputs, slots, null=null)
    h, _ = self.backbone(slots, cond, self.layout, train=train)
    readout = self.layout.readout if readout is None else readout
    return gather(h, readout), query_of(slots, readout, self.layout)

  def teacher_forced(
    self, tokens: Tokens, inputs: dict, codec: Any = None, null=None, draw=None
  ) -> tuple[jax.Array, Query]:
    """z (b, t, r, d) of all tokens in one pass with an attention mask.

    See `hidden`.
    """
    batch = tokens.values.shape[0]
    draw = Draw.create(0, jnp.arange(batch)) if draw is None else draw
    slots, targets = self.feed.train(tokens, self.layout, codec, draw)
    null = jnp.zeros((batch,), bool) if null is None else null
    return self.hidden(slots, inputs, null, readout=targets.readout)

  def logits(
    self, tokens: Tokens, inputs: dict, codec: Any = None, null=None
  ) -> jax.Array:
    """The logits (b, t, v) of all tokens, see `teacher_forced`."""
    return self.head.field(*self.teacher_forced(tokens, inputs, codec, null))

  def nats(
    self, tokens: Tokens, inputs: dict, codec: Any = None
  ) -> tuple[jax.Array, jax.Array]:
    """Negative log likelihood of codes, and their number, both (b,) float32.

    For heads with logits (b, t, v), and feeds that do not show a token to
    itself (`sees_own`). Feeds with random orders or scales draw those of seed
    0.
    """
    batch = tokens.values.shape[0]
    draw = Draw.create(0, jnp.arange(batch))
    slots, targets = self.feed.train(tokens, self.layout, codec, draw)
    null = jnp.zeros((batch,), bool)
    z, query = self.hidden(slots, inputs, null, readout=targets.readout)
    logits = jax.nn.log_softmax(self.head.field(z, query))
    found = jnp.take_along_axis(logits, targets.values[..., None], -1)[..., 0]
    weight = jnp.float32(targets.weight > 0)
    weight = jnp.broadcast_to(weight, found.shape)
    return -(found * weight).sum(1), weight.sum(1)

  def masked_nats(
    self, tokens: Tokens, inputs: dict, codec: Any, masked: Array
  ) -> jax.Array:
    """(b, t) nats of every code, given those that are not masked.

    For heads with logits (b, t, v), feeds that fill, and layouts of one entity.

    Args:
      tokens: codes (b, t).
      inputs: inputs of the condition, leading axis b.
      codec: the bound tokenizer.
      masked: (b or 1, t) bool.
    """
    values, step = jnp.asarray(tokens.values), self.layout.runs[0].step(0)
    masked = jnp.broadcast_to(masked, values.shape)
    slots = self.feed.slots(values, step, self.layout, codec, masked)
    null = jnp.zeros(len(values), bool)
    log_p = jax.nn.log_softmax(
      self.head.field(*self.hidden(slots, inputs, null))
    )
    return -jnp.take_along_axis(log_p, values[..., None], -1)[..., 0]

  def conditions(
    self, inputs: dict, null: jax.Array, slots: Slots | None = None
  ) -> Cond:
    return self.condition(inputs, slots, null=null)

  def read(self, slots, cond, cache, readout, commit=True):
    """One decoding step: z (b, t, r, d) of its tokens, and the new cache.

    Without a cache the slots attend only to one another.
    """
    h, cache = self.backbone(
      slots, cond, self.layout, cache=cache, commit=commit
    )
    return gather(h, readout), cache

  def sample(self, z, draw, guide, sampling, query):
    return self.head.sample(z, draw, guide, sampling, query)

  def field(self, z, query):
    return self.head.field(z, query)


def _level(slots):
  """(b,) level of all slots."""
  if slots.level is None or slots.level.shape[1] > 1:
    raise ValueError(
      'config.condition.drop=None drops the label at the level of all slots: '
      'wanted a feed that gives one, feeds.mask.Absorbing, or a number'
    )
  return slots.level[:, 0]


def like(weight: Array, loss: jax.Array) -> jax.Array:
  """Weights with fewer trailing axes, broadcast to a loss (b, t, ...)."""
  weight = jnp.asarray(weight)
  weight = weight.reshape(*weight.shape, *[1] * (loss.ndim - weight.ndim))
  return jnp.broadcast_to(weight, loss.shape)


def gather(hidden: jax.Array, readout: Any) -> jax.Array:
  """Hidden states at the slots from which the tokens are read.

  Args:
    hidden: (b, n, r, d), or (b, n, 1, d) where the branches share one.
    readout: (t, r) slot of every token and branch, -1 for absent branches.

  Returns:
    (b, t, r, d), zeros for absent branches.
  """
  branches = readout.shape[1]
  z = jnp.stack(
    [
      hidden[:, readout[:, r], min(r, hidden.shape[2] - 1)]
      for r in range(branches)
    ],
    axis=2,
  )
  z = constrain(z, ('act_batch', 'act_length', None, 'act_embed'))
  if isinstance(readout, np.ndarray) and (readout >= 0).all():
    return z
  return jnp.where((readout >= 0)[..., None], z, 0)


def query_of(
  slots: Slots, readout: Any, layout: Layout, step: Any = None, steps: int = 0
) -> Query:
  """The query of the tokens that are read from some slots.

  A token of several branches has the entity and the coordinates of the slot of
  its first branch.

  Args:
    slots: inputs of the backbone.
    readout: (t, r) index into the slots for every token and branch, -1 for
      absent branches.
    layout: gives entities and coordinates of the slots.
    step, steps: see `Query`.
  """
  xp = readout.__array_namespace__()
  first = xp.where(readout >= 0, readout, readout.max(1, keepdims=True))[:, 0]
  index = slots.index[..., first]
  return Query(
    given=slots.values[:, first],
    level=slots.level,
    entity=take(layout.entity, index),
    coords=take(layout.coords, index),
    present=readout >= 0,
    masked=None
    if slots.masked is None
    else jnp.asarray(slots.masked)[:, first],
    step=step,
    steps=steps,
  )


@dataclasses.dataclass(frozen=True, eq=False)
class BoundModel:
  """A model bound to its variables and its tokenizer, for samplers.

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

  def empty_cache(self, batch: int, room: int = 0):
    """An empty cache, with room for slots that are computed again."""
    more = (room,) if room else ()
    return self.module.backbone.empty_cache(batch, self.layout, *more)

  def read(self, slots, cond, cache, readout, commit=True):
    return self._apply('read', slots, cond, cache, readout, commit)

  def sample(self, z, draw, guide, sampling, query):
    """Tokens of an entity, see `Head.sample`."""
    return self._apply('sample', z, draw, guide, sampling, query)

  def start(self, batch: int):
    return self.module.feed.init(batch, self.layout, self.codec)

  def feed_slots(self, state, step, masked=None):
    """The slots of a step; only feeds that mask take `masked`."""
    args = (state, step, self.layout, self.codec)
    if masked is None:
      return self.module.feed.slots(*args)
    return self.module.feed.slots(*args, masked)

  def query(self, slots, readout, step=None, steps=0) -> Query:
    """See `query_of`."""
    return query_of(slots, readout, self.layout, step, steps)

  def push(self, state, step, tokens):
    return self.module.feed.push(state, step, tokens, self.layout, self.codec)

  def finish(self, state) -> Tokens:
    return self.module.feed.finish(state)

  def field(self, z, query):
    return self._apply('field', z, query)

  def _apply(self, method, *args):
    return self.module.apply(self.variables, *args, method=method)


def sample_images(
  module: ARModel,
  params: Any,
  sampler: Any,
  inputs: dict,
  draw: Draw,
  codec: Any,
) -> tuple[jax.Array, Tokens]:
  """Sampled images (b, H, W, C) and their tokens.

  Args and behaviour: see `sample`. `codec` is required.
  """
  tokens = sample(module, params, sampler, inputs, draw, codec)
  return codec.decode(tokens, draw, inputs), tokens


def sample(
  module: ARModel,
  params: Any,
  sampler: Any,
  inputs: dict,
  draw: Draw,
  codec: Any = None,
  known: Any = None,
) -> Tokens:
  """Samples the tokens of a batch; pure, to be called under jit.

  Args:
    module: static.
    params: parameters of the module; layers may be stacked.
    sampler: static.
    inputs: inputs of the condition, leading axis b.
    draw: keys of the b examples.
    codec: the bound tokenizer.
    known: a `samplers.base.Known` with tokens to keep, or None.
  """
  if sampler.layout is not None:
    module = module.clone(layout=sampler.layout)
  # A loop copies the arrays that it slices: stacked layers in a loop over
  # tokens, and a stacked head in its solver (10 of 100 s of MAR-B on a CPU).
  if sampler.unstacked(module.layout):
    params = unstack(params)
  elif 'head' in params:
    params = {**params, 'head': unstack(params['head'])}
  bound = BoundModel(module, {'params': params}, codec)
  return sampler(bound, inputs, draw, draw.batch, known)
