"""The signatures hold for papers that are not here yet.

Fake parts of xAR, MAR, NAR, FlowAR and a model with padded text go through
`ARModel.loss` and a decode loop with a backbone that does no more than hand
its inputs on, so that a wrong row, a lost field or a missing argument shows.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision import model
from arvision.feeds.shift import Shift
from arvision.layouts import grid, masks, scales, sequence
from arvision.layouts.base import take
from arvision.samplers.base import Sampler
from arvision.samplers.entity import EntityAR
from arvision.structs import Cond, Draw, Replay, Slots, Tokens

BATCH, CHANNELS = 2, 3


class Identity(nn.Module):
  """hidden = values, for every branch; prefix slots hold the condition."""

  branches: int = 1

  @nn.compact
  def __call__(
    self,
    slots,
    cond,
    layout,
    *,
    cache=None,
    commit=True,
    visible=None,
    train=False,
  ):
    x = jnp.asarray(slots.values, jnp.float32)
    if x.ndim == 2:
      x = x[..., None]
    x = jnp.broadcast_to(x, (*x.shape[:2], x.shape[-1]))
    if cond.prefix is not None and isinstance(slots.index, np.ndarray):
      rows = np.flatnonzero(slots.index < layout.prefix)
      x = x.at[:, rows].set(cond.prefix[:, slots.index[rows], : x.shape[-1]])
    if visible is not None:
      order = jnp.argsort(slots.hole, axis=1, stable=True)[:, :visible]
      kept = jnp.take_along_axis(x, order[..., None], 1)
      x = x.at[:].set(0)
      x = jax.vmap(lambda x, i, k: x.at[i].set(k))(x, order, kept)
    seen = cache
    if cache is not None:
      seen = cache.at[:, slots.index].add(1)
    hidden = jnp.repeat(x[:, :, None], self.branches, axis=2)
    return hidden, seen if commit else cache

  def empty_cache(self, batch, layout):
    return jnp.zeros((batch, layout.slots), jnp.int32)


class NoCondition(nn.Module):
  drop: float = 0.0

  def __call__(self, inputs, slots=None, *, null):
    return Cond()


class Ones(nn.Module):
  """A prefix of ones, optionally padded on the left as captions are."""

  prefix: int
  drop: float = 0.0

  def __call__(self, inputs, slots=None, *, null):
    valid = inputs.get('caption_valid')
    ones = jnp.ones((null.shape[0], self.prefix, 8))
    return Cond(prefix=ones, prefix_valid=valid)


class Velocity(nn.Module):
  """z is the prediction; the loss looks at the level of its own row."""

  def field(self, z, at):
    return z[:, :, 0]

  def loss(self, z, targets, draw, at):
    error = jnp.sum((self.field(z, at) - targets) ** 2, -1)
    return error, {'level': jnp.broadcast_to(at.level, error.shape)}


@dataclasses.dataclass(frozen=True)
class Noise:
  """x_t = (1 - t) x + t noise with one level per entity (xAR)."""

  sees_own = True

  def train(self, tokens, layout, codec, draw):
    x = tokens.values
    t = draw.uniform('level', (layout.steps,))[:, layout.entity_of_token]
    noise = draw.normal('noise', x.shape[1:])
    mixed = (1 - t[..., None]) * x + t[..., None] * noise
    return Slots(
      values=mixed[:, layout.token],
      index=layout.index,
      extent=layout.slots,
      level=t[:, layout.token],
      targets=noise - x,
      weight=jnp.ones((1, layout.tokens)),
    )

  def init(self, batch, layout, codec):
    return jnp.zeros((batch, layout.tokens, CHANNELS))

  def slots(self, state, step, layout, codec):
    token = take(layout.token, step.index)
    level = jnp.zeros((state.shape[0], len(step.index)))
    return Slots(state[:, token], step.index, extent=step.extent, level=level)

  def push(self, state, step, tokens, layout, codec):
    return state.at[:, step.tokens].set(tokens)

  def finish(self, state):
    return Tokens(state)


def make(layout, feed, head, condition=None, backbone=None):
  return model.ARModel(
    condition=condition or NoCondition(),
    backbone=backbone or Identity(),
    head=head,
    layout=layout,
    feed=feed,
  )


def latents(layout, channels=CHANNELS):
  rng = np.random.default_rng(0)
  shape = (BATCH, layout.tokens, channels)
  return Tokens(jnp.asarray(rng.normal(size=shape), jnp.float32))


def draw():
  return Draw.create(0, jnp.arange(BATCH))


XAR = {
  'token': grid.cells(4, 4, (1, 1)),
  'cell': grid.cells(4, 4, (2, 2)),
  'subsample': grid.subsample(4, 4, (2, 2)),
  'image': grid.cells(4, 4, (4, 4)),
}


@pytest.mark.parametrize('entity', XAR)
def test_xar_reads_each_noisy_token_at_its_own_row(entity):
  layout = XAR[entity]
  m = make(layout, Noise(), Velocity())
  tokens = latents(layout)
  slots = m.feed.train(tokens, layout, None, draw())
  z, at = m.apply({}, slots, {}, jnp.zeros(BATCH, bool), method='hidden')
  t = draw().uniform('level', (layout.steps,))[:, layout.entity_of_token]
  np.testing.assert_array_equal(at.level, t)
  noise = draw().normal('noise', tokens.values.shape[1:])
  mixed = (1 - t[..., None]) * tokens.values + t[..., None] * noise
  np.testing.assert_allclose(z[:, :, 0], mixed, rtol=1e-6)


def test_xar_replays_recorded_noise_and_levels():
  layout = XAR['cell']
  tokens = latents(layout)
  recorded = Replay(
    {
      'null': np.zeros(BATCH),
      'level': np.full((BATCH, layout.steps), 0.5),
      'noise': np.ones(tokens.values.shape),
    },
    size=BATCH,
  )
  m = make(layout, Noise(), Velocity())
  total, (weight, sums) = m.apply({}, tokens, {}, recorded, method='loss')
  x = tokens.values
  wanted = jnp.sum((0.5 * x + 0.5 - (1 - x)) ** 2)
  np.testing.assert_allclose(total, wanted, rtol=1e-5)
  np.testing.assert_allclose(sums['level'] / weight, 0.5)


@dataclasses.dataclass(frozen=True)
class Refine(Sampler):
  """Euler steps against a frozen cache, one commit per entity at level 0."""

  steps: int = 4

  def __call__(self, bound, inputs, draw, batch):
    cond = bound.condition(inputs, jnp.zeros(batch, bool))
    state, cache = bound.start(batch), bound.empty_cache(batch)
    for run in bound.layout.runs:
      for i in range(run.count):
        step = run.step(i)
        x = draw.fold(step.s).normal('start', (len(step.tokens), CHANNELS))
        for _ in range(self.steps):
          noisy = bound.push(state, step, x)
          slots = bound.feed_slots(noisy, step)
          z, same = bound.read(slots, cond, cache, step.readout, commit=False)
          np.testing.assert_array_equal(same, cache)
          x = x - bound.field(z, slots) / self.steps
        state = bound.push(state, step, x)
        slots = bound.feed_slots(state, step)
        _, cache = bound.read(slots, cond, cache, step.readout)
    np.testing.assert_array_equal(cache, 1)
    return bound.finish(state)


def test_xar_refines_in_place_and_commits_once():
  layout = XAR['subsample']
  m = make(layout, Noise(), Velocity())
  out = model.sample(m, {}, Refine(), {}, draw())
  # dx/dt = x shrinks each start by (1 - 1/4)^4.
  for s in range(layout.steps):
    here = layout.entity_of_token == s
    start = draw().fold(s).normal('start', (int(here.sum()), CHANNELS))
    np.testing.assert_allclose(out.values[:, here], start * 0.75**4, rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class Holes:
  """One entity, some tokens hidden, loss on those alone (MAR)."""

  sees_own = True

  def train(self, tokens, layout, codec, draw):
    order = draw.permutation('order', layout.tokens)
    hole = jnp.argsort(order, axis=1) < 0.75 * layout.tokens
    return Slots(
      values=tokens.values,
      index=layout.index,
      extent=layout.slots,
      hole=hole,
      level=jnp.zeros((1, layout.tokens)),
      targets=tokens.values,
      weight=hole.astype(jnp.float32),
    )


class Dropping(Identity):
  """An encoder that sees a static number of visible tokens (MAR)."""

  def __call__(self, *args, **kwargs):
    return super().__call__(*args, **{**kwargs, 'visible': 4})


def test_mar_weighs_hidden_tokens_alone():
  layout = grid.cells(4, 4, (4, 4))
  m = make(layout, Holes(), Velocity(), backbone=Dropping())
  tokens = latents(layout)
  total, (weight, _) = m.apply(
    m.init({}, tokens, {}, draw(), method='loss'),
    tokens,
    {},
    draw(),
    method='loss',
  )
  assert weight == BATCH * 12
  hidden = Holes().train(tokens, layout, None, draw()).hole
  wanted = jnp.sum(jnp.sum(tokens.values**2, -1) * hidden)
  np.testing.assert_allclose(total, wanted, rtol=1e-5)


class Branches(nn.Module):
  """Logits from branches: the mean of those that are present (NAR)."""

  def field(self, z, at):
    share = at.present / at.present.sum(-1, keepdims=True)
    return jnp.einsum('btrv,tr->btv', z, share)

  def loss(self, z, targets, draw, at):
    return (self.field(z, at)[..., 0] - targets) ** 2, {}

  def sample(self, z, draw, guide, choose, at):
    return guide(self.field(z, at))[..., 0].astype(jnp.int32) + 1


def test_nar_averages_the_branches_that_a_token_has():
  layout = grid.diagonals(3, 3)
  m = make(layout, Shift(), Branches(), Ones(prefix=1), Identity(branches=2))
  out = model.sample(m, {}, EntityAR(), {}, draw())
  # A token is the mean of its upper and left neighbours plus one; all tokens
  # of a diagonal are equal, and the prefix of ones starts at two.
  y, x = np.mgrid[:3, :3]
  np.testing.assert_array_equal(
    out.values, np.tile((y + x + 2).ravel(), (BATCH, 1))
  )


def test_nar_trains_and_samples_through_the_same_rows():
  layout = grid.diagonals(3, 4)
  m = make(layout, Shift(), Branches(), Ones(prefix=1), Identity(branches=2))
  y, x = np.mgrid[:3, :4]
  tokens = Tokens(jnp.asarray(np.tile((y + x + 2).ravel(), (BATCH, 1))))
  total, _ = m.apply({}, tokens, {}, draw(), method='loss')
  # Every token but the first is one more than the mean of its neighbours.
  assert total == BATCH * layout.tokens


class OneScale(nn.Module):
  """A head over the tokens of one entity at a time (FlowAR)."""

  layout: Any

  def loss(self, z, targets, draw, at):
    parts = []
    for s in range(self.layout.steps):
      here = self.layout.entity_of_token == s
      centred = z[:, here, 0] - jnp.mean(z[:, here, 0], 1, keepdims=True)
      parts.append(jnp.sum((centred - targets[:, here]) ** 2, -1))
    return jnp.concatenate(parts, 1), {}


@dataclasses.dataclass(frozen=True)
class Resample:
  """Latents of every scale, weighed by its area (FlowAR)."""

  sees_own = False

  def train(self, tokens, layout, codec, draw):
    weight = np.concatenate(
      [np.full(h * w, h * w / 16.0) for h, w in layout.grids]
    )
    return Slots(
      values=tokens.values,
      index=layout.index,
      extent=layout.slots,
      targets=jnp.zeros_like(tokens.values),
      weight=jnp.asarray(weight, jnp.float32)[None],
    )


def test_flowar_heads_see_whole_scales_and_scales_have_weights():
  layout = scales.scales((1, 2, 4), start=False)
  m = make(layout, Resample(), OneScale(layout))
  tokens = Tokens(jnp.ones((BATCH, layout.tokens, CHANNELS)))
  total, (weight, _) = m.apply({}, tokens, {}, draw(), method='loss')
  assert total == 0  # all tokens of a scale are equal
  np.testing.assert_allclose(weight, BATCH * (1 / 16 + 1 + 16))


def test_padded_text_is_seen_by_nobody():
  layout = grid.raster(2, 3, prefix=4)
  condition = Ones(prefix=4)
  valid = jnp.array([[True] * 4, [False, False, True, True]])
  m = make(layout, Shift(), Branches(), condition)
  cond = m.apply(
    {}, {'caption_valid': valid}, jnp.zeros(BATCH, bool), method='conditions'
  )
  padded = jnp.pad(cond.prefix_valid, ((0, 0), (0, 5)), constant_values=True)
  mask = masks.step(layout, layout.index, layout.slots, jnp, padded)
  dense = masks.dense(layout)
  np.testing.assert_array_equal(mask[0], dense)
  assert not mask[1, 2:, :2].any()
  np.testing.assert_array_equal(mask[1, :, 2:], dense[:, 2:])
  out = model.sample(m, {}, EntityAR(), {'caption_valid': valid}, draw())
  np.testing.assert_array_equal(out.values[0], np.arange(2, 8))


def test_two_streams_are_read_from_the_noisy_half():
  layout = sequence.two_stream(sequence.blocks(8, 4))
  x = jnp.arange(16.0)[None, :, None]
  z = model.gather(x[:, :, None], layout.readout)
  np.testing.assert_array_equal(z[0, :, 0, 0], np.arange(8, 16))


def test_draws_depend_on_the_example_and_not_on_its_batch():
  one = Draw.create(3, jnp.arange(4), step=7)
  late = Draw.create(3, jnp.arange(2, 4), step=7)
  for name in ('a', 'b'):
    np.testing.assert_array_equal(
      one.normal(name, (5,))[2:], late.normal(name, (5,))
    )
  assert not (one.normal('a') == one.normal('b')).any()
  assert not (one.normal('a') == one.fold(1).normal('a')).any()
