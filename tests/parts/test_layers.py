"""Rotations, attention and the stack of layers."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.backbones.decoder import CodeInput, Decoder
from arvision.kernels.attention import attention
from arvision.layers import stack
from arvision.layers.attention import Attention, L2Normed, Scaled
from arvision.layers.blocks import GELU, AdaLN, Block, ExactGELU, SwiGLU
from arvision.layers.cache import Cache
from arvision.layers.norm import LayerNorm, ModulatedNorm, RMSNorm
from arvision.layers.position import Learned, Rotary, rotate, rotations
from arvision.layouts import grid, scales, sequence
from arvision.structs import Cond, Slots


def test_rotations_depend_on_the_distance_alone():
  coords = np.array([[0, 0], [1, 2], [5, 3], [6, 5]], np.float32)
  table = jnp.asarray(rotations(coords, 16, 100.0))
  x = jax.random.normal(jax.random.key(0), (1, 1, 1, 16))
  q, k = (jnp.repeat(v, 4, 2) for v in (x, x[..., ::-1]))
  logits = jnp.einsum('bhqk,bhmk->qm', rotate(q, table), rotate(k, table))
  # (1, 2) - (0, 0) == (6, 5) - (5, 3)
  np.testing.assert_allclose(logits[1, 0], logits[3, 2], rtol=1e-5)
  assert abs(logits[1, 0] - logits[2, 0]) > 1e-3


def test_slots_without_a_position_are_zeroed_and_not_kept():
  table = rotations(np.full((1, 2), np.nan, np.float32), 8, 10000.0)
  assert not table.any()


def test_heads_that_cannot_be_split_are_refused():
  with pytest.raises(ValueError, match='rotary heads of 6'):
    rotations(np.zeros((1, 2), np.float32), 6, 10000.0)


def test_attention_is_a_mean_over_what_may_be_seen():
  v = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))
  q = jnp.zeros_like(v)
  mask = jnp.tril(jnp.ones((5, 5), bool))
  out = attention(q, q, v, mask)
  for i in range(5):
    np.testing.assert_allclose(
      out[:, :, i], v[:, :, : i + 1].mean(2), atol=1e-6
    )


def test_bfloat16_keeps_its_dtype_and_stays_near_float32():
  q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 2, 16, 8))
  mask = jnp.ones((16, 16), bool)
  exact = attention(q, k, v, mask)
  rough = attention(*(x.astype(jnp.bfloat16) for x in (q, k, v)), mask)
  assert rough.dtype == jnp.bfloat16
  np.testing.assert_allclose(rough.astype(jnp.float32), exact, atol=0.03)


LAYOUT = grid.raster(3, 3)


SPREAD = functools.partial(
  Attention, biases=('q', 'v', 'out'), std=0.3, out_std=0.3
)


def decoder(**fields):
  defaults = {
    'width': 32,
    'depth': 2,
    'heads': 4,
    'input': functools.partial(CodeInput, vocab_size=11, std=1.0),
    'block': block(),
    'last_norm': LayerNorm,
  }
  return Decoder(**{**defaults, **fields})


def block(cls=Block, **parts):
  defaults = {
    'attention': SPREAD,
    'mlp': functools.partial(GELU, hidden=64, std=0.3, out_std=0.3),
    'norm': LayerNorm,
  }
  return functools.partial(cls, **{**defaults, **parts})


def start(model, slots, cond, layout=LAYOUT):
  """Fresh variables, without boxes."""
  init = jax.jit(lambda key: model.init(key, slots, cond, layout))
  return nn.unbox(init(jax.random.key(0)))


@dataclasses.dataclass(frozen=True)
class Fork:
  """Two stacks of one layer over a trunk (HMAR)."""

  def sizes(self, size):
    return size, *(size._replace(depth=1),) * 2

  def __call__(self, run, x, caches):
    trunk, *sizes = self.sizes(run.size)
    x, first = run.stack('stack', x, caches[0], trunk)
    ends = [
      run.stack(f'stack_{i}', x, caches[1 + i], size)
      for i, size in enumerate(sizes)
    ]
    hidden = [run.norm(f'norm_{i}', y) for i, (y, _) in enumerate(ends)]
    return jnp.stack(hidden, 2), (first, *(cache for _, cache in ends))


@flax.struct.dataclass
class State(Cache):
  """Sum of k vᵀ over past slots (b, d, d)."""

  sum: jax.Array


class Linear(nn.Module):
  """Linear attention with a carried state (ARFlow)."""

  heads: int
  dtype: Any = jnp.float32

  def empty_cache(self, batch, slots, width):
    return State(jnp.zeros((batch, width, width)))

  @nn.compact
  def __call__(self, x, inputs, cache=None):
    q, k, v = (nn.Dense(x.shape[-1], name=name)(x) for name in 'qkv')
    sums = jnp.cumsum(k[..., None] * v[..., None, :], 1)
    if cache is not None:
      sums = sums + cache.sum[:, None]
      cache = State(sums[:, -1])
    return jnp.einsum('bnk,bnkv->bnv', q, sums), cache


class OnStreams(AdaLN):
  """Modulates the slots of some streams alone (ACDiT)."""

  streams: tuple[int, ...] = (1,)

  def __call__(self, inputs):
    stream = inputs.layout.stream[inputs.index]
    on = jnp.asarray(np.isin(stream, self.streams))[:, None]
    return [
      (jnp.where(on, gate, 1), jnp.where(on, scale, 0), jnp.where(on, shift, 0))
      for gate, scale, shift in super().__call__(inputs)
    ]


VARIANTS = {
  'a fork': {'body': Fork()},
  'a carried state': {'block': block(attention=Linear)},
  'learned positions': {'position': functools.partial(Learned, std=1.0)},
  'rotary': {'rotary': Rotary(100.0)},
  'cosine attention': {
    'block': block(
      attention=functools.partial(Attention, logits=L2Normed, std=0.3)
    )
  },
  'own scale': {
    'block': block(
      attention=functools.partial(
        Attention, logits=functools.partial(Scaled, scale=0.1), std=0.3
      )
    )
  },
  'swiglu, rms': {
    'block': block(
      mlp=functools.partial(SwiGLU, hidden=48, std=0.3, out_std=0.3),
      norm=RMSNorm,
    ),
    'last_norm': RMSNorm,
  },
  'adaln': {
    'block': block(adaln=functools.partial(AdaLN, std=0.3, gate=1.0)),
    'last_norm': ModulatedNorm,
  },
}


def inputs(layout=LAYOUT, width=32):
  rng = np.random.default_rng(1)
  codes = rng.integers(0, 11, (2, layout.slots))
  cond = jnp.asarray(rng.normal(size=(2, 1, width)), jnp.float32)
  slots = Slots(jnp.asarray(codes), layout.index, extent=layout.slots)
  return slots, Cond(prefix=cond, modulation=cond)


def check_cached_steps(model, layout=LAYOUT):
  """Steps against a cache give what the masked pass gives; the last cache."""
  slots, cond = inputs(layout)
  variables = start(model, slots, cond, layout)
  full = jax.jit(lambda v: model.apply(v, slots, cond, layout)[0])(variables)
  cache = model.empty_cache(2, layout)
  for run in layout.runs:
    xp = np if run.count == 1 else jnp

    @jax.jit
    def advance(v, cache, i, run=run, xp=xp):
      step = run.step(0 if run.count == 1 else i, xp)
      row = Slots(slots.values[:, step.index], step.index, extent=step.extent)
      return model.apply(v, row, cond, layout, cache=cache)

    for i in range(run.count):
      hidden, cache = advance(variables, cache, i)
      wanted = full[:, run.index[i]]
      np.testing.assert_allclose(hidden, wanted, atol=2e-5, err_msg=f'{i}')
  return cache


@pytest.mark.parametrize('name', VARIANTS)
def test_cached_steps_equal_the_masked_pass(name):
  check_cached_steps(decoder(**VARIANTS[name]))


@pytest.mark.parametrize(
  'layout',
  [LAYOUT, scales.scales((1, 2, 3)), scales.scales((1, 3, 1, 2))],
  ids=['first and then a loop', 'more and more', 'more and less'],
)
def test_layers_that_are_scanned_share_a_cache(layout, monkeypatch):
  size = 1 if layout is LAYOUT else 5
  monkeypatch.setattr(stack, '_SCANNED_ROWS', size)
  (cache,) = check_cached_steps(decoder(), layout)
  assert isinstance(cache, Cache) and cache.layer is None


@pytest.mark.parametrize('joins', [True, False])
def test_layers_that_are_scanned_take_any_kind_of_cache(monkeypatch, joins):
  monkeypatch.setattr(stack, '_SCANNED_ROWS', 1)
  monkeypatch.setattr(State, 'joins', joins)
  (cache,) = check_cached_steps(decoder(**VARIANTS['a carried state']))
  if joins:
    assert isinstance(cache, State) and cache.sum.shape == (2, 2, 32, 32)
  else:
    assert [one.sum.shape for one in cache] == [(2, 32, 32)] * 2


def test_no_modulation_of_a_stream_is_not_a_zero_condition():
  layout = sequence.two_stream(grid.cells(2, 2, (1, 1)))
  adaln = functools.partial(OnStreams, std=0.3, gate=1.0)
  model = decoder(block=block(adaln=adaln))
  slots, cond = inputs(layout)
  variables = start(model, slots, cond, layout)
  base, moved = (
    model.apply(variables, slots, Cond(modulation=m), layout)[0]
    for m in (cond.modulation, cond.modulation + 1)
  )
  change = np.abs(moved - base).max((0, 2, 3))
  noisy = layout.stream == 1
  assert (change[noisy] > 1e-3).all() and not change[~noisy].any()


def test_many_rows_are_decoded_by_a_scan_over_layers_and_few_are_not():
  model = decoder()
  slots, cond = inputs()
  variables = start(model, slots, cond)

  @jax.jit
  def decode(variables, values, cond):
    row = Slots(values, LAYOUT.index[:1], extent=1)
    cache = model.empty_cache(len(values), LAYOUT)
    return model.apply(variables, row, cond, LAYOUT, cache=cache)

  few = (variables, slots.values[:, :1], cond)
  wide = jax.tree.map(lambda x: jnp.tile(x, (300, 1, 1)), cond)
  many = (variables, jnp.tile(few[1], (300, 1)), wide)
  assert 'scan' in str(jax.make_jaxpr(decode)(*many))
  assert 'scan' not in str(jax.make_jaxpr(decode)(*few))


@pytest.mark.parametrize(
  'how',
  [
    {'remat': 'dots'},
    {'remat': 'full'},
    {'unroll': 2},
    {
      'remat': 'dots',
      'block': block(attention=functools.partial(SPREAD, kernel='splash')),
    },
  ],
)
def test_how_layers_are_run_changes_no_gradient(how):
  slots, cond = inputs()

  def gradient(**how):
    model = decoder(**how)
    params = start(model, slots, cond)
    loss = lambda p: (model.apply(p, slots, cond, LAYOUT)[0] ** 3).sum()
    return jax.jit(jax.grad(loss))(params)

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3),
    gradient(),
    gradient(**how),
  )


@pytest.mark.parametrize('mlp, wide', [(GELU, 2), (ExactGELU, 2), (SwiGLU, 3)])
def test_the_backward_pass_keeps_what_products_of_an_mlp_give(mlp, wide):
  """And what the last of them is given, but nothing of the activation."""
  model, x = mlp(hidden=48), jnp.ones((2, 5, 8))
  params = model.init(jax.random.key(0), x)
  _, backward = jax.vjp(model.apply, nn.unbox(params), x)
  kept = [leaf.shape for leaf in jax.tree.leaves(backward)]
  assert kept.count((2, 5, 48)) <= wide, kept


def test_layers_are_stacked_and_every_parameter_has_axis_names():
  model = decoder(**VARIANTS['adaln'])
  slots, cond = inputs()
  boxed = jax.eval_shape(
    lambda: model.init(jax.random.key(0), slots, cond, LAYOUT)
  )['params']
  is_box = lambda x: isinstance(x, nn.LogicallyPartitioned)
  leaves = jax.tree_util.tree_leaves_with_path(boxed, is_leaf=is_box)
  for path, leaf in leaves:
    text = jax.tree_util.keystr(path)
    assert is_box(leaf), text
    assert len(leaf.names) == len(leaf.value.shape), text
    assert ('layers' in text) == (leaf.names[0] == 'layers'), text


def test_drop_path_drops_whole_examples_in_training_alone():
  model = decoder(drop_path=0.9)
  slots, cond = inputs()
  variables = start(model, slots, cond)

  @functools.partial(jax.jit, static_argnums=0)
  def hidden(train, key):
    return model.apply(
      variables, slots, cond, LAYOUT, train=train, rngs={'dropout': key}
    )[0]

  keys = jax.random.split(jax.random.key(1))
  rest = hidden(False, keys[0])
  np.testing.assert_array_equal(rest, hidden(False, keys[1]))
  assert np.abs(hidden(True, keys[0]) - rest).max() > 0.1


def test_a_prefix_that_does_not_fit_the_layout_is_named():
  model = decoder()
  slots, cond = inputs()
  short = Cond(prefix=jnp.zeros((2, 3, 32)))
  with pytest.raises(ValueError, match='1 prefix slots but .* fills 3'):
    model.init(jax.random.key(0), slots, short, LAYOUT)
