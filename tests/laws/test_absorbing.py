"""Laws of absorbing diffusion: its samplers, its loss and its likelihoods."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.build import build
from arvision.model import sample
from arvision.process.absorbing import bound, chain_rule
from arvision.random import Draw, Replay
from arvision.samplers import absorbing
from arvision.samplers.base import Known
from arvision.structs import Tokens
from tests.laws.test_distribution import p_value
from tests.laws.test_generators import BATCH, Logged, case, jit
from tests.table_model import TableModel

IDS, TOKENS, ROWS = 3, 4, 10_000
# Two tokens of one step are independent: of few samples, with many steps.
SAMPLERS = {
  'first hitting': absorbing.FirstHitting(),
  'ancestral': absorbing.Ancestral(steps=64),
  'ancestral at once': absorbing.AncestralAtOnce(steps=64),
}
OTHERS = {
  'two at once': absorbing.FirstHitting(at_once=2),
  'few steps': absorbing.Ancestral(steps=2),
  'sure first': absorbing.AncestralSureFirst(steps=4),
}


OUTCOMES = np.array([*itertools.product(*[range(IDS)] * TOKENS)], np.int32)
TABLE = np.random.default_rng(3).normal(
  0, 0.7, ((IDS + 1) ** TOKENS, TOKENS, IDS)
)


def table(values):
  """Logits (b, t, v) that depend on all tokens that are not masked."""
  base = (IDS + 1) ** np.arange(TOKENS)
  return jnp.asarray(TABLE, jnp.float32)[(values + 1) @ base]


def table_nats(masked):
  """(o, t) nats of every token of every outcome."""
  log_p = jax.nn.log_softmax(table(jnp.where(masked, -1, OUTCOMES)))
  return -jnp.take_along_axis(log_p, OUTCOMES[..., None], -1)[..., 0]


def by_order(nats):
  """(orders, o) nats of all outcomes for every order of tokens."""
  orders = itertools.permutations(range(TOKENS))
  found = [chain_rule(nats, np.array(o), TOKENS) for o in orders]
  return np.float64(found)


def sampled(sampler, rows):
  """(o,) how often every outcome was sampled, and the calls of the network."""

  @jax.jit
  def draw():
    draw = Draw.create(0, jnp.arange(rows))
    model = TableModel(table, TOKENS)
    tokens, [(given, _)] = sampler.loop(model, {}, draw, rows)
    return tokens.values, absorbing.network_calls(given)

  tokens, calls = jax.device_get(draw())
  base = IDS ** np.arange(TOKENS)[::-1]
  return np.bincount(tokens @ base, minlength=IDS**TOKENS), int(calls)


@pytest.fixture(scope='module')
def stated():
  """(o,) probabilities: the mean over all orders of tokens."""
  return np.mean(np.exp(-by_order(table_nats)), 0)


@pytest.mark.parametrize('name', SAMPLERS)
def test_samples_have_the_probabilities_that_the_model_states(stated, name):
  counts, _ = sampled(SAMPLERS[name], ROWS)
  np.testing.assert_allclose(stated.sum(), 1, rtol=1e-4)
  assert p_value(counts, stated) > 1e-3
  # The control: one order of tokens.
  assert p_value(counts, np.exp(-by_order(table_nats)[0])) < 1e-6


@pytest.mark.parametrize('name', OTHERS)
def test_several_tokens_at_once_have_another_distribution(stated, name):
  counts, _ = sampled(OTHERS[name], ROWS)
  assert p_value(counts, stated) < 1e-6


def test_calls_of_the_network():
  """First hitting: one per token. Ancestral: whenever a token changed."""
  assert sampled(SAMPLERS['first hitting'], 1)[1] == TOKENS
  assert TOKENS // 2 < sampled(SAMPLERS['ancestral'], 1)[1] <= TOKENS + 1


def test_the_bound_and_the_chain_rule():
  """The bound is the mean over orders of the nats of the chain rule.

  So it is above the negative logarithm of the mean of their probabilities.
  """
  nats = by_order(table_nats)
  np.testing.assert_allclose(np.exp(-nats).sum(1), 1, rtol=1e-4)
  # All masks of m of n tokens: the integral over t of t^(m-1) (1-t)^(n-m).
  total = np.zeros(len(OUTCOMES))
  for mask in itertools.product((False, True), repeat=TOKENS):
    m, mask = sum(mask), np.array(mask)
    if m:
      weight = math.factorial(m - 1) * math.factorial(TOKENS - m)
      found = np.where(mask, table_nats(mask[None]), 0).sum(1)
      total += weight / math.factorial(TOKENS) * found
  np.testing.assert_allclose(total, nats.mean(0), rtol=1e-4)
  assert (total > -np.log(np.mean(np.exp(-nats), 0))).all()
  uniform = np.random.default_rng(0).random((400, len(total), TOKENS + 1))
  each = jax.jit(lambda u: bound(table_nats, u[:, 0], u[:, 1:]))
  some = [each(u) for u in np.float32(uniform)]
  np.testing.assert_allclose(np.mean(some), total.mean(), rtol=0.03)


@pytest.mark.parametrize('schedule', ['linear', 'cosine', 'arccos', 'square'])
@pytest.mark.parametrize('kind', ['Absorbing', 'RandomMask'])
def test_the_loss_is_the_bound(kind, schedule):
  """Of absorbing diffusion, and of MaskGIT's masks with the weights of the ELBO."""
  rows = 20_000
  options = {'lowest': 0.0, 'schedule': schedule}
  if kind == 'RandomMask':
    options |= {'weighting': 'elbo', 'unmasked_weight': 0.0}
  else:
    options['group'] = rows
  feed = build({'type': f'feeds.mask.{kind}', **options}, 'feed')
  number = np.arange(rows) % len(OUTCOMES)
  tokens = jnp.asarray(OUTCOMES[number])
  layout = TableModel(table, TOKENS).layout

  @jax.jit
  def losses():
    draw = Draw.create(1, jnp.arange(rows))
    slots, targets = feed.train(Tokens(tokens), layout, None, draw)
    log_p = jax.nn.log_softmax(table(jnp.where(slots.masked, -1, tokens)))
    nats = -jnp.take_along_axis(log_p, tokens[..., None], -1)[..., 0]
    return jnp.sum(nats * targets.weight) / jnp.sum(targets.denominator)

  wanted = by_order(table_nats).mean(0)[number].mean() / TOKENS
  np.testing.assert_allclose(losses(), wanted, rtol=0.05)


def test_a_label_is_masked_like_a_token():
  law = case('smdm/tiny')
  tokens = law.layout.tokens
  arrays = {
    'time': np.array([0.0, 1 - 2**-20], np.float32),
    'mask': np.full((BATCH, tokens), 0.5, np.float32),
    'null': np.full(BATCH, 0.5, np.float32),
  }

  @jit
  def loss(params, inputs):
    draw = Replay(arrays, size=BATCH)
    args = Tokens(law.tokens), inputs, draw, None
    found = law.model.apply({'params': params}, *args, method='losses')
    return found[0]['tokens'].loss

  one, other = (
    loss(law.params, law.some_inputs(np.arange(BATCH) + i)) for i in range(2)
  )
  differs = np.abs(one - other).max(1) > 1e-4
  assert differs.tolist() == [True, False]


def test_known_tokens_stay_and_draws_share_no_key():
  law = case('smdm/tiny')
  own = build(law.config.sampler, 'sampler')
  keep = np.random.default_rng(1).random((BATCH, law.layout.tokens)) < 0.5
  for sampler in (own, absorbing.ExtrapolatedFirstHitting(at_once=3)):
    draw = Logged(Draw.create(0, jnp.arange(BATCH)), [])

    def tokens(params, draw=draw, sampler=sampler):
      known = Known(law.tokens, keep)
      args = sampler, law.inputs, draw, None, known
      return sample(law.model, params, *args).values

    found = np.asarray(jit(tokens)(law.params))
    draw.check()
    np.testing.assert_array_equal(found[keep], law.tokens[keep])
    assert (found[~keep] != law.tokens[~keep]).any()
    assert (found >= 0).all()
