"""The discriminator on features of DINO, and all losses of a step together."""

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
from arvision.tokenizers.adversarial import Adversary
from arvision.tokenizers.autoencoder import Autoencoder
from arvision.tokenizers.dino import Heads, unit
from arvision.training.optim import DecayRule
from tests.parts.test_tokenizer_kl import parts

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


def test_features_of_dino_are_those_recorded(tmp_path):
  """By torch, see `test_perception_torch.py`: sums and sums of squares."""
  files.write(tmp_path / 'dino.pth', dino_weights(DINO))
  dino = dataclasses.replace(DINO, path=f'{tmp_path}/dino.pth')
  image = np.random.default_rng(1).uniform(-1, 1, (2, 2, 20, 24, 3))[0]
  found = jax.jit(lambda p, x: dino(p, x))(dino.params(), np.float32(image))
  sums = [(jnp.sum(x), jnp.sum(x**2)) for x in found]
  wanted = [
    (-404.576456, 2453.53783),
    (1490.06099, 21330.8780),
    (1209.93431, 46194.2493),
  ]
  np.testing.assert_allclose(sums, wanted, rtol=2e-4)


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
