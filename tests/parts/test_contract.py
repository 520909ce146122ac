"""What parts hand to one another, with parts that are checked by hand.

The backbone does no more than hand its inputs on, so that a wrong row, a lost
field or a missing argument shows.
"""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from arvision import model
from arvision.feeds.shift import Shift
from arvision.layouts import grid, masks, sequence
from arvision.metrics import total
from arvision.random import Draw
from arvision.samplers.entity import EntityAR
from arvision.structs import Cond, Tokens

BATCH = 2


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
    train=False,
  ):
    x = jnp.asarray(slots.values, jnp.float32)
    if x.ndim == 2:
      x = x[..., None]
    x = jnp.broadcast_to(x, (*x.shape[:2], x.shape[-1]))
    if cond.prefix is not None and isinstance(slots.index, np.ndarray):
      rows = np.flatnonzero(slots.index < layout.prefix)
      x = x.at[:, rows].set(cond.prefix[:, slots.index[rows], : x.shape[-1]])
    seen = cache
    if cache is not None:
      seen = cache.at[:, slots.index].add(1)
    hidden = jnp.repeat(x[:, :, None], self.branches, axis=2)
    return hidden, seen if commit else cache

  def empty_cache(self, batch, layout):
    return jnp.zeros((batch, layout.slots), jnp.int32)


class Ones(nn.Module):
  """A prefix of ones, optionally padded on the left as captions are."""

  prefix: int
  drop: float = 0.0
  reads_slots: ClassVar[bool] = False

  def __call__(self, inputs, slots=None, *, null):
    valid = inputs.get('caption_valid')
    ones = jnp.ones((null.shape[0], self.prefix, 8))
    return Cond(prefix=ones, prefix_valid=valid)


def make(layout, feed, head, condition, backbone=None):
  return model.ARModel(
    condition=condition,
    backbone=backbone or Identity(),
    head=head,
    layout=layout,
    feed=feed,
  )


def draw():
  return Draw.create(0, jnp.arange(BATCH))


class Branches(nn.Module):
  """Logits from branches: the mean of those that are present (NAR)."""

  def field(self, z, query):
    share = query.present / query.present.sum(-1, keepdims=True)
    return jnp.einsum('btrv,tr->btv', z, share)

  def loss(self, z, targets, draw, query):
    return (self.field(z, query)[..., 0] - targets) ** 2, {}

  def sample(self, z, draw, guide, sampling, query):
    return guide(self.field(z, query))[..., 0].astype(jnp.int32) + 1


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
  terms, _ = m.apply({}, tokens, {}, draw(), method='losses')
  # Every token but the first is one more than the mean of its neighbours.
  assert total(terms).compute() == 1


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
  layout = sequence.two_stream(grid.cells(1, 8, (1, 4)))
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
