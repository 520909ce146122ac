"""Hybrid linear attention, and a stack that carries its state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.layers import stack
from arvision.layers.attention import BlockInputs
from arvision.layers.norm import RMSNorm
from arvision.layers.retention import GatedRetention, KeyValueState
from arvision.layouts import grid, sequence
from tests.laws.test_generators import BATCH, case

LAYOUT = sequence.repeated(grid.cells(2, 2, (2, 2)), 3)
HEADS, WIDTH = 2, 8


def attention():
  norm = lambda **fields: RMSNorm(epsilon=1e-6, use_scale=False, **fields)
  return GatedRetention(HEADS, norm=norm)


def some_inputs(layout=LAYOUT):
  rng = np.random.default_rng(0)
  x = jnp.float32(rng.normal(size=(2, layout.slots, WIDTH)))
  c = jnp.float32(rng.normal(size=(2, 1, WIDTH)))
  return x, BlockInputs(None, modulation=c, layout=layout)


def test_it_is_the_sum_over_all_pairs():
  """Of an image and of earlier ones, written out as one loop over images."""
  x, inputs = some_inputs()
  module = attention()
  variables = module.init(jax.random.key(1), x, inputs)
  got, _ = module.apply(variables, x, inputs)
  p = {
    k: np.float64(v['kernel'].unbox()) for k, v in variables['params'].items()
  }
  unit = lambda x: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
  for b in range(2):
    state = np.zeros((HEADS, 4, 4))
    for s in range(3):
      own = np.float64(x[b, 4 * s : 4 * s + 4])
      q, k, v = (unit(own @ p[n]).reshape(4, HEADS, 4) for n in 'qkv')
      logit = (own + np.float64(inputs.modulation[b])) @ p['decay']
      g = -np.log1p(np.exp(-logit)) / 16
      for h in range(HEADS):
        scores = q[:, h] @ k[:, h].T / 2
        weights = np.exp(scores - scores.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        decay = np.exp(np.cumsum(g[:, h]))[:, None]
        y = unit(weights @ v[:, h] + decay * q[:, h] @ state[h])
        state[h] = state[h] * np.exp(g[:, h].mean()) + k[:, h].T @ v[:, h] / 2
        gate = (own @ p['gate']).reshape(4, HEADS, 4)[:, h]
        q[:, h] = y * gate / (1 + np.exp(-gate))
      wanted = q.reshape(4, -1) @ p['out'].reshape(WIDTH, WIDTH)
      np.testing.assert_allclose(got[b, 4 * s : 4 * s + 4], wanted, atol=2e-5)


def test_other_layouts_are_refused():
  x, inputs = some_inputs()
  with pytest.raises(ValueError, match='wanted all slots of a layout'):
    attention().init(jax.random.key(0), x[:, :8], inputs)
  x, inputs = some_inputs(grid.raster(2, 2, prefix=2))
  with pytest.raises(ValueError, match='without a prefix'):
    attention().init(jax.random.key(0), x, inputs)


def test_copies_follow_one_another():
  layout = grid.cells(4, 4, (2, 2))
  three = sequence.repeated(layout, 3)
  assert three.steps == 12 and three.grids == layout.grids * 3
  np.testing.assert_array_equal(
    three.entity.reshape(3, -1)[1], layout.entity + 4
  )
  np.testing.assert_array_equal(
    three.token.reshape(3, -1)[2], layout.token + 32
  )
  carried = three.token[three.readout[:, 0]]
  np.testing.assert_array_equal(carried, np.arange(48))
  assert sequence.repeated(layout, 1).slots == layout.slots
  with pytest.raises(ValueError, match='prefix'):
    sequence.repeated(grid.raster(2, 2), 2)


def test_states_of_scanned_layers_stay_apart(monkeypatch):
  """A loop that carries them gets them back as it gave them."""
  law = case('arflow/tiny')
  drawn = law.draw(np.arange(BATCH))
  monkeypatch.setattr(stack, '_SCANNED_ROWS', 1)
  del law.draw  # compiled with layers one by one
  try:
    np.testing.assert_allclose(law.draw(np.arange(BATCH)), drawn, atol=1e-4)
  finally:
    del law.draw
  assert not KeyValueState.joins
