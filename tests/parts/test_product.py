"""Products in a compute dtype, with sums in float32."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.kernels import traced
from arvision.kernels.cpu.product import product
from arvision.layers.dense import Dense
from arvision.layers.stack import REMAT

SPECS = {
  'linear': ('abi,ix->abx', (4, 6, 16), (16, 8)),
  'heads': ('abij,ijx->abx', (4, 6, 2, 8), (2, 8, 12)),
  'logits': ('bhnk,bhmk->bhnm', (2, 3, 5, 8), (2, 3, 7, 8)),
}


def _operands(name, dtype=jnp.float32):
  spec, *shapes = SPECS[name]
  keys = jax.random.split(jax.random.key(0), 2)
  return spec, *(jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes))


@pytest.mark.parametrize('name', SPECS)
def test_gradients_are_those_of_einsum(name):
  spec, a, b = _operands(name)
  ours = functools.partial(product, spec, dtype=jnp.float32)
  plain = functools.partial(jnp.einsum, spec)
  grad = lambda f: jax.grad(lambda a, b: (f(a, b) ** 2).sum(), (0, 1))(a, b)
  for found, wanted in zip(grad(ours), grad(plain)):
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)


def _dots(jaxpr):
  """Arrays in and out of every product."""
  for eqn in jaxpr.eqns:
    if eqn.primitive.name == 'dot_general':
      yield [x.aval for x in (*eqn.invars, *eqn.outvars)]
    for inner in jax.tree.leaves(
      eqn.params, is_leaf=lambda x: hasattr(x, 'eqns')
    ):
      inner = getattr(inner, 'jaxpr', inner)
      if hasattr(inner, 'eqns'):
        yield from _dots(inner)


def _dtypes(f, *args):
  found = _dots(jax.make_jaxpr(f)(*args).jaxpr)
  return [tuple(str(x.dtype) for x in arrays) for arrays in found]


@pytest.fixture(params=[True, False], ids=['units', 'no units'])
def units(request, monkeypatch):
  """Whether the CPU is taken to have instructions for bfloat16."""
  has = request.param
  monkeypatch.setattr(traced, 'cpu_multiplies_bfloat16', lambda: has)
  return has


@pytest.mark.parametrize('given', [jnp.bfloat16, 'bfloat16'])
@pytest.mark.parametrize('name', SPECS)
def test_both_sides_of_every_product_have_the_same_dtype(name, given, units):
  spec, a, b = _operands(name)
  loss = lambda a, b: (product(spec, a, b, given) ** 2).sum()
  found = _dtypes(jax.grad(loss, (0, 1)), a, b)
  dtype = 'bfloat16' if units else 'float32'
  assert found == [(dtype, dtype, 'float32')] * 3


def test_what_is_stored_in_bfloat16_is_multiplied_so_but_by_many_rows(
  monkeypatch,
):
  monkeypatch.setattr(traced, 'cpu_multiplies_bfloat16', lambda: False)
  b = jax.random.normal(jax.random.key(1), (2, 8, 4), jnp.bfloat16)
  for rows, dtype in ((1, 'bfloat16'), (127, 'bfloat16'), (128, 'float32')):
    a = jax.random.normal(jax.random.key(0), (2, rows, 8), jnp.bfloat16)
    one = lambda a, b: product('bni,bix->bnx', a, b, jnp.bfloat16)
    assert _dtypes(one, a, b) == [(dtype, dtype, 'float32')]
    wanted = np.einsum('bni,bix->bnx', *(np.asarray(x, float) for x in (a, b)))
    np.testing.assert_allclose(one(a, b), wanted, rtol=1e-4, atol=1e-5)


def test_gradients_of_float32_parameters_are_not_rounded(units):
  spec, a, b = _operands('linear')
  seed = jax.random.normal(jax.random.key(2), (4, 6, 8))
  left = a.astype(jnp.bfloat16)
  right = seed.astype(jnp.bfloat16) if units else seed
  operands = (np.asarray(x, np.float64) for x in (left, right))
  wanted = np.einsum('abi,abx->ix', *operands)
  _, pull = jax.vjp(lambda b: product(spec, a, b, jnp.bfloat16), b)
  (found,) = pull(seed)
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_a_bias_is_summed_in_float32():
  # A sum of as many in bfloat16 stops growing at 256.
  x = jnp.ones((64, 64, 2))
  layer = Dense((3,), ('embed', 'mlp'), dtype=jnp.bfloat16)
  params = layer.init(jax.random.key(0), x)
  loss = lambda p: layer.apply(p, x).astype(jnp.float32).sum()
  found = jax.grad(loss)(params)['params']['bias']
  np.testing.assert_array_equal(jnp.asarray(found.unbox()), 64 * 64)


@pytest.mark.parametrize(('remat', 'again'), [('dots', 0), ('full', 1)])
def test_remat_policies_keep_what_they_say(remat, again):
  x = jnp.ones((4, 16))
  layer = Dense((8,), ('embed', 'mlp'), dtype=jnp.bfloat16)
  params = nn.unbox(layer.init(jax.random.key(0), x))
  block = jax.checkpoint(
    lambda params, x: jnp.sin(layer.apply(params, x)), policy=REMAT[remat]
  )
  grad = jax.grad(lambda params, x: block(params, x).sum(), (0, 1))
  assert len(_dtypes(grad, params, x)) == 3 + again


ONE_ROW = {
  'linear': ('abi,ix->abx', (1, 1, 64), (64, 32)),
  'logits': ('bhnk,bhmk->bhnm', (2, 3, 1, 16), (2, 3, 10, 16)),
  'values': ('bhnm,bhmk->bhnk', (2, 3, 1, 10), (2, 3, 10, 16)),
}


@pytest.mark.parametrize('name', ONE_ROW)
def test_one_row_on_a_cpu_is_multiplied_in_float32_or_twice(name, monkeypatch):
  monkeypatch.setattr(traced, 'cpu_multiplies_bfloat16', lambda: True)
  spec, *shapes = ONE_ROW[name]
  keys = jax.random.split(jax.random.key(0))
  a, b = (
    jax.random.normal(k, s, jnp.bfloat16).astype(jnp.float32)
    for k, s in zip(keys, shapes)
  )
  wanted = jnp.einsum(spec, a, b)
  one = lambda a, b: product(spec, a, b, jnp.bfloat16)
  for stored, dtype in ((b, 'float32'), (b.astype(jnp.bfloat16), 'bfloat16')):
    np.testing.assert_allclose(one(a, stored), wanted, rtol=1e-5, atol=1e-5)
    (found,) = _dots(jax.make_jaxpr(one)(a, stored).jaxpr)
    assert [str(x.dtype) for x in found] == [dtype, dtype, 'float32']
    assert found[2].size == wanted.size * (1 if dtype == 'float32' else 2)
