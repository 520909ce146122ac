"""Losses in the features of frozen networks."""

import jax
import numpy as np
import pytest

from arvision.errors import ConfigError, DataError
from arvision.importers import files
from arvision.tasks import perception
from arvision.tokenizers import perceptual


@pytest.mark.parametrize(
  ('network', 'count'),
  [
    # torchvision states 25,557,032 with two vectors for each of 26,560 channels
    # of batch normalizations; here there is one.
    (perception.ResNetLogits(), 25_557_032 - 26_560),
    (perception.ConvNeXtLogits(), 50_223_688),
    # Without the last norm.
    (perception.Dino(), 21_665_664 - 768),
    (perception.Dino(patch=8), 21_670_272 - 768),
  ],
)
def test_published_networks_have_the_published_sizes(network, count):
  leaves = jax.tree.leaves(network.shapes)
  assert sum(x.size for x in leaves) == count


def test_without_a_file_a_loss_is_off(caplog):
  assert perception.ConvNeXtLogits().read('config.task.distances.x') is None
  assert 'config.task.distances.x is OFF' in caplog.text


def test_the_gram_loss_reads_the_file_of_vgg(tmp_path):
  state = {}
  for conv in perceptual.NETWORKS['vgg'].convs:
    key = f'features.{conv.key}'
    shape = (conv.width, conv.inputs, 3, 3)
    state[f'{key}.weight'] = np.zeros(shape, np.float32)
    state[f'{key}.bias'] = np.ones(conv.width, np.float32)
  state['classifier.0.bias'] = np.zeros(3, np.float32)
  files.write(tmp_path / 'vgg16.pth', state)
  gram = perception.Gram(path=f'{tmp_path}/vgg16.pth')
  assert len(gram.params()) == 13
  del state['features.28.bias']
  files.write(tmp_path / 'vgg16.pth', state)
  with pytest.raises(ConfigError, match=r'features\.28 of VGG-16'):
    gram.params()


def drawn(shapes, seed=0):
  """Random numbers like the parameters of a network."""
  random = np.random.default_rng(seed)
  draw = lambda s: np.float32(random.normal(size=s.shape) / max(s.shape) ** 0.5)
  return jax.tree.map(draw, shapes)


@pytest.mark.parametrize(
  ('distance', 'wanted'),
  [
    (
      perception.ResNetLogits(stages=(1, 2), width=8, classes=5, side=32),
      [0.0756006539, 0.0309712773],
    ),
    (
      perception.ConvNeXtLogits(
        depths=(1, 2, 1), widths=(8, 16, 24), classes=5, side=32
      ),
      [0.000688181317, 0.00326044904],
    ),
  ],
)
def test_distances_are_those_recorded(distance, wanted):
  """When they were, `test_perception_torch.py` passed."""
  a, b = np.random.default_rng(1).uniform(-1, 1, (2, 2, 24, 28, 3))
  found = jax.jit(distance)(drawn(distance.shapes), a, b)
  np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_files_of_other_networks_are_refused(tmp_path):
  path = f'{tmp_path}/a.pth'
  files.write(path, {'features.0.1.weight': np.zeros(3, np.float32)})
  for network, said in (
    (perception.ConvNeXtLogits(path=path), 'missing: '),
    (perception.ResNetLogits(path=path), 'not a file of this ResNet'),
    (perception.Dino(path=path), 'missing: |none of the keys'),
    (perception.Dino(path=f'{tmp_path}/b.pth'), r'config\.task\.x\.path: no'),
  ):
    with pytest.raises(DataError, match=said):
      network.read('config.task.x')
