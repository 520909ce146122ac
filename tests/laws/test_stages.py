"""Layouts in stages: what a stage knows of others, through the whole network."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.build import build
from arvision.errors import ConfigError
from arvision.model import BoundModel
from arvision.random import Draw, Replay
from arvision.samplers.base import over_all
from arvision.structs import Tokens
from arvision.tasks import assemble, fit
from tests.configs import TINY
from tests.laws.test_generators import BATCH, SAMPLERS, case, jit

NAME = 'himar/tiny'
PIVOTS = 4
# The second example is not shown hidden states.
RECALL = np.array([0.0, 0.9], np.float32)


@pytest.fixture(scope='module')
def law():
  return case(NAME)


@pytest.fixture(scope='module')
def draw(law):
  """Draws of training that mask 3 of 4 pivots and 6 of 16 dense tokens."""
  feed = law.feed
  assert feed.first.least(PIVOTS) == 3
  rng = np.random.default_rng(3)
  orders = [
    np.stack([rng.permutation(n) for _ in range(BATCH)]) for n in (PIVOTS, 16)
  ]
  share = np.arccos(5.5 / 16) / (np.pi / 2)
  arrays = {
    'share': (np.zeros(BATCH, np.float32), np.full(BATCH, share, np.float32)),
    'order': tuple(orders),
    'recall': RECALL,
  }
  return Replay(arrays, size=BATCH)


def trained(law, draw):
  """Masked slots (b, n), and weights and denominators (b, t), of training."""

  @jit
  def train(tokens):
    slots, targets = law.feed.train(Tokens(tokens), law.layout, None, draw)
    return slots.masked, targets.weight, targets.denominator

  return [np.asarray(x) for x in train(law.tokens)]


@pytest.fixture(scope='module')
def masks(law, draw):
  """(b, t) bool of both stages, each of its own tokens."""
  masked = trained(law, draw)[0][:, law.layout.readout[:, 0]]
  assert masked[:, :PIVOTS].sum(1).tolist() == [3, 3]
  assert masked[:, PIVOTS:].sum(1).tolist() == [6, 6]
  return masked


def seen(law, draw):
  """(b, t, t) bool: which token's z depends on which token."""

  def z(tokens):
    found = law.model.apply(
      {'params': law.params},
      Tokens(tokens),
      law.inputs,
      None,
      draw=draw,
      method='teacher_forced',
    )[0]
    # Examples do not mix, so the sum over them loses nothing; nor does a random
    # projection.
    return found[:, :, 0].sum(0) @ random

  random = np.random.default_rng(4).normal(size=(law.config.backbone.width, 2))
  found = jit(jax.jacrev(z))(jnp.asarray(law.tokens))
  return np.abs(np.asarray(found)).max((1, 4)).swapaxes(0, 1) > 1e-9


def expected(masks, through_pivots):
  """The same, by the layout: `through_pivots` (b,) bool."""
  shown = ~masks
  wanted = np.zeros((BATCH, masks.shape[1], masks.shape[1]), bool)
  wanted[:, :PIVOTS, :PIVOTS] = shown[:, None, :PIVOTS]
  wanted[:, PIVOTS:, PIVOTS:] = shown[:, None, PIVOTS:]
  through = shown[:, :PIVOTS] & through_pivots[:, None]
  wanted[:, PIVOTS:, :PIVOTS] = through[:, None]
  return wanted


def test_masked_tokens_leak_into_no_stage(law, draw, masks, monkeypatch):
  """With hidden states that carry a gradient, which shows all dependences."""
  monkeypatch.setattr(jax.lax, 'stop_gradient', lambda x: x)
  wanted = expected(masks, np.array([True, False]))
  np.testing.assert_array_equal(seen(law, draw), wanted)


def test_hidden_states_carry_no_gradient(law, draw, masks):
  wanted = expected(masks, np.array([False, False]))
  np.testing.assert_array_equal(seen(law, draw), wanted)


def test_stage_by_stage_equals_one_pass(law, draw, masks):
  arrays = {**draw.arrays, 'recall': np.zeros(BATCH, np.float32)}
  whole = law.z(law.tokens, draw=dataclasses.replace(draw, arrays=arrays))

  @jit
  def staged(params):
    bound = BoundModel(law.model, {'params': params})
    cache, found = bound.empty_cache(BATCH), []
    cond = bound.condition(law.inputs, jnp.zeros(BATCH, bool))
    for run in law.layout.runs:
      step = run.step(0)
      mask = over_all(masks[:, step.tokens], step, law.layout.tokens)
      slots = bound.feed_slots(law.tokens, step, mask)
      z, cache = bound.read(slots, cond, cache, step.readout)
      found.append(z)
    return jnp.concatenate(found, 1)

  np.testing.assert_allclose(staged(law.params), whole, atol=1e-4)


def test_a_hidden_state_is_that_of_the_last_pass_that_masked_its_token(law):
  step = law.layout.runs[0].step(0)

  @jit
  def passes(params):
    bound = BoundModel(law.model, {'params': params})
    cache = bound.empty_cache(BATCH)
    cond = bound.condition(law.inputs, jnp.zeros(BATCH, bool))
    zs = []
    for masked in (4, 2, 1):
      here = jnp.tile(jnp.arange(PIVOTS) < masked, (BATCH, 1))
      mask = over_all(here, step, law.layout.tokens)
      slots = bound.feed_slots(law.tokens, step, mask)
      z, cache = bound.read(slots, cond, cache, step.readout)
      zs.append(z[:, :, 0])
    return zs, cache

  zs, cache = passes(law.params)
  wanted = np.concatenate([zs[2][:, :1], zs[1][:, 1:2], zs[0][:, 2:]], 1)
  np.testing.assert_array_equal(cache.values, wanted)
  assert np.asarray(cache.known).all()


def test_the_loss_weighs_both_stages_as_published(law, draw, masks):
  _, weight, denominator = trained(law, draw)
  wanted = np.where(masks, 1.0, 0.0)
  wanted[:, :PIVOTS] *= 0.4 / 3  # a mean over masked pivots
  wanted[:, PIVOTS:] *= 0.6 / 16  # over all dense tokens
  np.testing.assert_allclose(weight, wanted, rtol=1e-6)
  np.testing.assert_allclose(np.sum(denominator, 1), 1, rtol=1e-5)


def test_hidden_states_are_shown_to_more_and_more_examples(law):
  feed = dataclasses.replace(law.feed, recall=0.5, warmup=0.25)
  count = 1000

  @jit
  def recalled(progress):
    draw = Draw.create(1, jnp.arange(count)).replace(progress=progress)
    tokens = Tokens(jnp.zeros((count, *law.tokens.shape[1:])))
    return feed.train(tokens, law.layout, None, draw)[0].recall

  def share(progress):
    shown = np.asarray(recalled(progress))
    assert not shown[:, law.layout.entity == 0].any()
    return shown.any(1).mean()

  assert share(0.0) == 0
  assert abs(share(0.125) - 0.25) < 0.06
  assert abs(share(0.25) - 0.5) < 0.06 > abs(share(1.0) - 0.5)


def test_one_scale_of_guidance_sets_both_stages():
  sampler = SAMPLERS[NAME]
  assert sampler.guided and not sampler.guided_to(1.0).guided
  scaled = sampler.guided_to(3.0)
  assert scaled.guidance.end == scaled.first_guidance.end == 3.0
  alone = dataclasses.replace(
    sampler.guided_to(1.0), first_guidance=scaled.first_guidance
  )
  assert alone.guided


@pytest.mark.parametrize(
  ('name', 'sampler', 'wanted'),
  [
    (NAME, 'samplers.random_order.RandomOrder', 'samplers.stages.Stages'),
    ('mar/tiny:B', 'samplers.random_order.Joint', 'others with RandomOrder'),
  ],
)
def test_samplers_of_other_models_are_refused(name, sampler, wanted):
  config = TINY[name]()
  part = build(
    {'type': sampler, 'guidance': config.sampler.guidance}, 'sampler'
  )
  model = assemble.make_model(config)
  with pytest.raises(ConfigError, match=wanted):
    fit.check_sampler(model, part, 4)
