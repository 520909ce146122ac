"""A tokenizer of latents: measured, cached, and taken by a generator."""

import json
import types
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from arvision.build import build
from arvision.commands.main import main
from arvision.configs.tokenbridge import parts
from arvision.data.latents import CachedTokens
from arvision.errors import ConfigError
from arvision.feeds.base import all_slots, all_targets
from arvision.layouts import grid
from arvision.model import ARModel
from arvision.quantizers.kl import Gaussian
from arvision.random import Draw
from arvision.runs.trained import load_run
from arvision.structs import Cond, Tokens
from arvision.tasks.autoregressive import Autoregressive
from arvision.training import frozen
from tests.configs import ALL


@pytest.fixture(scope='module')
def workdir(random_tokenizer):
  return random_tokenizer('mar/digits_tokenizer')


@pytest.fixture(scope='module')
def run(workdir):
  return load_run(workdir)


# ----------------------------------------------------------- arvision latents


def test_latents_are_measured(workdir, run, capsys):
  assert not main(['latents', f'--workdir={workdir}', '--images=100'])
  said = capsys.readouterr().out
  found = json.loads((workdir / 'latents.json').read_text())
  assert f'--config.tokenizer.quantizer.scale={found["scale"]:.4g}' in said
  assert found['images'] == 100 and 'shift' not in found
  images = [b['image'][:, 0] for b in run.data.train_pass(100, views='center')]
  codec = run.tokenizer.bind(run.variables)
  posterior = Gaussian.of(codec.encode_moments(images[0]))
  # The variance of what is drawn is that of the means and the mean variance.
  mean = np.asarray(posterior.mean).reshape(-1, 4)
  variance = np.asarray(posterior.std**2).reshape(-1, 4).mean(0) + mean.var(0)
  np.testing.assert_allclose(found['channel_mean'], mean.mean(0), atol=0.1)
  np.testing.assert_allclose(found['channel_std'], variance**0.5, rtol=0.05)
  assert found['scale'] == pytest.approx(1 / found['std'])


def test_a_shift_is_given_where_it_is_asked_for(workdir, capsys):
  flags = ['--shift', '--batch_size=30', '--images=100']
  assert not main(['latents', f'--workdir={workdir}', *flags])
  found = json.loads((workdir / 'latents.json').read_text())
  assert found['images'] == 100 and found['shift'] == found['channel_mean']
  assert ' --config.tokenizer.quantizer.shift=' in capsys.readouterr().out
  within = np.square(found['channel_std']).mean() ** 0.5
  assert found['scale'] == pytest.approx(1 / within)


def test_codes_and_generators_have_no_scale(digits_runs, capsys):
  assert main(['latents', f'--workdir={digits_runs}/tok']) == 2
  assert 'has discrete tokens' in capsys.readouterr().err
  assert main(['latents', f'--workdir={digits_runs}/var']) == 2
  error = capsys.readouterr().err
  assert 'holds a generator' in error and f'{digits_runs}/tok' in error


def test_numbers_that_cannot_be(workdir, capsys):
  assert main(['latents', f'--workdir={workdir}', '--images=-1']) == 2
  assert '--images/--number=-1' in capsys.readouterr().err


# ------------------------------------------------------------- cached moments


class Feed:
  """Every token beside itself."""

  def train(self, tokens, layout, codec, draw):
    del codec, draw
    return all_slots(tokens.values, layout), all_targets(tokens.values)


class Linear(nn.Module):
  @nn.compact
  def __call__(self, slots, cond, layout, *, train=False):
    return nn.Dense(slots.values.shape[-1])(slots.values)[:, :, None], None


class Squares(nn.Module):
  def loss(self, z, targets, draw, query):
    return jnp.mean((z[:, :, 0] - targets - 1) ** 2, -1), {}


class Nothing(nn.Module):
  drop: float = 0.0
  reads_slots: ClassVar[bool] = False

  def blank(self, batch):
    return {'label': jnp.zeros((batch,), jnp.int32)}

  def __call__(self, inputs, slots=None, *, null):
    return Cond()


@pytest.fixture(scope='module')
def task(run):
  height, width = run.tokenizer.spec.grids[0]
  layout = grid.raster(height, width)
  return Autoregressive(
    model=ARModel(Nothing(), Linear(), Squares(), layout, Feed()),
    sampler=None,
    tokenizer=run.tokenizer,
    tx=optax.sgd(0.1),
    image_shape=(8, 8, 1),
    classes=10,
    accumulate=2,
  )


@pytest.fixture(scope='module')
def cached(workdir, tmp_path_factory):
  folder = tmp_path_factory.mktemp('encoded') / 'tokens'
  flags = [f'--workdir={workdir}', f'--output={folder}', '--shards=1']
  assert not main(['encode', *flags])
  return CachedTokens(str(folder), batch_size=8)


def test_tokens_of_other_weights_than_the_generators_are_refused(
  workdir, cached, tmp_path
):
  config = generator(workdir)
  kept = frozen.load(config, tmp_path)
  frozen.check_tokens(config, cached, kept)
  frozen.check_tokens(generator(workdir, scale=0.5), cached, kept)
  moved = jax.tree.map(lambda x: x + 1e-6, kept)
  with pytest.raises(ConfigError, match='(?s)weights: fingerprint .*again'):
    frozen.check_tokens(config, cached, moved)
  with pytest.raises(ConfigError, match=r'config\.tokenizer\.quantizer\.kl'):
    frozen.check_tokens(generator(workdir, kl=0.5), cached, kept)
  # Whoever writes tokens of his own need not say what made them.
  own = types.SimpleNamespace(spec={})
  frozen.check_tokens(config, own, moved)


def test_cached_moments_train_as_images_do(run, task, cached):
  assert cached.spec['tokens'] == [16, 8]
  assert cached.spec['dtype'] == 'float32'
  moments = next(iter(cached.train_pass(8)))
  images = next(iter(run.data.train_pass(8, views='center')))
  np.testing.assert_array_equal(moments['index'], images['index'])
  shared = {'label': jnp.asarray(images['label'])}
  fresh = jax.jit(task.init)(jax.random.key(0))
  frozen = {'tokenizer': run.variables}
  step = jax.jit(task.step)
  ends = []
  for batch in (
    {'tokens': moments['tokens']},
    {'image': images['image'][:, 0]},
  ):
    state, losses = nn.unbox(fresh), []
    for _ in range(3):
      state, metrics = step(state, frozen, {**shared, **batch})
      losses.append(float(metrics['loss']))
    ends.append((losses, state.params))
  # Two compiled programs may round differently.
  np.testing.assert_allclose(ends[0][0], ends[1][0], rtol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
    ends[0][1],
    ends[1][1],
  )


def test_every_visit_draws_anew(run, task):
  image = next(iter(run.data.held_out(4)))['image']
  codec = run.tokenizer.bind(run.variables)
  stored = codec.store(image)
  rows = jnp.arange(4)
  first, second, again = (
    codec.visit(stored, Draw.create(0, rows, step)).values for step in (0, 1, 0)
  )
  assert (first != second).all()
  np.testing.assert_array_equal(first, again)


# ------------------------------------------------- what a generator may change


def generator(workdir, **quantizer):
  config = ALL['mar/digits_tokenizer']()
  with config.unlocked():
    config.frozen = {'tokenizer': str(workdir)}
    config.tokenizer.quantizer.update(quantizer)
  return config


def test_a_generator_may_scale_latents_otherwise(workdir, tmp_path):
  config = generator(workdir, scale=0.5)
  kept = frozen.load(config, tmp_path)
  codec = build(config.tokenizer, 'tokenizer').bind(kept['tokenizer'])
  assert codec.spec.size == 0
  own = load_run(workdir)
  image = next(iter(own.data.held_out(2)))['image']
  scale = 0.5 / own.config.tokenizer.quantizer.scale
  np.testing.assert_allclose(
    codec.encode(image).values, scale * own.encode(image), rtol=1e-5, atol=1e-6
  )


def test_a_generator_may_not_have_another_tokenizer(workdir, tmp_path):
  with pytest.raises(ConfigError, match=r'config\.tokenizer\.quantizer\.kl'):
    frozen.load(generator(workdir, kl=0.5), tmp_path)


def test_levels_take_the_weights_of_a_kl_tokenizer(workdir, run, tmp_path):
  config = generator(workdir)
  with config.unlocked():
    parts.quantized(config.tokenizer, 16)
  kept = frozen.load(config, tmp_path)
  codec = build(config.tokenizer, 'tokenizer').bind(kept['tokenizer'])
  plain = run.tokenizer.bind(run.variables)
  stored = run.store(next(iter(run.data.held_out(4)))['image'])
  draw = Draw.create(0, jnp.arange(4))
  values = codec.visit(stored, draw).values
  assert values.shape == (4, 16, 4) and values.dtype == jnp.int32
  latent = plain.visit(stored, draw).values
  np.testing.assert_array_equal(values, codec.quant.quantize(latent))
  image = plain.decode(Tokens(codec.embed(values)))
  np.testing.assert_array_equal(codec.decode(Tokens(values)), image)
