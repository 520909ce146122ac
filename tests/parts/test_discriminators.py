"""Discriminators with a blur and on DINO, against torch; all losses together."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from arvision.build import build
from arvision.configs.bar import tokenizer as bar
from arvision.configs.maskbit import tokenizer as maskbit
from arvision.configs.titok import tokenizer as titok
from arvision.errors import ConfigError
from arvision.importers import files
from arvision.layers.resize import resize
from arvision.random import Replay
from arvision.tasks import perception
from arvision.tasks.tokenizer import TrainTokenizer
from arvision.tokenizers.adversarial import Adversary, BlurDiscriminator
from arvision.tokenizers.autoencoder import Autoencoder
from arvision.tokenizers.dino import Heads, unit
from arvision.training.optim import DecayRule
from tests.parts.test_perception import nchw, normalised, pair
from tests.parts.test_tokenizer_kl import parts

torch = pytest.importorskip('torch')


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


DINO = perception.Dino(
  width=16, depth=3, heads=2, patch=4, taps=(0, 2), side=16
)


def dino_weights(dino, seed=0):
  """Random weights with the keys of DINO's files."""
  random = np.random.default_rng(seed)
  normal = lambda *shape: random.normal(size=shape).astype(np.float32)
  d, places = dino.width, (dino.side // dino.patch) ** 2
  state = {
    'cls_token': normal(1, 1, d),
    'pos_embed': normal(1, 1 + places, d),
    'patch_embed.proj.weight': normal(d, 3, dino.patch, dino.patch) / 7,
    'patch_embed.proj.bias': normal(d),
    'norm.weight': normal(d),
    'norm.bias': normal(d),
  }
  linear = {'attn.qkv': (3, 1), 'attn.proj': (1, 1), 'mlp.fc1': (4, 1)}
  linear['mlp.fc2'] = (1, 4)
  for i in range(dino.depth):
    for name in ('norm1', 'norm2'):
      state[f'blocks.{i}.{name}.weight'] = 1 + normal(d) / 5
      state[f'blocks.{i}.{name}.bias'] = normal(d)
    for name, (out, into) in linear.items():
      state[f'blocks.{i}.{name}.weight'] = normal(out * d, into * d) / 4
      state[f'blocks.{i}.{name}.bias'] = normal(out * d)
  return state


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


def test_half_of_large_images_are_cropped():
  size = DINO.side
  image = np.arange(30 * 40, dtype=np.float32).reshape(1, 30, 40, 1)
  u = np.float32([[0.4, 0.999, 0.0], [0.6, 0.5, 0.5], [0.1, 0.0, 0.999]])
  draw = Replay({'crop': u}, size=3)
  found = DINO._sized(jnp.repeat(jnp.asarray(image), 3, 0), draw)
  np.testing.assert_array_equal(found[0], image[0, 30 - size :, :size])
  np.testing.assert_array_equal(found[2], image[0, :size, 40 - size :])
  whole = resize(jnp.asarray(image), (size, size), 'area')
  np.testing.assert_array_equal(found[1], whole[0])


class HeadOfTorch(torch.nn.Module):
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


def test_batches_that_norms_cannot_share_are_refused():
  net = Heads(kernel=1, examples=2)
  with pytest.raises(ConfigError, match='3 examples into 2 groups'):
    net.init(jax.random.key(0), [jnp.zeros((3, 2, 4))])


def test_a_step_with_all_losses(tmp_path):
  dino = dataclasses.replace(DINO, depth=1, taps=(), side=8)
  files.write(tmp_path / 'dino.pth', dino_weights(dino))
  dino = dataclasses.replace(dino, path=f'{tmp_path}/dino.pth')

  class Brightness(perception.Distance):
    def params(self):
      return {'scale': np.float32(3)}

    def __call__(self, params, a, b):
      return params['scale'] * jnp.mean((a - b) ** 2, (1, 2, 3))

  task = TrainTokenizer(
    tokenizer=Autoencoder(grid=(4, 4), **parts(kl=1e-3)),
    tx=optax.adamw(1e-3, mask=DecayRule()),
    image_shape=(8, 8, 1),
    distances={
      'bright': Brightness(weight=0.5, path='file'),
      'off': perception.ResNetLogits(),
    },
    adversary=Adversary(
      functools.partial(Heads, kernel=3, examples=2),
      features=dino,
      rounded=True,
    ),
  )
  assert sorted(task.frozen) == ['adversary', 'distance/bright']
  state = nn.unbox(jax.jit(task.init)(jax.random.key(0)))
  image = np.random.default_rng(2).uniform(-1, 1, (4, 8, 8, 1))
  batch = {'image': image.astype(np.float32)}
  step = jax.jit(task.step)
  again, metrics = step(state, task.frozen, batch)
  np.testing.assert_allclose(
    metrics['distance/bright'], 3 * metrics['l2'], rtol=1e-5
  )
  terms = ('l2', 'kl', 'generator')
  total = sum(metrics[k] * w for k, w in zip(terms, (1.0, 1.0, 0.5)))
  total += 0.5 * metrics['distance/bright']
  np.testing.assert_allclose(metrics['loss'], total, rtol=1e-5)
  assert metrics['discriminator'] > 0
  name = 'head_0_second_conv'
  old, new = (s.params['discriminator'][name] for s in (state, again))
  matrix = np.asarray(old['kernel']).reshape(-1, 16)
  wanted = np.asarray(unit(unit(matrix @ old['u_fixed']) @ matrix))
  np.testing.assert_allclose(new['u_fixed'], wanted, atol=1e-6)
  assert np.any(new['kernel'] != old['kernel'])


def test_without_a_file_there_is_no_discriminator(caplog):
  task = TrainTokenizer(
    tokenizer=Autoencoder(grid=(4, 4), **parts(kl=1e-3)),
    tx=optax.identity(),
    image_shape=(8, 8, 1),
    adversary=Adversary(Heads, features=DINO),
  )
  assert task.judge is None
  assert 'config.task.adversary.features is OFF' in caplog.text
  shapes = jax.eval_shape(task.fresh, jax.random.key(0))
  assert sorted(shapes) == ['tokenizer']


def test_reconstructions_are_rounded_as_pictures_are():
  other = jnp.array([-1.5, 0.001, 0.5, 2.0])
  adversary = Adversary(Heads, rounded=True)
  found = (adversary.fake(other) + 1) * 127.5
  np.testing.assert_allclose(found, [0, 128, 191, 255], atol=1e-4)


@pytest.mark.parametrize(
  ('config', 'distances', 'judged'),
  [
    (bar.get_config(), ['gram', 'logits', 'lpips'], False),
    (maskbit.get_config(), ['logits'], True),
    (titok.get_config('BL-64'), ['logits', 'lpips'], True),
  ],
)
def test_published_losses_are_off_without_their_files(
  config, distances, judged
):
  task = build(
    config.task,
    'task',
    tokenizer=Autoencoder(grid=(4, 4), **parts(kl=1e-3)),
    tx=optax.identity(),
    image_shape=(256, 256, 3),
  )
  assert sorted(task.distances) == distances and not task.frozen
  assert (task.judge is not None) == judged
