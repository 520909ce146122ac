"""The Axial Transformer: who sees whom, semi-parallel sampling, bits of pixels."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.evals.base import Run
from arvision.evals.likelihood import Likelihood
from arvision.model import sample
from arvision.parallel.mesh import make_mesh
from arvision.process.logits import LogitsFilter
from arvision.random import Draw
from arvision.runs.measure import measured
from arvision.runs.trained import placed
from arvision.samplers.entity import EntityAR
from arvision.structs import Tokens
from arvision.training.weights import Weights
from tests.configs import TINY
from tests.laws.test_distribution import p_value
from tests.laws.test_generators import Case, jit
from tests.parts.evals_toys import Arrays

GRID, CHANNELS = (2, 2), 2
TOKENS = CHANNELS * math.prod(GRID)
SAMPLES = 10_000
OUTCOMES = np.stack(np.indices((2,) * TOKENS), -1).reshape(-1, TOKENS)
OUTCOMES = OUTCOMES.astype(np.int32)


@pytest.fixture(scope='module')
def law():
  """256 outcomes: two channels of 2 × 2 pixels, black or white."""
  config = TINY['axial/tiny']()
  with config.unlocked():
    config.data.size = config.tokenizer.grid = config.backbone.grid = GRID
    config.layout.update(height=GRID[0], width=GRID[1], channels=CHANNELS)
    config.tokenizer.channels = config.backbone.channels = CHANNELS
    config.data.channels = CHANNELS
    config.tokenizer.levels = config.head.vocab_size = 2
    config.backbone.input.vocab_size = 2
    config.condition.classes = 1
  return Case(config)


@pytest.fixture(scope='module')
def logits(law):
  """Jitted: tokens (o, t) of as many images as there are -> (o, t, v)."""

  @jit
  def logits(params, tokens):
    inputs = {'label': jnp.zeros(len(OUTCOMES), jnp.int32)}
    args = Tokens(tokens), inputs
    return law.model.apply({'params': params}, *args, method='logits')

  return lambda tokens: logits(law.params, tokens)


@pytest.fixture(scope='module')
def nats(logits):
  """(o,) of every outcome: the sum over its tokens, each given those before it."""
  log_p = np.asarray(jax.nn.log_softmax(logits(OUTCOMES)), np.float64)
  return -np.take_along_axis(log_p, OUTCOMES[..., None], -1).sum((1, 2))


@pytest.fixture(scope='module')
def sampled(law):
  """(n, t) tokens by semi-parallel sampling."""

  @jit
  def sampled(params):
    inputs = {'label': jnp.zeros(SAMPLES, jnp.int32)}
    draw = Draw.create(0, jnp.arange(SAMPLES))
    return sample(law.model, params, EntityAR(), inputs, draw).values

  return np.asarray(sampled(law.params))


def test_a_pixel_sees_exactly_those_before_it():
  """By the Jacobian of the tiny config, with respect to the embedded tokens."""
  law = Case(TINY['axial/tiny']())
  tables = [f'input_{k}' for k in range(3)]
  count, width = law.layout.tokens, law.config.backbone.width
  places = count // 3
  # Every token has an id of its own in its channel, hence a row of the table.
  ids = np.tile(np.arange(places), 3)[None].astype(np.int32)
  whole = [law.params['backbone'][name]['codes']['table'] for name in tables]
  given = np.stack([table[:places] for table in whole])
  random = np.random.default_rng(4).normal(size=width)

  def z(vectors):
    backbone = {**law.params['backbone']}
    for name, table, own in zip(tables, whole, vectors):
      own = jnp.asarray(table).at[:places].set(own)
      backbone[name] = {'codes': {'table': own}}
    found = law.model.apply(
      {'params': {**law.params, 'backbone': backbone}},
      Tokens(ids),
      {'label': jnp.zeros(1, jnp.int32)},
      None,
      method='teacher_forced',
    )[0]
    return found[0, :, 0] @ random

  found = np.abs(jit(jax.jacrev(z))(given)).max(-1).reshape(count, count)
  np.testing.assert_array_equal(found > 1e-9, np.tri(count, k=-1, dtype=bool))


def test_samples_have_the_probabilities_that_the_model_states(nats, sampled):
  stated = np.exp(-nats)
  np.testing.assert_allclose(stated.sum(), 1, rtol=1e-4)
  assert stated.max() < 0.5
  base = 2 ** np.arange(TOKENS)[::-1]
  counts = np.bincount(sampled @ base, minlength=len(OUTCOMES))
  assert p_value(counts, stated) > 1e-3
  # The control: channels in the other order.
  swapped = np.roll(OUTCOMES, TOKENS // 2, 1) @ base
  assert p_value(counts, stated[swapped]) < 1e-6


def test_semi_parallel_sampling_equals_plain_sampling(logits, sampled):
  """Token by token through the whole network, with the same draws."""
  draw = Draw.create(0, jnp.arange(len(OUTCOMES)))
  tokens = np.zeros_like(OUTCOMES)
  for s in range(TOKENS):
    own = logits(tokens)[:, s : s + 1]
    tokens[:, s] = LogitsFilter()(own, draw.fold(s))[:, 0]
  np.testing.assert_array_equal(tokens, sampled[: len(tokens)])
  assert 0 < tokens.mean() < 1


def test_bits_per_dimension_are_those_of_the_pixels(law, nats):
  """Over all images that there are, of which each is black or white."""
  mesh = make_mesh({'data': -1}, jax.local_devices())
  config = law.config.copy_and_resolve_references()
  config.data.channels = 3  # of data that is not read
  found = Weights(config, law.params, 0, 'raw')
  run = placed(found, {'tokenizer': {'params': {}}}, mesh)
  images = run.decode(OUTCOMES)
  assert images.shape == (len(OUTCOMES), *GRID, CHANNELS)
  np.testing.assert_array_equal(
    images[:, :, :, 1].reshape(-1, 4) > 0, OUTCOMES[:, 4:]
  )
  np.testing.assert_array_equal(run.encode(images), OUTCOMES)
  data = Arrays(images, np.zeros(len(images), np.int32), every=1)
  fields = {'name': 'toy', 'spec': run.tokenizer.spec, 'classes': 1}
  nats_of = measured(run).nats
  toy = Run(data, encode=run.encode, decode=run.decode, nats=nats_of, **fields)
  found = {k.split('/')[0]: v for k, v in Likelihood(batch_size=64)(toy)}
  wanted = nats.mean() / TOKENS / math.log(2)
  assert found['bits_per_dimension'] == pytest.approx(wanted, rel=1e-5)
  assert found['bits_per_token'] == pytest.approx(wanted, rel=1e-5)
