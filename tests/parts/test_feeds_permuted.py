"""RAR's random orders: what a slot carries, predicts, and aims at."""

import jax.numpy as jnp
import numpy as np
import pytest

from arvision.feeds.shift import Permuted, Shift
from arvision.layers.position import Aimed
from arvision.layouts import grid
from arvision.random import Draw, Replay
from arvision.structs import Tokens

LAYOUT = grid.raster(2, 3, prefix=2)
ORDER = np.array([[4, 0, 5, 2, 1, 3], [0, 1, 2, 3, 4, 5]])
CODES = Tokens(jnp.arange(12).reshape(2, 6) + 10)


def fed(progress=0.0, random=(0.0, 0.0), **fields):
  arrays = {'random': np.array(random), 'order': ORDER}
  draw = Replay(arrays, progress=progress, size=2)
  return Permuted(**fields).train(CODES, LAYOUT, None, draw)


def slots(*args, **fields):
  return fed(*args, **fields)[0]


def test_targets_are_the_tokens_at_the_places_aimed_at():
  s, targets = fed()
  codes = np.asarray(CODES.values)
  # The token that is read from slot 1 + i is the i-th of the order.
  np.testing.assert_array_equal(s.target_position[:, 1:], ORDER)
  np.testing.assert_array_equal(
    targets.values, np.take_along_axis(codes, ORDER, axis=1)
  )
  np.testing.assert_array_equal(s.position[:, 2:], ORDER[:, :-1])
  np.testing.assert_array_equal(s.values[:, 2:], targets.values[:, :-1])
  assert (s.position[:, :2] == -1).all() and (
    s.target_position[:, 0] == -1
  ).all()


@pytest.mark.parametrize(
  ('progress', 'random', 'permuted'),
  [
    (0.0, 0.99, True),
    (0.5, 0.99, True),
    (0.625, 0.49, True),
    (0.625, 0.51, False),
    (0.75, 0.0, False),
    (1.0, 0.0, False),
  ],
)
def test_orders_become_raster(progress, random, permuted):
  s = slots(progress, (random, random), start=0.5, end=0.75)
  wanted = ORDER[0] if permuted else np.arange(6)
  np.testing.assert_array_equal(s.target_position[0, 1:], wanted)


def test_without_a_run_all_orders_are_raster():
  draw = Draw.create(0, jnp.arange(2))
  s, _ = Permuted().train(CODES, LAYOUT, None, draw)
  plain, _ = Shift().train(CODES, LAYOUT, None, draw)
  np.testing.assert_array_equal(s.values, plain.values)
  assert s.position is None and s.target_position is None


def test_positions_follow_the_order():
  module = Aimed(width=1, rows=9)
  rows = jnp.arange(9.0)[:, None]
  params = {'place': rows, 'aim': 100 * (rows + 1)}
  out = module.apply({'params': params}, LAYOUT, slots())[..., 0]
  # Prefix slots lie at 0 and 1, the grid begins at 2; slot 0 aims at nothing.
  np.testing.assert_array_equal(out[:, 0], 0)
  aim = 100 * (2 + ORDER + 1)
  np.testing.assert_array_equal(out[:, 1], 1 + aim[:, 0])
  np.testing.assert_array_equal(out[:, 2:], 2 + ORDER[:, :-1] + aim[:, 1:])


def test_raster_positions_are_those_of_the_raster_order():
  module = Aimed(width=1, rows=8)
  rows = jnp.arange(8.0)[:, None]
  params = {'params': {'place': rows, 'aim': 100 * (rows + 1)}}
  draw = Draw.create(0, jnp.arange(2))
  plain, _ = Permuted().train(CODES, LAYOUT, None, draw)
  out = module.apply(params, LAYOUT, plain)[..., 0]
  np.testing.assert_array_equal(
    out, module.apply(params, LAYOUT, slots())[1, :, 0]
  )


def test_too_few_positions_are_refused():
  with pytest.raises(ValueError, match=r'config\.backbone\.position\.rows'):
    Aimed(width=1, rows=7).init({}, LAYOUT, slots())
