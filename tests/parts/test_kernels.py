"""The kernels of attention against the dense reference, and their choice."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas.ops.tpu.splash_attention import (
  MultiHeadMask,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_mask_info as mask_info,
)

from arvision.build import build
from arvision.kernels import attention as kernels
from arvision.kernels import traced
from arvision.kernels.attention import AttentionMask, attention, fused, splash
from arvision.kernels.cpu import attention as dense_attention
from arvision.kernels.cpu.attention import dense
from arvision.layouts import grid, masks, scales, sequence
from tests.configs import GENERATORS
from tests.multidevice import processes

# None of them has a multiple of 128 rows.
LAYOUTS = {
  'VAR': scales.scales((1, 2, 3, 4, 5, 6, 8)),
  'LlamaGen behind a caption': grid.raster(11, 13, prefix=5),
  'xAR beside its clean past': sequence.two_stream(grid.cells(9, 9, (3, 3))),
  'NAR': grid.diagonals(12, 12),
}


def of(layout, valid=None):
  return AttentionMask(masks.pattern(layout, layout.index), valid)


def rows(count, heads=2, size=16, dtype=jnp.float32):
  """q, k, v and the weights of a loss, (2, h, n, k) each."""
  shape = (4, 2, heads, count, size)
  return jax.random.normal(jax.random.key(0), shape, dtype)


def with_gradients(function, counted, weights):
  """Output and gradients of Σ weights x output, over rows that count."""

  def loss(*qkv):
    y = function(*qkv) * counted
    return jnp.sum(y * weights), y

  return jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))


@pytest.mark.parametrize(
  ('name', 'padded'), list(zip(LAYOUTS, (False, True, False, True)))
)
def test_splash_equals_dense(name, padded):
  layout = LAYOUTS[name]
  count = layout.slots
  assert count % 128 and count > 128
  *qkv, weights = rows(count)
  valid, counted = None, 1.0
  if padded:
    valid = np.ones((2, count), bool)
    valid[0, :3] = valid[1, [1, count // 2]] = False
    counted = valid[:, None, :, None]
  mask = of(layout, valid)
  wanted = with_gradients(
    lambda q, k, v: dense(q, k, v, mask.dense()), counted, weights
  )(*qkv)
  got = with_gradients(
    lambda q, k, v: splash(q, k, v, mask, interpret=True, block=128),
    counted,
    weights,
  )(*qkv)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), got, wanted
  )


@pytest.mark.parametrize('name', LAYOUTS)
def test_bands_hold_every_key_that_their_rows_see(name):
  pattern = of(LAYOUTS[name]).pattern
  bands = pattern.bands(16)
  everyone = np.arange(pattern.slots)
  np.testing.assert_array_equal(
    np.concatenate([everyone[some] for some, _ in bands]), everyone
  )
  inside = np.zeros((pattern.slots, pattern.slots), bool)
  for some, keys in bands:
    assert some.stop - some.start >= 16
    inside[some, keys] = True
    edges = pattern.dense()[some, keys][:, [0, -1]]
    assert edges.any(0).all()  # and none at an end that nobody sees
  assert not (pattern.dense() & ~inside).any()
  assert inside.mean() < 0.75
  assert len(masks.same(np.zeros(40)).bands(16)) == 1


@pytest.mark.parametrize(
  ('name', 'padded'), list(zip(LAYOUTS, (True, False, True, False)))
)
def test_a_cpu_attends_by_bands_as_to_all(name, padded):
  layout = LAYOUTS[name]
  *qkv, weights = rows(layout.slots)
  valid, counted = None, 1.0
  if padded:
    valid = np.ones((2, layout.slots), bool)
    valid[0, :3] = valid[1, [1, layout.slots // 2]] = False
    counted = valid[:, None, :, None]
  mask = of(layout, valid)
  mesh = jax.make_mesh((1,), ('data',), devices=jax.devices('cpu')[:1])
  with jax.set_mesh(mesh):
    wanted = with_gradients(
      lambda q, k, v: dense(q, k, v, mask.dense()), counted, weights
    )(*qkv)
    run = with_gradients(lambda *x: attention(*x, mask), counted, weights)
    got = run(*qkv)
    program = run.lower(*qkv).as_text()
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, wanted
  )
  assert f'x{layout.slots}x{layout.slots}xf32' not in program


@pytest.mark.parametrize('padded', [False, True])
def test_heads_in_groups_attend_as_all_at_once(padded, monkeypatch):
  *qkv, weights = rows(40, heads=6)
  valid = np.ones((2, 40), bool)
  valid[0, :3] = valid[1, [1, 20]] = False
  mask = of(grid.raster(5, 8), valid if padded else None)
  counted = valid[:, None, :, None]
  run = with_gradients(lambda *x: attention(*x, mask), counted, weights)
  wanted = run(*qkv)
  monkeypatch.setattr(dense_attention, '_MANY', 0)
  monkeypatch.setattr(dense_attention, '_CACHED', 3 * 4 * 40**2)
  bands = dense_attention._bands(*qkv[:2], mask.pattern)
  assert dense_attention._group(qkv[0], mask.dense(), bands) == 3
  run = with_gradients(lambda *x: attention(*x, mask), counted, weights)
  got = run(*qkv)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, wanted
  )
  # No logits or weights of all groups are kept for the backward pass.
  _, backward = jax.vjp(lambda *x: attention(*x, mask), *qkv)
  kept = [leaf.shape for leaf in jax.tree.leaves(backward)]
  assert not any(shape[-2:] == (40, 40) and len(shape) > 4 for shape in kept)


def whole(blocks):
  """The mask that the kernel is told of, put together from its blocks."""
  side, length = 128, blocks.length
  out = np.zeros((length, length), bool)
  for i in range(0, length, side):
    for j in range(0, length, side):
      here = slice(i, i + side), slice(j, j + side)
      out[here] = blocks[here]
  return out


def some_layouts():
  """Every layout of the configs once."""
  found = {}
  for name, make in GENERATORS.items():
    found.setdefault(build(make().layout, 'layout'), name)
  return {name: layout for layout, name in found.items()}


def test_the_mask_of_the_kernel_is_that_of_every_layout():
  layouts = {**some_layouts(), **LAYOUTS}
  assert len(layouts) > 20
  for name, layout in layouts.items():
    count = layout.slots
    length = kernels.block_size(count)[1]
    pattern = masks.pattern(layout, layout.index)
    blocks = kernels.block_mask(pattern, length)
    got, every = whole(blocks), masks.dense(layout)
    np.testing.assert_array_equal(got[:count, :count], every, err_msg=name)
    assert not got[:count, count:].any() and got.any(1).all(), name
    if pattern.ends is not None:  # what the kernel computes by itself
      computed = blocks.mask_function(
        jnp.asarray(blocks.q_sequence)[:, None], jnp.arange(length)
      )
      np.testing.assert_array_equal(computed, got, err_msg=name)


@pytest.mark.parametrize(
  'layout',
  [
    scales.scales(tuple(range(1, 31))),
    sequence.two_stream(grid.cells(64, 75, (8, 15))),
  ],
  ids=['staircase', 'two streams'],
)
def test_a_mask_of_10_000_rows_is_never_made_whole(layout, monkeypatch):
  assert layout.slots > 9_000
  monkeypatch.delattr(masks.Pattern, '_dense')
  side, length = kernels.block_size(layout.slots)
  blocks = kernels.block_mask(masks.pattern(layout, layout.index), length)
  mask = MultiHeadMask([blocks])
  info, _ = mask_info.process_mask(mask, (side, side))
  held = info.partial_mask_blocks
  assert held is None or held.nbytes < length**2 / 4
  # Equal patterns share what was worked out.
  again = kernels.block_mask(masks.pattern(layout, layout.index + 0), length)
  assert mask_info.process_mask(MultiHeadMask([again]), (side, side))[0] is info


@pytest.mark.parametrize('name', LAYOUTS)
def test_blocks_divide_the_length(name):
  for count in (1, 128, 129, 680, 2240, LAYOUTS[name].slots):
    side, length = kernels.block_size(count)
    assert side % 128 == length % side == 0 <= length - count < side


def test_patterns_of_equal_rows_are_equal():
  layout, other = LAYOUTS['VAR'], LAYOUTS['NAR']
  first = masks.pattern(layout, layout.index)
  again = masks.pattern(layout, np.arange(layout.slots))
  assert first == again and hash(first) == hash(again) and first is not again
  assert first != masks.pattern(other, other.index)
  assert masks.pattern(layout, layout.index) is first


def test_patterns_know_their_form():
  raster, one = grid.raster(3, 3), grid.whole(3, 3)
  two = LAYOUTS['xAR beside its clean past']
  get = lambda layout: masks.pattern(layout, layout.index)
  assert get(raster).causal and not get(raster).full
  assert get(one).full and not get(one).causal
  assert get(two).ends is None
  entity = np.array([0, 0, 1, 1, 1, 0])
  np.testing.assert_array_equal(
    masks.same(entity).dense(), entity[:, None] == entity
  )
  assert masks.same(np.full(4, 3)).full


@pytest.mark.parametrize('padded', [False, True])
@pytest.mark.parametrize(
  'layout',
  [grid.raster(3, 4), grid.whole(3, 4), scales.scales((1, 2, 3))],
  ids=['causal', 'all', 'scales'],
)
def test_the_fused_kernel_is_told_the_same_mask(layout, padded):
  q, k, v, _ = rows(layout.slots)
  valid = np.ones((2, layout.slots), bool)
  valid[1, 2] = False
  mask = of(layout, valid if padded else None)
  got = fused(q, k, v, mask, implementation='xla')
  np.testing.assert_allclose(got, dense(q, k, v, mask.dense()), atol=1e-5)


TPU = 'tpu', 'TPU v5'
GPU = 'gpu', 'NVIDIA H100 80GB HBM3'
WIDE = scales.scales((1, 4, 16))
ODD = scales.scales((1, 2, 16))


def chosen(layout=WIDE, kernel='auto', size=64, dtype='bfloat16', **given):
  q = jax.ShapeDtypeStruct((1, 2, layout.slots, size), dtype)
  mask = given.pop('mask', of(layout))
  return kernels.choose(q, mask, given.get('drop'), kernel)


@pytest.mark.parametrize(
  ('device', 'given', 'wanted'),
  [
    (TPU, {}, 'splash'),
    (TPU, {'dtype': 'float32', 'size': 80}, 'splash'),
    (TPU, {'layout': grid.raster(4, 4)}, 'dense'),
    (TPU, {'layout': grid.raster(4, 4), 'kernel': 'splash'}, 'splash'),
    (TPU, {'kernel': 'dense'}, 'dense'),
    (TPU, {'mask': np.ones((1, 1, 1, 1), bool)}, 'dense'),
    (TPU, {'drop': lambda x: x, 'kernel': 'splash'}, 'dense'),
    (GPU, {}, 'dense'),
    (GPU, {'layout': grid.raster(16, 16)}, 'cudnn'),
    (GPU, {'layout': scales.scales((2, 16))}, 'cudnn'),
    (GPU, {'layout': ODD}, 'dense'),
    (GPU, {'layout': grid.raster(17, 17), 'size': 72}, 'cudnn'),
    (GPU, {'layout': grid.raster(16, 16), 'dtype': 'float32'}, 'dense'),
    (GPU, {'layout': grid.raster(16, 16), 'size': 160}, 'dense'),
    (('gpu', 'AMD MI300'), {'layout': grid.raster(16, 16)}, 'dense'),
    (('cpu', 'cpu'), {}, 'dense'),
    (('cpu', 'cpu'), {'kernel': 'splash'}, 'splash'),
  ],
)
def test_platform_and_shapes_choose(monkeypatch, device, given, wanted):
  monkeypatch.setattr(traced, 'devices', lambda: device)
  assert chosen(**given) == wanted


@pytest.mark.parametrize(
  ('device', 'given', 'said'),
  [
    (GPU, {'kernel': 'splash'}, 'wants a TPU'),
    (TPU, {'kernel': 'cudnn'}, 'wants an NVIDIA GPU, got TPU v5'),
    (GPU, {'kernel': 'cudnn', 'dtype': 'float32'}, 'config.backbone.dtype='),
    (
      GPU,
      {'kernel': 'cudnn', 'layout': ODD},
      'even number of slots .* got 261',
    ),
    (TPU, {'kernel': 'flash'}, 'wanted one of auto, dense, splash, cudnn'),
  ],
)
def test_a_forced_kernel_that_cannot_run_is_refused(
  monkeypatch, device, given, said
):
  monkeypatch.setattr(traced, 'devices', lambda: device)
  with pytest.raises(ValueError, match=f'attention.kernel=.*{said}'):
    chosen(**given)


def test_without_a_mesh_nothing_is_taken_for_granted(monkeypatch):
  monkeypatch.setattr(traced, 'devices', lambda: TPU)
  monkeypatch.setattr(jax, 'device_count', lambda: 4)
  assert chosen() == 'dense'


def test_the_choice_is_said_once(monkeypatch):
  said = []
  monkeypatch.setattr(kernels.logging, 'info', said.append)
  kernels._log_once.cache_clear()
  for _ in range(3):
    chosen(kernel='dense')
  assert said == ['attention of 273 queries, heads of 64: dense']


@pytest.mark.parametrize('name', ['VAR', 'xAR beside its clean past'])
def test_lowers_for_a_tpu(name, monkeypatch):
  monkeypatch.setattr(traced, 'devices', lambda: TPU)
  *qkv, weights = rows(LAYOUTS[name].slots, size=64, dtype=jnp.bfloat16)
  mask = of(LAYOUTS[name])
  run = with_gradients(
    lambda q, k, v: attention(q, k, v, mask, kernel='splash'), 1, weights
  )
  lowered = run.trace(*qkv).lower(lowering_platforms=('tpu',))
  text = lowered.as_text()
  # Forward, and the gradients of q and of k and v.
  assert text.count('stablehlo.custom_call @tpu_custom_call') == 3


_SPREAD = """
import jax, numpy as np
from arvision.kernels.cpu.attention import dense
from arvision.kernels.attention import AttentionMask, attention
from arvision.layouts import grid, masks
from arvision.parallel.host import Placement
from arvision.parallel.mesh import make_mesh
layout = grid.cells(6, 6, (3, 3))
valid = np.ones((2, 36), bool)
valid[1, 5] = False
mask = AttentionMask(masks.pattern(layout, layout.index), valid)
qkv = jax.random.normal(jax.random.key(0), (3, 2, 4, 36, 8))
wanted = dense(*qkv, mask.dense())
place = Placement(make_mesh({'data': 2, 'tensor': 2, 'sequence': 2}))
run = place.jit(lambda q, k, v: attention(q, k, v, mask, kernel='splash'))
got = run(*qkv)
assert got.sharding.shard_shape(got.shape) == (1, 1, 36, 8), got.sharding
there = valid[:, None, :, None]
np.testing.assert_allclose(got * there, wanted * there, atol=1e-5)
print('spread')
"""


def test_every_device_has_its_examples_and_heads():
  (text,) = processes.run([sys.executable, '-c', _SPREAD], 1, devices=8)
  assert 'spread' in text
