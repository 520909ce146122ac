"""Losses in the features of frozen networks, against networks of torch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.errors import ConfigError, DataError
from arvision.importers import files
from arvision.tasks import perception
from arvision.tokenizers import perceptual
from tests.parts.evals_toys import define_operators

torch = pytest.importorskip('torch')
SIDE = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope='module')
def models():
  _kept = define_operators()
  return pytest.importorskip('torchvision').models


def randomized(net, seed=0):
  """The network in inference, with all numbers drawn at random."""
  random = np.random.default_rng(seed)
  state = {}
  for key, value in net.state_dict().items():
    if key.endswith('num_batches_tracked'):
      state[key] = value
      continue
    new = random.normal(size=value.shape)
    if key.endswith('running_var'):
      new = 0.5 + new**2
    elif value.ndim > 1 and 'scale' not in key:
      new *= np.prod(value.shape[1:]) ** -0.5
    else:
      new = 0.5 + 0.1 * new
    state[key] = torch.tensor(new, dtype=torch.float32)
  net.load_state_dict(state)
  return net.eval()


def written(net, path):
  """The path of a file with the weights of a network."""
  state = {k: v.numpy() for k, v in net.state_dict().items()}
  files.write(path, state)
  return str(path)


def pair(side=24):
  shape = (2, 2, side, side + 4, 3)
  return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


def nchw(x):
  return torch.tensor(np.moveaxis(x, -1, 1))


def resized(image, mode, antialias=True):
  image = torch.nn.functional.interpolate(
    image, size=(SIDE, SIDE), mode=mode, antialias=antialias
  )
  return normalised(image)


def normalised(image):
  mean, std = (torch.tensor(x).reshape(1, 3, 1, 1) for x in (MEAN, STD))
  return ((image + 1) / 2 - mean) / std


def resnet(models):
  net = models.ResNet(models.resnet.Bottleneck, [1, 2, 1, 1])
  # Two of the four stages have all that the others have.
  net.layer3 = net.layer4 = torch.nn.Identity()
  net.fc = torch.nn.Linear(512, 5)
  return net, perception.ResNetLogits(
    stages=(1, 2), classes=5, side=SIDE, resize='bilinear-antialias'
  )


def convnext(models):
  config = models.convnext.CNBlockConfig
  widths, depths = (8, 16, 24), (1, 2, 1)
  following = (*widths[1:], None)
  setting = [config(*x) for x in zip(widths, following, depths)]
  net = models.ConvNeXt(setting, num_classes=5)
  return net, perception.ConvNeXtLogits(
    depths=depths,
    widths=widths,
    classes=5,
    side=SIDE,
    resize='bicubic-antialias',
  )


@pytest.mark.parametrize(
  ('make', 'mode'), [(resnet, 'bilinear'), (convnext, 'bicubic')]
)
def test_distances_of_logits_are_those_of_torchvision(
  models, make, mode, tmp_path
):
  net, distance = make(models)
  path = written(randomized(net), tmp_path / 'net.pth')
  distance = dataclasses.replace(distance, path=path)
  params = distance.read('config.task.distances.logits')
  a, b = pair()

  @jax.jit
  def ours(params, b):
    each = lambda b: distance(params, a, b)
    value, back = jax.vjp(each, b)
    return value, back(jnp.ones(2))[0]

  found, gradient = ours(params, b)
  x, y = nchw(a), nchw(b).requires_grad_()
  theirs = (net(resized(x, mode)) - net(resized(y, mode))) ** 2
  theirs.mean(1).sum().backward()
  wanted = theirs.mean(1).detach().numpy()
  np.testing.assert_allclose(found, wanted, rtol=2e-4)
  back = np.moveaxis(y.grad.numpy(), 1, -1)
  np.testing.assert_allclose(gradient, back, atol=1e-3 * np.abs(back).max())
  assert float(jnp.max(jnp.abs(distance(params, a, a)))) == 0


def test_files_of_other_networks_are_refused(models, tmp_path):
  net, distance = convnext(models)
  state = {k: v.numpy() for k, v in net.state_dict().items()}
  del state['features.0.1.bias']
  files.write(tmp_path / 'a.pth', state)
  with pytest.raises(DataError, match=r'missing: features\.0\.1\.bias'):
    dataclasses.replace(distance, path=f'{tmp_path}/a.pth').params()
  with pytest.raises(DataError, match=r'config\.task\.x\.path: no file'):
    dataclasses.replace(distance, path=f'{tmp_path}/b.pth').read(
      'config.task.x'
    )
  other = perception.ResNetLogits(path=f'{tmp_path}/a.pth')
  with pytest.raises(DataError, match='not a file of this ResNet'):
    other.params()


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
