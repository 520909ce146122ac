"""Frozen networks and discriminators of tokenizers, against torch and torchvision."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.errors import DataError
from arvision.importers import files
from arvision.tasks import perception
from arvision.tokenizers.adversarial import BlurDiscriminator
from arvision.tokenizers.dino import Heads
from tests.parts.evals_toys import define_operators
from tests.parts.test_discriminators import DINO, dino_weights

try:
  import torch
  from torch.nn import Module
except ImportError:
  Module = object

pytestmark = pytest.mark.slow
SIDE = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(autouse=True)
def _needs_torch():
  pytest.importorskip('torch')


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


@pytest.mark.parametrize('side', [3, 4])
def test_the_discriminator_with_a_blur_is_that_of_torch(side):
  net = BlurDiscriminator(features=4, stages=2, side=side, groups=2)
  image = pair(18)[0][:, :, :18]
  shapes = jax.eval_shape(net.init, jax.random.key(0), image)['params']
  random = np.random.default_rng(3)
  params = jax.tree.map(
    lambda s: random.normal(size=s.shape).astype(np.float32), nn.unbox(shapes)
  )
  found = jax.jit(net.apply)({'params': params}, image)
  f = torch.nn.functional

  def conv(x, name):
    w = torch.tensor(params[name]['kernel']).permute(3, 2, 0, 1)
    b = torch.tensor(params[name]['bias'])
    return f.conv2d(x, w, b, padding=w.shape[-1] // 2)

  act = lambda x: f.leaky_relu(x, 0.1)
  x = act(conv(nchw(image), 'conv_in'))
  line = torch.tensor([1.0, 3, 3, 1]) / 8
  for i in range(2):
    x = conv(x, f'conv_{i}')
    more = x.shape[-1] % 2
    x = f.pad(x, (1, 1 + more, 1, 1 + more))
    kernel = torch.outer(line, line).expand(x.shape[1], 1, 4, 4)
    x = f.conv2d(x, kernel, stride=2, groups=x.shape[1])
    norm = (torch.tensor(params[f'norm_{i}'][k]) for k in ('scale', 'bias'))
    x = act(f.group_norm(x, 2, *norm, eps=1e-5))
  x = f.adaptive_max_pool2d(x, (side, side))
  wanted = conv(act(conv(x, 'conv_mid')), 'conv_out')
  limit = 1e-5 * float(wanted.abs().max())
  np.testing.assert_allclose(found[..., 0], wanted[:, 0], atol=limit)


def dino_of_torch(dino, state, image):
  """Features of a normalised image, written with torch's functions."""
  f = torch.nn.functional
  w = {k: torch.tensor(v) for k, v in state.items()}
  d = dino.width
  both = lambda key: (w[f'{key}.weight'], w[f'{key}.bias'])
  norm = lambda x, key: f.layer_norm(x, (d,), *both(key), eps=1e-6)
  x = f.conv2d(image, *both('patch_embed.proj'), stride=dino.patch)
  x = x.flatten(2).transpose(1, 2)
  x = torch.cat([w['cls_token'].expand(len(x), -1, -1), x], 1) + w['pos_embed']
  found = [x]
  for i in range(dino.depth):
    key = f'blocks.{i}'
    y = f.linear(norm(x, f'{key}.norm1'), *both(f'{key}.attn.qkv'))
    y = y.unflatten(2, (3, dino.heads, -1)).permute(2, 0, 3, 1, 4)
    y = f.scaled_dot_product_attention(*y).transpose(1, 2).flatten(2)
    x = x + f.linear(y, *both(f'{key}.attn.proj'))
    y = f.linear(norm(x, f'{key}.norm2'), *both(f'{key}.mlp.fc1'))
    y = f.linear(f.gelu(y, approximate='tanh'), *both(f'{key}.mlp.fc2'))
    x = x + y
    if i in dino.taps:
      found.append(x)
  return [y[:, 1:] + y[:, :1] for y in found]


@pytest.mark.parametrize(('side', 'mode'), [(20, 'area'), (12, 'bicubic')])
def test_features_of_dino_are_those_of_torch(side, mode, tmp_path):
  state = dino_weights(DINO)
  files.write(tmp_path / 'dino.pth', state)
  dino = dataclasses.replace(DINO, path=f'{tmp_path}/dino.pth')
  image = pair(side)[0]
  found = jax.jit(lambda params, x: dino(params, x))(dino.params(), image)
  image = torch.nn.functional.interpolate(
    nchw(image), size=(dino.side,) * 2, mode=mode
  )
  wanted = dino_of_torch(dino, state, normalised(image))
  assert len(found) == len(wanted) == 3
  for ours, theirs in zip(found, wanted):
    limit = 5e-6 * float(theirs.abs().max())
    np.testing.assert_allclose(ours, theirs.numpy(), atol=limit)


class HeadOfTorch(Module):
  """A head of the discriminator, in training."""

  def __init__(self, width, kernel, examples):
    super().__init__()
    self.examples = examples
    conv = lambda out, k: torch.nn.utils.spectral_norm(
      torch.nn.Conv1d(
        width,
        out,
        k,
        padding=k // 2,
        padding_mode='circular' if k > 1 else 'zeros',
      )
    )
    self.first, self.second = conv(width, 1), conv(width, kernel)
    self.logits = conv(1, 1)
    ones = lambda: torch.nn.Parameter(torch.ones(width))
    self.scale = torch.nn.ParameterList([ones(), ones()])
    self.shift = torch.nn.ParameterList([ones(), ones()])

  def block(self, conv, i, x):
    y = conv(x)
    y = y.reshape(-1, self.examples, *y.shape[1:])
    mean = y.mean((1, 3), keepdim=True)
    variance = y.var((1, 3), keepdim=True, unbiased=False)
    y = ((y - mean) / torch.sqrt(variance + 1e-6)).reshape(x.shape)
    y = y * self.scale[i][None, :, None] + self.shift[i][None, :, None]
    return torch.nn.functional.leaky_relu(y, 0.2)

  def forward(self, x):
    x = self.block(self.first, 0, x)
    x = (self.block(self.second, 1, x) + x) * 2**-0.5
    return self.logits(x)[:, 0]


def into_torch(head, params, i):
  """Sets the parameters of a head."""
  for name in ('first', 'second', 'logits'):
    tail = '' if name == 'logits' else '_conv'
    own, conv = params[f'head_{i}_{name}{tail}'], getattr(head, name)
    put = lambda to, x: to.data.copy_(torch.tensor(np.array(x)))
    put(conv.weight_orig, np.transpose(own['kernel'], (2, 1, 0)))
    put(conv.bias, own['bias'])
    put(conv.weight_u, own['u_fixed'])
  for j, name in enumerate(('first', 'second')):
    norm = params[f'head_{i}_{name}_norm']
    put(head.scale[j], norm['scale'])
    put(head.shift[j], norm['bias'])


def test_heads_and_their_spectral_norms_are_those_of_torch():
  random = np.random.default_rng(0)
  features = random.normal(size=(2, 4, 6, 8)).astype(np.float32)
  net = Heads(kernel=5, examples=2)
  shapes = nn.unbox(jax.eval_shape(net.init, jax.random.key(0), [*features]))
  params = jax.tree.map(
    lambda s: random.normal(size=s.shape).astype(np.float32), shapes['params']
  )
  for name in params:
    if 'u_fixed' in params[name]:
      params[name]['u_fixed'] /= np.linalg.norm(params[name]['u_fixed'])

  def ours(params):
    logits, more = net.apply(
      {'params': params}, [*features], mutable=['spectral']
    )
    return jnp.sum(logits**2), (logits, more['spectral'])

  both = jax.jit(jax.value_and_grad(ours, has_aux=True))
  (_, (logits, vectors)), gradient = both(params)
  heads, theirs = [], []
  for i, x in enumerate(features):
    head = HeadOfTorch(8, 5, 2)
    into_torch(head, params, i)
    theirs.append(head(torch.tensor(x).transpose(1, 2)))
    heads.append(head)
  theirs = torch.cat(theirs, 1)
  np.testing.assert_allclose(logits, theirs.detach().numpy(), atol=1e-5)
  (theirs**2).sum().backward()
  own = heads[1].second
  name = 'head_1_second_conv'
  np.testing.assert_allclose(
    vectors[name]['u_fixed'], own.weight_u.numpy(), atol=1e-6
  )
  back = own.weight_orig.grad.numpy().transpose(2, 1, 0)
  np.testing.assert_allclose(
    gradient[name]['kernel'], back, atol=1e-5 * np.abs(back).max()
  )
  assert not np.any(gradient[name]['u_fixed'])
