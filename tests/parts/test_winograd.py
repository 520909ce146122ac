"""Convolutions as products are convolutions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.kernels import traced
from arvision.kernels.cpu import winograd
from arvision.layers.conv import conv

ONE, ZERO = ((1, 1), (1, 1)), ((0, 0), (0, 0))
# Kernel, padding, grid, channels in and out.
CASES = {
  'squares': (3, ONE, (12, 8), 32, 48),
  'smallest': (3, ONE, (8, 8), 32, 32),
  'small': (3, ONE, (4, 8), 32, 32),
  'few channels in': (3, ONE, (8, 10), 3, 40),
  'few channels out': (3, ONE, (10, 8), 40, 3),
  'odd': (3, ONE, (9, 8), 32, 32),
  'one place': (1, ZERO, (5, 4), 7, 9),
  'one place, padded': (1, ONE, (4, 4), 8, 8),
  'other padding': (3, ((0, 1), (0, 1)), (8, 8), 32, 32),
}


def _plain(padding, x, kernel):
  numbers = ('NHWC', 'HWIO', 'NHWC')
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), padding, dimension_numbers=numbers
  )


def _ours(padding, x, kernel):
  return winograd.convolve(x, kernel, (1, 1), padding)


def _arrays(name, dtype=jnp.float32):
  """Input, kernel, and a gradient of the output."""
  side, padding, grid, channels, features = CASES[name]
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(keys[0], (2, *grid, channels), dtype)
  kernel = jax.random.normal(keys[1], (side, side, channels, features), dtype)
  shape = jax.eval_shape(functools.partial(_plain, padding), x, kernel)
  return padding, x, kernel, jax.random.normal(keys[2], shape.shape, dtype)


def _all(f, padding, x, kernel, gradient):
  y, back = jax.vjp(functools.partial(f, padding), x, kernel)
  return y, *back(gradient)


def _same(found, wanted, tolerance):
  for a, b in zip(found, wanted, strict=True):
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    a, b = (np.asarray(x, np.float32) for x in (a, b))
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize('name', CASES)
def test_output_and_gradients_are_those_of_a_convolution(name):
  arrays = _arrays(name)
  _same(_all(_ours, *arrays), _all(_plain, *arrays), 2e-6)


@pytest.mark.parametrize(('most', 'rows'), [(500, 2), (3072, 4), (4608, 12)])
def test_so_they_are_where_rows_are_cut(most, rows, monkeypatch):
  arrays = _arrays('squares')
  wanted = _all(_ours, *arrays)
  monkeypatch.setattr(winograd, '_BLOCK', most)
  monkeypatch.setattr(winograd, '_GRADIENT_BLOCK', most)
  assert winograd._rows(arrays[1].shape, 48, most) == rows
  _same(_all(_ours, *arrays), wanted, 2e-6)


def test_bfloat16_is_rounded_once():
  arrays = _arrays('squares', jnp.bfloat16)
  exact = [x.astype(jnp.float32) for x in arrays[1:]]
  wanted = _all(_plain, arrays[0], *exact)
  rounded = [x.astype(jnp.bfloat16) for x in wanted]
  _same(_all(_ours, *arrays), rounded, 2**-8)


def test_gradients_have_gradients():
  padding, x, kernel, _ = _arrays('smallest')

  def slope(f, x, kernel):
    of = lambda x, kernel: (f(padding, x, kernel) ** 3).sum()
    return sum((g**2).sum() for g in jax.grad(of, (0, 1))(x, kernel))

  found, wanted = (
    jax.grad(functools.partial(slope, f), (0, 1))(x, kernel)
    for f in (_ours, _plain)
  )
  _same(found, wanted, 5e-6)


def test_an_example_does_not_depend_on_the_others():
  padding, x, kernel, _ = _arrays('squares')
  together = _ours(padding, jnp.repeat(x, 3, 0), kernel)
  _same([_ours(padding, x[1:], kernel)[0]], [together[3]], 1e-6)


def _convolutions(f, *args):
  return str(jax.make_jaxpr(f)(*args)).count('conv_general_dilated[')


@pytest.mark.parametrize(
  ('name', 'cpu', 'left'),
  [
    ('squares', True, 0),
    ('one place', True, 0),
    ('few channels in', True, 1),
    ('odd', True, 1),
    ('small', True, 1),
    ('squares', False, 1),
    ('one place', False, 1),
  ],
)
def test_what_is_left_to_the_compiler(name, cpu, left, monkeypatch):
  monkeypatch.setattr(traced, 'on_cpu', lambda: cpu)
  padding, x, kernel, _ = _arrays(name)
  assert _convolutions(functools.partial(_ours, padding), x, kernel) == left


@pytest.mark.parametrize(
  ('options', 'left'),
  [
    ({}, 0),
    ({'kernel': 1}, 0),
    ({'stride': 2}, 1),
    ({'kernel': 4}, 1),
  ],
)
def test_layers_convolve_so(options, left):
  module = conv(32, name=None, **options)
  x = jnp.ones((1, 8, 8, 32))
  variables = module.init(jax.random.key(0), x)
  assert _convolutions(module.apply, variables, x) == left
