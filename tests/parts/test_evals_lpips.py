"""LPIPS with the user's files, against the package lpips."""

import jax
import numpy as np
import pytest

from arvision.errors import ConfigError, DataError
from arvision.evals.lpips import Lpips
from arvision.importers import files
from arvision.tokenizers import perceptual
from tests.parts.evals_toys import define_operators


def state_of(network, seed=0):
  """Random weights in torch's layout: torchvision's, and the linear layers."""
  form, random = perceptual.NETWORKS[network], np.random.default_rng(seed)
  normal = lambda *shape: random.standard_normal(shape).astype(np.float32)
  backbone, linear = {}, {}
  for c in form.convs:
    kernel = normal(c.width, c.inputs, c.kernel, c.kernel)
    scale = np.sqrt(2 / (c.inputs * c.kernel**2))
    backbone[f'features.{c.key}.weight'] = kernel * np.float32(scale)
    backbone[f'features.{c.key}.bias'] = normal(c.width) / 10
  for i, width in enumerate(form.widths):
    linear[f'lin{i}.model.1.weight'] = np.abs(normal(1, width, 1, 1))
  return backbone, linear


def part(folder, network):
  backbone, linear = state_of(network)
  # torchvision's file has a classifier too.
  backbone['classifier.1.weight'] = np.zeros((2, 2), np.float32)
  paths = [str(folder / name) for name in ('backbone.pth', 'linear.pth')]
  for path, state in zip(paths, (backbone, linear)):
    files.write(path, state)
  return Lpips(*paths, network)


def pair(shape, seed=1):
  return np.random.default_rng(seed).uniform(-1, 1, (2, *shape)).astype('f4')


def test_files_are_read_and_distances_are_plausible(tmp_path):
  lpips = part(tmp_path, 'alex')
  a, b = pair((2, 36, 40, 3))
  found = lpips(a, b)
  assert found.shape == (2,) and np.all(found > 0)
  assert np.all(lpips(a, a) < 1e-12)
  near = lpips(a, np.clip(a + 0.05 * b, -1, 1))
  assert np.all(near < found)
  grey = a[..., :1]
  np.testing.assert_allclose(
    lpips(grey, b[..., :1]),
    lpips(np.repeat(grey, 3, 3), np.repeat(b[..., :1], 3, 3)),
    rtol=1e-5,
  )
  assert lpips.name == 'lpips-alex' and len(lpips.weights) == 64


@pytest.mark.parametrize('network', ['alex', 'vgg', 'squeeze'])
def test_smallest_images_are_the_smallest(network):
  form = perceptual.NETWORKS[network]
  weights = {
    f'conv_{c.key}': {
      'kernel': jax.ShapeDtypeStruct(
        (c.kernel, c.kernel, c.inputs, c.width), 'float32'
      ),
      'bias': jax.ShapeDtypeStruct((c.width,), 'float32'),
    }
    for c in form.convs
  }

  def sides(side):
    image = jax.ShapeDtypeStruct((1, side, side, 3), 'float32')
    found = jax.eval_shape(
      lambda w, x: perceptual.features(w, x, network), weights, image
    )
    return [x.shape[1] for x in found]

  assert min(sides(form.smallest)) == 1
  assert min(sides(form.smallest - 1)) == 0


def test_images_that_are_too_small_are_refused():
  lpips = Lpips('a.pth', 'b.pth')
  with pytest.raises(ConfigError, match="network='alex' takes .* 31 px"):
    lpips.check((28, 28, 1), 'config.evals.reconstruction.lpips')
  with pytest.raises(ConfigError, match='grey and RGB'):
    lpips.check((64, 64, 4), 'config.evals.reconstruction.lpips')
  lpips.check((31, 40, 3), '')


def test_files_that_are_not_lpips_are_refused(tmp_path):
  lpips = part(tmp_path, 'alex')
  a = pair((1, 36, 36, 3))
  with pytest.raises(DataError, match='No such file'):
    assert Lpips(str(tmp_path / 'none.pth'), lpips.linear).weights
  with pytest.raises(ConfigError, match='features.0 of VGG-16'):
    Lpips(lpips.backbone, lpips.linear, 'vgg')(*a)
  with pytest.raises(ConfigError, match='lin0 of LPIPS has nothing'):
    Lpips(lpips.backbone, lpips.backbone)(*a)


@pytest.mark.slow
@pytest.mark.parametrize('side', [64, 75])
@pytest.mark.parametrize('network', ['alex', 'vgg', 'squeeze'])
def test_distances_equal_the_package_lpips(network, side, tmp_path):
  torch = pytest.importorskip('torch')
  define_operators()
  package = pytest.importorskip('lpips')
  ours = part(tmp_path, network)
  backbone, linear = state_of(network)
  theirs = package.LPIPS(
    net=network, pretrained=False, pnet_rand=True, verbose=False
  )
  own = {}
  for key in theirs.state_dict():
    if key.startswith('net.slice'):
      own[key] = backbone['features.' + key.split('.', 2)[2]]
    elif key.startswith('lin') and not key.startswith('lins'):
      own[key] = linear[key]
    elif key.startswith('lins.'):
      i, rest = key.removeprefix('lins.').split('.', 1)
      own[key] = linear[f'lin{i}.{rest}']
  own = {k: torch.tensor(v) for k, v in own.items()}
  missing, unexpected = theirs.load_state_dict(own, strict=False)
  assert not unexpected
  assert {k.split('.')[0] for k in missing} <= {'scaling_layer'}
  a, b = pair((2, side, side + 6, 3))
  give = lambda x: torch.tensor(x.transpose(0, 3, 1, 2))
  with torch.no_grad():
    wanted = theirs(give(a), give(b)).numpy().ravel()
  np.testing.assert_allclose(ours(a, b), wanted, rtol=1e-4)
