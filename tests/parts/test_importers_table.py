"""Tables: official keys in and out, and all differences told at once."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import traverse_util

from arvision.build import build
from arvision.errors import DataError
from arvision.importers import llamagen, mvar, table, var
from arvision.layers.position import rotations
from arvision.layouts import masks, scales
from arvision.runs.released import table_of
from arvision.tasks import assemble
from tests.configs import ALL, module


def drawn(shapes, seed=0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: rng.standard_normal(x.shape, np.float32), shapes
  )


RELEASED = [
  name
  for name, make in ALL.items()
  if module(name).startswith('tiny') and 'release' in make()
]


@pytest.mark.parametrize('name', RELEASED)
def test_out_and_in_again(name):
  config = ALL[name]()
  form = table_of(config)
  shapes = assemble.trained_shapes(config)
  params = drawn(shapes)
  grids = assemble.make_tokenizer(config).spec.grids
  weights = table.to_weights(form, params, grids)
  kinds = np.float32, np.int32, np.int64
  assert all(w.dtype in kinds for w in weights.values())
  back = table.to_params(form, weights, shapes)
  jax.tree.map(np.testing.assert_array_equal, with_ties(form, params), back)


def with_ties(form, params):
  """The parameters as a file has them: of those that share a tensor, the last."""
  ours = traverse_util.flatten_dict(params, sep='/')
  rows = form.rows({path: x.shape for path, x in ours.items()})
  tensor = lambda row: dataclasses.replace(row, path='')
  last = {tensor(row): row.path for row in rows}
  tied = {row.path: last[tensor(row)] for row in rows}
  found = {path: ours[tied.get(path, path)] for path in ours}
  return traverse_util.unflatten_dict(found, sep='/')


@pytest.mark.parametrize(
  ('phis', 'own', 'key'),
  [
    (1, False, 'quantize.quant_resi.qresi.bias'),
    (4, False, 'quantize.quant_resi.qresi_ls.0.bias'),
    (4, True, 'quantize.quant_resi.0.bias'),
  ],
)
def test_keys_of_phi_tell_how_it_is_shared(phis, own, key):
  ours = {f'phi_{i}/bias': (8,) for i in range(phis)}
  ours |= {f'phi_{i}/kernel': (3, 3, 8, 8) for i in range(phis)}
  rows = var.Tokenizer(own_phi=own).rows({**ours, 'quant/codebook': (9, 8)})
  assert key in [row.key for row in rows]


def test_levels_of_a_decoder_are_counted_without_the_encoder():
  ours = {f'{path}/conv1/bias': (8,) for path in _BLOCKS}
  rows = llamagen.Tokenizer().rows({**ours, 'quant/codebook': (9, 8)})
  assert [row.key for row in rows][1:] == [
    'encoder.conv_blocks.2.res.0.conv1.bias',
    'decoder.conv_blocks.0.res.0.conv1.bias',
  ]


# Of an encoder with three levels and a decoder with two.
_BLOCKS = ('enc/down_2_block_0', 'dec/up_1_block_0')


def test_the_mask_that_is_exported_is_that_of_the_layout():
  layout = scales.scales((1, 2, 3), window=0)
  weights = {'blocks.0.attn.q_bias': np.zeros(4, np.float32)}
  found = mvar.Transformer().buffers(weights, layout.grids)
  hidden = found['attn_bias_for_masking'][0, 0]
  np.testing.assert_array_equal(hidden == 0, masks.dense(layout))
  assert found['blocks.0.attn.patch_nums'].tolist() == [1, 4, 9]


@pytest.mark.parametrize('name', ['var/tiny:d16', 'var/tiny_tokenizer'])
def test_all_differences_are_told_at_once(name):
  config = ALL[name]()
  form = table_of(config)
  shapes = assemble.trained_shapes(config)
  grids = assemble.make_tokenizer(config).spec.grids
  weights = table.to_weights(form, drawn(shapes), grids)
  first, second, third, *_ = (k for k in weights if not form.derived(k))
  del weights[first]
  weights['surplus.3.key'] = np.zeros(3)
  weights[second] = weights[second][None]
  weights[third] = weights[third].astype(np.float16)  # no difference
  with pytest.raises(DataError) as error:
    table.to_params(form, weights, shapes)
  lines = str(error.value).splitlines()
  assert lines[1] == f'  missing: {first}'
  assert lines[2] == '  left over: surplus.3.key'
  assert lines[3].startswith(f'  of another shape: {second} (1, ')
  assert not any(third in line for line in lines)


def var_weights(**changes):
  config = ALL['var/tiny:d16']()
  with config.unlocked():
    config.backbone.update(changes)
  shapes = assemble.trained_shapes(config)
  grids = assemble.make_tokenizer(config).spec.grids
  form = table_of(config)
  return form, shapes, table.to_weights(form, drawn(shapes), grids)


def test_another_depth_is_explained():
  form, shapes, _ = var_weights(depth=2)
  deeper = var_weights(depth=5)[2]
  with pytest.raises(DataError, match=r'left over: blocks\.\{2\.\.4\}\.attn'):
    table.to_params(form, deeper, shapes)
  with pytest.raises(DataError, match=r'look at config\.backbone\.depth'):
    table.to_params(form, deeper, shapes)


def test_numbers_that_are_not_finite():
  form, shapes, weights = var_weights()
  weights['head.bias'][3] = np.nan
  with pytest.raises(DataError, match='not finite: head/linear/bias'):
    table.to_params(form, weights, shapes)


def test_the_buffers_are_those_of_the_official_file():
  _, _, weights = var_weights()
  level = weights['lvl_1L'][0]
  assert level.tolist() == np.repeat(range(4), [1, 4, 9, 16]).tolist()
  mask = weights['attn_bias_for_masking'][0, 0]
  assert mask.dtype == np.float32
  np.testing.assert_array_equal(mask == 0, level[:, None] >= level)
  assert not weights['blocks.1.attn.zero_k_bias'].any()


def test_cells_and_rotations_of_xar_are_those_of_the_official_file():
  config = ALL['xar/digits:cell']()
  shapes = assemble.trained_shapes(config)
  form = table_of(config)
  weights = table.to_weights(form, drawn(shapes), ((4, 4),))
  layout = build(config.layout, 'layout')
  np.testing.assert_array_equal(weights['mask'][0, 0] == 0, masks.dense(layout))
  head = config.backbone.width // config.backbone.heads
  cos, sin = rotations(layout.coords, head, 10000.0).repeat(2, -1)
  rope = 'decoder_blocks.1.attn.rope'
  np.testing.assert_allclose(weights[f'{rope}.freqs_cos'], cos, atol=1e-6)
  np.testing.assert_allclose(weights[f'{rope}.freqs_sin'], sin, atol=1e-6)
  assert weights[f'{rope}.freqs'].shape == (head // 4,)


def test_imaginary_parts_are_not_dropped():
  row = table.Row('a', 'a')
  form = type(
    'Form', (), {'name': 'x', 'hints': (), 'rows': lambda s, o: [row]}
  )
  shapes = {'a': jax.ShapeDtypeStruct((2,), np.float32)}
  with pytest.raises(DataError, match='of complex numbers: a'):
    table.to_params(form(), {'a': np.ones(2, np.complex64)}, shapes)
