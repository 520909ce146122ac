"""Mamba-2, and the block in which it mixes scales."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.layers import stack
from arvision.layers.attention import BlockInputs
from arvision.layers.cache import PerModule
from arvision.layers.mamba import Mamba2, MixerBlock, OpenAdaLN, recurrence
from arvision.layouts import grid, scales, sequence
from tests.parts.test_layers import block, check_cached_steps, decoder

MIXER = functools.partial(Mamba2, state=4, head=8, std=0.3, chunk=4)
ADALN = functools.partial(OpenAdaLN, std=0.3, gate=1.0)
SCALES = scales.scales((1, 2, 3), window=0)


def numbers(*shape):
  rng = np.random.default_rng(sum(shape))
  return rng.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize('chunk', [1, 4, 64])
def test_the_recurrence_is_that_of_slot_after_slot(chunk):
  u, b, c = numbers(2, 10, 3, 5), numbers(2, 10, 4), numbers(2, 10, 4) + 1
  decay, h = -np.abs(numbers(2, 10, 3)), numbers(2, 3, 5, 4)
  got, last = jax.jit(recurrence, static_argnums=5)(u, decay, b, c, h, chunk)
  for i in range(10):
    h = np.exp(decay[:, i])[..., None, None] * h
    h = h + u[:, i, :, :, None] * b[:, i, None, None]
    wanted = np.einsum('zhps,zs->zhp', h, c[:, i])
    np.testing.assert_allclose(got[:, i], wanted, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(last, h, rtol=1e-4, atol=1e-5)


def test_strong_decay_has_gradients():
  u, b = numbers(1, 8, 2, 3), numbers(1, 8, 4)
  h = jnp.zeros((1, 2, 3, 4))

  def total(decay):
    return recurrence(u, decay, b, b, h, 4)[0].sum()

  grad = jax.jit(jax.grad(total))(jnp.full((1, 8, 2), -1e4))
  assert np.isfinite(grad).all()


@pytest.mark.parametrize('first', [1, 5])
def test_the_state_after_some_slots_is_that_of_one_pass(first):
  mixer, x = MIXER(), numbers(2, 9, 8)
  inputs = BlockInputs(mask=None)
  variables = jax.jit(mixer.init)(jax.random.key(0), x, inputs)
  call = jax.jit(lambda x, state: mixer.apply(variables, x, inputs, state))
  empty = mixer.empty_cache(2, 8)
  whole, last = call(x, empty)
  one, state = call(x[:, :first], empty)
  two, state = call(x[:, first:], state)
  parts = np.concatenate([one, two], 1)
  np.testing.assert_allclose(parts, whole, atol=1e-6)
  for got, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(last)):
    np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize('scanned', [False, True])
def test_scales_that_are_decoded_equal_the_full_pass(scanned, monkeypatch):
  if scanned:
    monkeypatch.setattr(stack, '_SCANNED_ROWS', 5)
  mixed = block(MixerBlock, mixer=MIXER, adaln=ADALN)
  (cache,) = check_cached_steps(decoder(block=mixed), SCALES)
  last = cache if scanned else cache[-1]
  assert isinstance(last, PerModule)
  # Nothing of a state depends on the number of slots.
  assert last.of['mixer'].h.shape[-4:] == (2, 8, 8, 4)


@pytest.mark.parametrize(
  'layout',
  [
    sequence.two_stream(grid.raster(2, 2, prefix=0)),
    grid.diagonals(3, 3),
  ],
  ids=['two streams', 'out of order'],
)
def test_slots_that_do_not_follow_one_another_are_refused(layout):
  inputs = BlockInputs(None, layout=layout)
  with pytest.raises(ValueError, match='config.layout must have one stream'):
    jax.eval_shape(MIXER().init, jax.random.key(0), numbers(1, 4, 8), inputs)


def test_heads_that_do_not_divide_the_width_are_refused():
  with pytest.raises(ValueError, match='head=8 does not divide'):
    MIXER(expand=1).empty_cache(1, 12)


def test_the_gate_of_the_mlp_starts_like_the_scales():
  adaln = OpenAdaLN(8, sublayers=3, std=1.0, gate=0.0, rest=1.0)
  inputs = BlockInputs(None, modulation=jnp.ones((1, 1, 8)))
  params = jax.jit(adaln.init)(jax.random.key(0), inputs)['params']
  start = jax.tree.leaves(params['linear']['kernel'])[0]
  assert not start[:, :2].any() and start[:, 2:].all()
