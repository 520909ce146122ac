"""Discrete diffusion: matrices, posterior, times, and the masked model in it."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.configs.maskgit import tiny as maskgit
from arvision.configs.vq_diffusion import parts, tiny
from arvision.errors import ConfigError
from arvision.feeds.mask import RandomMask
from arvision.feeds.transition import Transition
from arvision.heads.categorical import Categorical
from arvision.heads.discrete import DiscreteDiffusion
from arvision.layouts import grid
from arvision.process.transitions import MaskAndReplace, Multinomial
from arvision.random import Draw
from arvision.samplers.discrete import Ancestral, HighQuality
from arvision.structs import Query, Tokens
from arvision.tasks import assemble, fit
from arvision.tasks.importance import ImportanceSampled
from tests.laws.test_distribution import p_value
from tests.laws.test_generators import jit

IDS, STEPS = 3, 5
BOTH = MaskAndReplace(IDS, STEPS, keep=(0.9, 0.1), masked=(0.05, 0.6))
ABSORBING = MaskAndReplace(IDS, STEPS, keep=(0.9, 0.0), masked=(0.1, 1.0))
UNIFORM = MaskAndReplace(IDS, STEPS, keep=(0.9, 0.0), masked=(0.0, 0.0))
COSINE = Multinomial(IDS, STEPS)
PROCESSES = {
  'both': BOTH,
  'absorbing': ABSORBING,
  'uniform': UNIFORM,
  'cosine': COSINE,
}


def matrix(tables, n):
  """(from, to) transition matrix of a time."""
  keep, replace, mask = (table[n] for table in tables)
  found = np.zeros((IDS + 1, IDS + 1))
  found[:IDS, :IDS] = replace + keep * np.eye(IDS)
  found[:IDS, IDS], found[IDS, IDS] = mask, 1
  return found


@pytest.mark.parametrize('name', PROCESSES)
def test_steps_multiply_to_the_whole_and_masks_stay(name):
  process, product = PROCESSES[name], np.eye(IDS + 1)
  for n in range(1, STEPS + 1):
    once = matrix(process.single, n)
    np.testing.assert_allclose(once.sum(1), 1, atol=1e-12)
    assert (once > -1e-12).all()
    product = product @ once
    whole = matrix(process.whole, n)
    np.testing.assert_allclose(product, whole, atol=1e-12)
    got = process.forward(process.one_hot(np.arange(IDS))[None], n)[0]
    np.testing.assert_allclose(np.exp(got), whole[:IDS], atol=1e-6)
  assert process.starts_masked == (name in ('both', 'absorbing'))


@pytest.mark.parametrize('name', ['both', 'uniform'])
def test_posteriors_are_those_of_bayes(name):
  process = PROCESSES[name]
  p0 = np.array([0.2, 0.7, 0.1])
  for n in range(1, STEPS + 1):
    before = matrix(process.whole, n - 1)[:IDS]
    once, whole = matrix(process.single, n), matrix(process.whole, n)
    for x in range(IDS + (name == 'both')):
      joint = before * once[:, x]  # (x_0, x_(n-1))
      wanted = (p0 / whole[:IDS, x]) @ joint
      log_p = jnp.log(jnp.asarray(p0))[None, None]
      got = process.posterior(log_p, np.array([[x]]), n)[0, 0]
      np.testing.assert_allclose(np.exp(got), wanted, atol=1e-6)


def test_a_cosine_is_that_of_the_published_code():
  """DDM/model/ddpm.py, cosine_beta_schedule; and its posterior of known x_0."""
  process = Multinomial(IDS, 4000)
  times = np.linspace(0, 4001, 4001) / 4001
  square = np.cos((times + 0.008) / 1.008 * np.pi / 2) ** 2
  alphas = np.sqrt(np.clip(square[1:] / square[:-1], 0.001, 1))
  np.testing.assert_allclose(process.whole.keep[1:], np.cumprod(alphas))
  np.testing.assert_allclose(process.single.keep[1:], alphas)
  x0, x = np.array([[0, 1, 2]]), np.array([[0, 2, 2]])
  log_x0 = COSINE.one_hot(x0)[..., :-1]
  uniform = MaskAndReplace.posterior(COSINE, log_x0, x, 3)
  np.testing.assert_allclose(
    np.exp(COSINE.posterior(log_x0, x, 3)), np.exp(uniform), atol=1e-6
  )


def test_samples_of_a_perfect_network_are_data():
  """With the true p(x_0 | x_n), and a control with a wrong one."""
  p0, count = np.array([0.2, 0.7, 0.1]), 20_000

  def sampled(process, p0):
    sampler, draw = Ancestral(), Draw.create(0, jnp.arange(count))
    calls = sampler.calls(process, 1)
    whole = [matrix(process.whole, n)[:IDS] for n, _ in calls]

    def advance(x, now):
      i, call, q = now
      known = jnp.log(p0[:, None] * q + 1e-30).T
      log_x0 = jax.nn.log_softmax(known, -1)[x]
      return sampler.advance(process, x, log_x0, call, draw.fold(i)), None

    x = jnp.full((count, 1), process.mask)
    if not process.starts_masked:
      x = jnp.int32(IDS * draw.uniform('start', (1,)))
    steps = jnp.arange(len(calls)), jnp.asarray(calls), jnp.stack(whole)
    return jax.lax.scan(advance, x, steps)[0]

  for process in (BOTH, ABSORBING, UNIFORM):
    draw = jit(lambda p: sampled(process, p))  # noqa: B023
    right, wrong = draw(p0), draw(np.array([0.25, 0.65, 0.1]))
    counts = lambda x: np.bincount(np.asarray(x)[:, 0], minlength=IDS)
    assert p_value(counts(right), p0) > 1e-3
    assert p_value(counts(wrong), p0) < 1e-6


def test_absorbing_diffusion_trains_as_a_masked_model():
  """Same slots, and the cross entropy of masked tokens by the bound's weights."""
  rng, layout = np.random.default_rng(0), grid.whole(2, 4, prefix=0)
  tokens = Tokens(rng.integers(0, IDS, (64, 8)).astype(np.int32))
  draw = Draw.create(0, jnp.arange(64))
  slots, targets = Transition(ABSORBING).train(tokens, layout, None, draw)
  plain = RandomMask()._all(tokens, layout, None, slots.masked)
  np.testing.assert_array_equal(
    np.where(slots.masked, 0, slots.values),
    np.where(slots.masked, 0, plain.values),
  )
  np.testing.assert_array_equal(slots.masked, plain.masked)
  np.testing.assert_array_equal(slots.index, plain.index)

  z = jnp.asarray(rng.normal(size=(64, 8, 1, 6)), jnp.float32)
  query = Query(given=slots.values, level=slots.level, masked=slots.masked)
  head = DiscreteDiffusion(IDS, process=ABSORBING, auxiliary=0.0)
  masked = Categorical(IDS)
  args = z, tokens.values, draw, query
  params = masked.init(jax.random.key(0), *args, method='loss')
  params = jax.tree.map(lambda x: x + 0.5 * rng.normal(size=x.shape), params)
  ours, _ = head.apply(params, *args, method='loss')
  entropy, _ = masked.apply(params, *args, method='loss')
  time = np.asarray(ABSORBING.time(slots.level))
  kept = ABSORBING.whole.keep
  share = (kept[time - 1] - kept[time]) / (1 - kept[time])
  wanted = np.where(slots.masked, share * entropy, 0)
  np.testing.assert_allclose(ours, wanted, rtol=2e-4, atol=1e-5)
  np.testing.assert_allclose(targets.weight, STEPS, rtol=1e-6)
  # Unmasked ids stay in sampling, whatever is predicted.
  log_x0 = jnp.log(jnp.full((64, 8, IDS), 1 / IDS))
  x = np.where(slots.masked, IDS, slots.values)
  after = Ancestral().advance(ABSORBING, x, log_x0, np.array([2, 2]), draw)
  np.testing.assert_array_equal(after[x < IDS], x[x < IDS])


def test_times_are_sampled_by_importance_once_all_are_known():
  model = types.SimpleNamespace(feed=Transition(BOTH))
  task = object.__new__(ImportanceSampled)
  object.__setattr__(task, 'model', model)
  extra = task.extra()
  np.testing.assert_allclose(task.odds(extra), 1 / STEPS)
  state = types.SimpleNamespace(extra=extra, replace=lambda extra: extra)
  aux = {
    'squares': jnp.array([8.0, 4.0, 0.0, 100.0, 1.0]),
    'times': jnp.array([2.0, 1.0, 0.0, 4.0, 1.0]),
  }
  after, _ = task.after(state, aux)
  np.testing.assert_allclose(after['squares'], [0.4, 0.4, 0, 2.5, 0.1])
  np.testing.assert_allclose(after['times'], aux['times'])
  np.testing.assert_allclose(task.odds(after), 1 / STEPS)
  late = {**after, 'times': jnp.full(STEPS, 11.0)}
  odds = np.asarray(task.odds(late))
  root = np.sqrt(np.array([0.4, 0.4, 1e-10, 2.5, 0.1])) + 1e-4
  np.testing.assert_allclose(odds, root / root.sum(), rtol=1e-4)
  # The weights of the loss are those of the odds.
  draw = Draw.create(0, jnp.arange(500)).replace(odds=odds)
  tokens = Tokens(np.zeros((500, 1), np.int32))
  layout = grid.whole(1, 1, prefix=0)
  slots, targets = Transition(BOTH).train(tokens, layout, None, draw)
  time = np.asarray(BOTH.time(slots.level))[:, 0]
  np.testing.assert_allclose(targets.weight[:, 0], 1 / odds[time - 1], 1e-5)
  seen = np.bincount(time - 1, minlength=STEPS)
  assert seen[3] > 150 and seen[2] < 5


def test_calls_of_high_quality_unmask_all_tokens():
  process = MaskAndReplace(IDS, 100)
  for tokens in (16, 256, 1024):
    calls = HighQuality().calls(process, tokens)
    # About as many are left for the last time.
    assert -(-tokens // 100) <= tokens - calls[:, 1].sum() <= tokens // 100 + 1
    assert (np.diff(calls[:, 0]) < 0).all() and calls[-1].tolist() == [1, 0]
  published = HighQuality(counts=parts.PUBLISHED_COUNTS)
  calls = published.calls(process, 1024)
  assert len(calls) == 100 and calls[:, 1].sum() == 1024
  few = HighQuality(counts=parts.PUBLISHED_COUNTS, most=5).calls(process, 1024)
  # Eleven tokens are 5 and 6: one is never left alone.
  assert few[:2].tolist() == [[100, 5], [100, 6]] and few[:, 1].sum() == 1024
  with pytest.raises(ConfigError, match='wanted 99, of at most 1023'):
    published.calls(process, 1023)
  with pytest.raises(ConfigError, match='use samplers.discrete.Ancestral'):
    HighQuality().calls(UNIFORM, 16)
  fast = Ancestral(stride=4).calls(MaskAndReplace(IDS, 10), 16)
  assert fast.tolist() == [[10, 7], [6, 3], [2, 2], [1, 1]]


def test_parts_that_do_not_fit_are_refused():
  with pytest.raises(ConfigError, match='add up to more than 1'):
    MaskAndReplace(IDS, keep=(0.9, 0.5), masked=(0.1, 0.6))
  with pytest.raises(ConfigError, match='steps=1: wanted two'):
    MaskAndReplace(IDS, steps=1)
  config = tiny.get_config().copy_and_resolve_references().unlock()
  model = assemble.make_model(config)
  sampler = assemble.part(maskgit.get_config(), 'sampler')
  with pytest.raises(ConfigError, match='a sampler of samplers.discrete'):
    fit.check_sampler(model, sampler)
  other = assemble.make_model(maskgit.get_config())
  with pytest.raises(ConfigError, match='a sampler of samplers.discrete'):
    fit.check_sampler(other, Ancestral())
  config.head.process.steps = 7
  with pytest.raises(ConfigError, match='head.process=.* make them agree'):
    assemble.trained_shapes(config)
  config = tiny.get_config().copy_and_resolve_references().unlock()
  config.backbone.block.mlp.grid = (2, 8)
  assemble.trained_shapes(config)  # as many places
  config.backbone.block.mlp.grid = (2, 4)
  with pytest.raises(ConfigError, match='mlp.grid=.2, 4.: wanted the grid'):
    assemble.trained_shapes(config)
