"""Levels of latents, the head over channels, and where guidance acts."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.build import build
from arvision.errors import ConfigError
from arvision.heads.channels import Channels
from arvision.model import sample
from arvision.process.guidance import Constant
from arvision.process.logits import LogitsFilter
from arvision.process.quantiles import boundaries, centres
from arvision.quantizers.levels import Levels
from arvision.random import Draw, Picked, Replay
from arvision.structs import Query
from arvision.tasks import assemble, fit
from tests.configs import ALL
from tests.laws.test_generators import scrambled

ORDER = (2, 0, 3, 1)
BATCH, TOKENS, LEVELS = 2, 3, 5


# ----------------------------------------------------------------------- levels


def test_levels_are_equally_likely_and_lie_at_their_means():
  ends, middle = boundaries(8, 3.0), centres(8, 3.0)
  x = np.linspace(-3, 3, 600_001)
  density = np.exp(-0.5 * x**2)
  inside = np.searchsorted(ends, x[1:-1], side='right') - 1
  weights = np.bincount(inside, density[1:-1])
  # The outer two lack what lies beyond the span.
  np.testing.assert_allclose(weights[1:-1], weights[1], rtol=1e-3)
  assert (weights[[0, -1]] < weights[1]).all()
  means = np.bincount(inside, density[1:-1] * x[1:-1]) / weights
  np.testing.assert_allclose(middle, means, atol=1e-4)


def test_levels_beyond_the_span_are_empty_and_finite():
  assert np.isfinite(centres(4096, 3.0)).all()


def codec(**fields):
  return Levels(channels=2, **fields)


def test_the_nearest_level_is_taken():
  net = codec(levels=6, low=-4.0, high=2.0)
  values = np.asarray(net.embed(jnp.arange(6)))
  # The middle of the levels is that of the latents, the ends are inside.
  assert values.mean() == pytest.approx(-1.0, abs=1e-6)
  assert values[0] > -4 and values[-1] < 2
  x = np.random.default_rng(0).uniform(-6, 4, (50, 2)).astype(np.float32)
  nearest = np.abs(x[..., None] - values).argmin(-1)
  np.testing.assert_array_equal(net.quantize(x), nearest)
  np.testing.assert_array_equal(net.quantize(values), np.arange(6))


# ------------------------------------------------------------------------- head


def head(**fields):
  fields = {'order': ORDER, 'dropout': 0.0, **fields}
  return Channels(4, LEVELS, width=8, depth=2, heads=2, hidden=16, **fields)


@functools.cache
def made():
  z = jax.random.normal(jax.random.key(1), (BATCH, TOKENS, 1, 6))
  tokens = jax.random.randint(
    jax.random.key(2), (BATCH, TOKENS, 4), 0, LEVELS, jnp.int32
  )
  init = functools.partial(head().init, method='field')
  shapes = jax.eval_shape(init, jax.random.key(0), z, Query(tokens))
  return scrambled(nn.unbox(shapes), 0.5), z, tokens


def field(variables, z, tokens):
  return np.asarray(head().apply(variables, z, Query(tokens), method='field'))


def test_a_channel_sees_z_and_the_channels_before_it():
  variables, z, tokens = made()
  base = field(variables, z, tokens)
  for i, channel in enumerate(ORDER):
    other = tokens.at[..., channel].set((tokens[..., channel] + 1) % LEVELS)
    moved = np.abs(field(variables, z, other) - base).max((0, 1, 3)) > 1e-4
    assert moved.tolist() == [False] * (i + 1) + [True] * (3 - i)
  moved = np.abs(field(variables, z + 0.5, tokens) - base).max((0, 1, 3))
  assert (moved > 1e-2).all()


def drawn(variables, z, choice, draw, guide=lambda x: x):
  return head().apply(variables, z, draw, guide, choice, None, method='sample')


def draw(numbers=(0, 1)):
  return Draw.create(0, jnp.asarray(numbers))


def test_the_first_slot_is_another_in_sampling():
  variables, z, _ = made()
  best = LogitsFilter(temperature=0.0)
  wanted = lambda variables, tokens: field(variables, z, tokens).argmax(-1)
  found = drawn(variables, z, best, draw())
  differ = wanted(variables, found) != np.asarray(found)[..., np.array(ORDER)]
  assert differ.any()
  # Without the vector of the first slot, sampling is what was trained.
  params = variables['params']
  slot = params['slot'].copy()
  slot[0] = 0
  variables = {'params': {**params, 'slot': slot}}
  found = drawn(variables, z, best, draw())
  np.testing.assert_array_equal(
    wanted(variables, found), np.asarray(found)[..., np.array(ORDER)]
  )


def test_two_halves_are_merged_at_every_channel():
  variables, z, _ = made()
  both = jnp.concatenate([z, z[::-1]])
  first = drawn(
    variables, both, LogitsFilter(), draw(), lambda x: jnp.split(x, 2)[0]
  )
  plain = drawn(variables, z, LogitsFilter(), draw())
  np.testing.assert_array_equal(first, plain)
  other = drawn(variables, z, LogitsFilter(), draw((2, 0)))
  assert (other[0] != plain[0]).any()


def test_an_order_of_other_channels():
  _, z, tokens = made()
  with pytest.raises(ValueError, match=r'config\.head\.order'):
    jax.eval_shape(
      functools.partial(head(order=(0, 1, 2, 2)).init, method='field'),
      jax.random.key(0),
      z,
      Query(tokens),
    )


def test_dropout_is_on_where_there_is_a_key():
  variables, z, tokens = made()
  net = head(dropout=0.5)
  plain = net.apply(variables, z, Query(tokens), method='field')
  np.testing.assert_allclose(plain, field(variables, z, tokens), atol=1e-6)
  rngs = {'dropout': jax.random.key(0)}
  dropped = net.apply(variables, z, Query(tokens), rngs=rngs, method='field')
  assert np.abs(plain - dropped).max() > 1e-2


def test_picked_draws_are_those_of_their_places():
  logits = jax.random.normal(jax.random.key(3), (BATCH, 6, LEVELS))
  whole = draw().categorical('choice', logits)
  place = jnp.array([[4, 0], [1, 5]])
  rows = jnp.arange(BATCH)[:, None]
  picked = Picked(draw(), place, 6).categorical('choice', logits[rows, place])
  np.testing.assert_array_equal(picked, whole[rows, place])
  recorded = Replay({'choice': np.asarray(whole)}, size=BATCH)
  again = Picked(recorded, place, 6).categorical('choice', logits[rows, place])
  np.testing.assert_array_equal(picked, again)


# --------------------------------------------------------------------- guidance


@pytest.mark.parametrize('name', ['llamagen/tiny:B', 'titok/tiny:S-128'])
def test_of_a_linear_head_both_sites_are_the_same(name):
  config = ALL[name]()
  model = assemble.make_model(config)
  params = scrambled(assemble.model_shapes(model))
  inputs = {'label': jnp.arange(BATCH)}
  sampler = dataclasses.replace(
    build(config.sampler, 'sampler'), guidance=Constant(9.0)
  )

  def tokens(**changes):
    own = dataclasses.replace(sampler, **changes)
    run = jax.jit(lambda p: sample(model, p, own, inputs, draw()).values)
    return np.asarray(run(params))

  np.testing.assert_array_equal(tokens(), tokens(site='hidden'))
  assert (tokens() != tokens(guidance=Constant(1.0))).any()


@pytest.mark.parametrize(
  ('name', 'site', 'said'),
  [
    ('tokenbridge/tiny', 'logits', "'field' or 'hidden'"),
    ('xar/tiny:cell', 'hidden', "Refine can guide 'field'"),
  ],
)
def test_a_site_that_is_not_there(name, site, said):
  config = ALL[name]()
  sampler = dataclasses.replace(build(config.sampler, 'sampler'), site=site)
  with pytest.raises(ConfigError, match=said):
    fit.check_sampler(assemble.make_model(config), sampler)


@pytest.mark.parametrize('key', ['levels', 'channels'])
def test_a_head_for_other_levels(key):
  config = ALL['tokenbridge/tiny']()
  model, tokenizer = (
    assemble.make_model(config),
    assemble.make_tokenizer(config),
  )
  with config.unlocked():
    config.head[key] = 3
  with pytest.raises(ConfigError, match=rf'config\.head\.{key}=3 but'):
    fit.check_tokenizer(config, model, tokenizer)
