"""The laws of the six parts, over every generator config, shrunk."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.build import build
from arvision.configs.common import shrink
from arvision.model import BoundModel, sample
from arvision.process.masking import hidden_counts
from arvision.structs import Draw, Tokens
from arvision.tasks import assemble
from tests.configs import GENERATORS
from tests.laws.groups import GROUPS

BATCH = 2


def scrambled(tree, std=0.2):
  """Parameters far from their start, so that nothing is hidden by zeros."""
  leaves, structure = jax.tree.flatten(tree)
  rng = np.random.default_rng(0)
  random = [rng.normal(0, std, x.shape).astype(np.float32) for x in leaves]
  return jax.tree.unflatten(structure, random)


class Case:
  """One config, shrunk, with random weights and random tokens."""

  def __init__(self, config):
    self.config = shrink(config)
    self.model = assemble.make_model(self.config)
    self.tokenizer = assemble.make_tokenizer(self.config)
    assemble.check_fit(self.config, self.model, self.tokenizer)
    self.layout, self.feed = self.model.layout, self.model.feed
    task = assemble.make_task(self.config, self.data)
    shapes = nn.unbox(jax.eval_shape(task.init, jax.random.key(0)).params)
    self.params = scrambled(shapes)
    image = jnp.zeros((1, *self.data.shape))
    shapes = jax.eval_shape(self.tokenizer.init, jax.random.key(0), image)
    self.frozen = scrambled(nn.unbox(shapes))
    rng = np.random.default_rng(1)
    vocab = self.tokenizer.spec.size
    shape = (BATCH, self.layout.tokens)
    self.codes = rng.integers(0, vocab, shape).astype(np.int32)
    self.inputs = self.some_inputs(np.arange(BATCH))

  @functools.cached_property
  def data(self):
    @dataclasses.dataclass
    class Shape:
      shape: tuple
      classes: tuple
      num_classes: int
      examples: int = 100
      text: object = None

    config = self.config
    shape = (*config.data.size, config.data.channels)
    text = config.data.get('text')
    text = text and build(text, 'data.text')
    return Shape(shape, (), config.condition.get('classes', 0), text=text)

  def some_inputs(self, numbers):
    """Inputs of the condition that differ between numbers."""
    blank = self.model.condition.blank(len(numbers))
    if 'label' in blank:
      label = numbers % max(self.config.condition.classes, 1)
      return {'label': jnp.asarray(label, jnp.int32)}
    shape = blank['text'].shape[1:]
    text = [np.random.default_rng(i).normal(size=shape) for i in numbers]
    padding = np.arange(shape[0]) < (numbers % 3)[:, None]
    return {'text': jnp.float32(np.stack(text)), 'text_valid': ~padding}

  def codec(self, frozen):
    return self.tokenizer.bind(frozen)

  @functools.cached_property
  def logits(self):
    """Jitted: codes -> (b, t, v)."""

    @jax.jit
    def logits(params, frozen, codes):
      return self.model.apply(
        {'params': params},
        Tokens(codes),
        self.inputs,
        self.codec(frozen),
        method='logits',
      )

    return lambda codes: np.asarray(logits(self.params, self.frozen, codes))

  @functools.cached_property
  def decoded(self):
    """Logits of the cached decode loop that is fed the true tokens."""

    @jax.jit
    def decode(params, frozen, codes):
      bound = BoundModel(self.model, {'params': params}, self.codec(frozen))
      cond = bound.condition(self.inputs, jnp.zeros(BATCH, bool))
      state, cache = bound.start(BATCH), bound.empty_cache(BATCH)

      def advance(carry, step):
        state, cache = carry
        slots = bound.feed_slots(state, step)
        z, cache = bound.read(slots, cond, cache, step.readout)
        carry = bound.push(state, step, codes[:, step.tokens]), cache
        return carry, (bound.field(z, slots), slots.values)

      out, carry = [], (state, cache)
      for run in self.layout.runs:
        if run.count == 1:
          carry, (field, values) = advance(carry, run.step(0))
          out.append((field[None], values[None]))
        else:
          carry, rows = jax.lax.scan(
            lambda c, i, run=run: advance(c, run.step(i, jnp)),
            carry,
            jnp.arange(run.count),
          )
          out.append(rows)
      return bound.finish(carry[0]).values, out

    finished, out = decode(self.params, self.frozen, self.codes)
    fields = np.zeros(
      (BATCH, self.layout.tokens, self.tokenizer.spec.size), np.float32
    )
    slots = {}
    for run, (field, values) in zip(self.layout.runs, out):
      for i in range(run.count):
        real = run.tokens[i] >= 0
        fields[:, run.tokens[i][real]] = field[i][:, real]
        slots.update(zip(run.index[i], np.asarray(values[i]).swapaxes(0, 1)))
    return np.asarray(finished), fields, slots


@functools.cache
def case(name):
  return Case(GENERATORS[name]())


def _drawn_by(sampler):
  """Groups of configs whose sampler this is."""
  return [
    names
    for names in GROUPS.values()
    if GENERATORS[names[0]]().sampler.type == sampler
  ]


ENTITIES = _drawn_by('samplers.entity.EntityAR')
MASKED = _drawn_by('samplers.masked.Masked')


@pytest.fixture(params=GROUPS.values(), ids=', '.join)
def law(request):
  return case(request.param[0])


@pytest.fixture(params=ENTITIES, ids=', '.join)
def causal(request):
  """A law of models that draw one entity after another."""
  return case(request.param[0])


@pytest.fixture(params=MASKED, ids=', '.join)
def masked(request):
  """A law of models that fill holes."""
  return case(request.param[0])


def test_every_config_is_in_a_group():
  names = [name for names in GROUPS.values() for name in names]
  assert sorted(names) == sorted(GENERATORS)
  assert len(ENTITIES) + len(MASKED) == len(GROUPS)


def test_causality(causal):
  """Tokens of this step and later change nothing; earlier ones do."""
  base = causal.logits(causal.codes)
  entity = causal.layout.entity_of_token
  first_seen = 0
  for s in sorted({1, causal.layout.steps // 2, causal.layout.steps - 1}):
    later = entity >= s
    codes = np.where(
      later, (causal.codes + 7) % causal.tokenizer.spec.size, causal.codes
    )
    changed = causal.logits(codes)
    np.testing.assert_allclose(
      changed[:, entity <= s], base[:, entity <= s], atol=1e-4
    )
    after = entity > s
    if after.any():
      first_seen += np.abs(changed[:, after] - base[:, after]).max() > 1e-2
  assert first_seen


def test_the_condition_is_seen_everywhere(law):
  base = law.logits(law.codes)
  classes = law.config.condition.get('classes', 2)
  assert classes > 1, 'unconditional configs want a law of their own'
  other = law.some_inputs(np.arange(BATCH) + 1)
  logits = law.model.apply(
    {'params': law.params},
    Tokens(law.codes),
    other,
    law.codec(law.frozen),
    method='logits',
  )
  assert (np.abs(logits - base).max(axis=(0, 2)) > 1e-4).all()


def test_feed_trains_on_what_it_samples_with(causal):
  slots = jax.jit(
    lambda frozen, codes: (
      causal.feed.train(
        Tokens(codes),
        causal.layout,
        causal.codec(frozen),
        Draw.create(0, jnp.arange(BATCH)),
      ).values
    )
  )(causal.frozen, causal.codes)
  _, _, unrolled = causal.decoded
  assert len(unrolled) == causal.layout.slots
  for i, values in unrolled.items():
    np.testing.assert_allclose(slots[:, i], values, atol=1e-4)


def test_cached_decoding_equals_the_masked_pass(causal):
  _, fields, _ = causal.decoded
  np.testing.assert_allclose(fields, causal.logits(causal.codes), atol=1e-4)


def test_hidden_tokens_are_not_seen(masked):
  """What is behind a hole changes nothing; what is shown changes all."""
  hole = np.random.default_rng(2).random(masked.codes.shape) < 0.5
  hole[:, :2] = [True, False]  # one of each at least

  @jax.jit
  def logits(params, codes):
    bound = BoundModel(masked.model, {'params': params})
    slots = bound.shown(codes, hole)
    cond = bound.condition(masked.inputs, jnp.zeros(BATCH, bool))
    z, _ = bound.read(slots, cond, None, masked.layout.readout)
    return bound.field(z, slots)

  other = (masked.codes + 7) % masked.tokenizer.spec.size
  base = logits(masked.params, masked.codes)
  behind = logits(masked.params, np.where(hole, other, masked.codes))
  np.testing.assert_array_equal(base, behind)
  shown = logits(masked.params, np.where(hole, masked.codes, other))
  assert (np.abs(shown - base).max(-1) > 1e-4).all()


def test_kept_tokens_never_change(masked):
  sampler = build(masked.config.sampler, 'sampler')
  layout = masked.layout

  @jax.jit
  def run(params):
    bound = BoundModel(masked.model, {'params': params})
    draw = Draw.create(0, jnp.arange(BATCH))
    return sampler.run(bound, masked.inputs, draw, BATCH)

  tokens, shown = run(masked.params)
  states = [*np.asarray(shown), np.asarray(tokens.values)]
  assert (states[0] == -1).all()
  assert (states[-1] >= 0).all()
  for before, after in zip(states, states[1:]):
    kept = before >= 0
    np.testing.assert_array_equal(before[kept], after[kept])
  hidden = [(state == -1).sum(1) for state in states[1:]]
  wanted = hidden_counts(sampler.schedule, sampler.steps, layout.tokens)
  np.testing.assert_array_equal(hidden, np.repeat(wanted, BATCH).reshape(-1, 2))


def test_readout_is_the_step_that_samples(law):
  layout = law.layout
  assert (layout.readout >= 0).any(1).all()
  there = layout.readout >= 0
  entity = np.where(there, layout.entity[layout.readout], -1)
  same = entity == layout.entity_of_token[:, None]
  assert same[there].all()


def test_finish_returns_what_was_pushed(causal):
  finished, _, _ = causal.decoded
  np.testing.assert_array_equal(finished, causal.codes)
  order, unorder = causal.layout.order, causal.layout.unorder
  np.testing.assert_array_equal(
    causal.codes[:, order][:, unorder], causal.codes
  )


def test_sampling_depends_on_seed_and_example_alone(law):
  sampler = build(law.config.sampler, 'sampler')

  @jax.jit
  def draw(params, frozen, index, inputs):
    tokens = sample(
      law.model,
      params,
      sampler,
      inputs,
      Draw.create(0, index),
      law.codec(frozen),
    )
    return tokens.values, law.codec(frozen).decode(tokens)

  index = np.arange(4)

  def pixels(rows):
    codes, image = draw(law.params, law.frozen, rows, law.some_inputs(rows))
    return np.asarray(codes), np.asarray((image + 1) * 127.5).round()

  codes, image = pixels(index)
  again = pixels(index)
  np.testing.assert_array_equal(codes, again[0])
  np.testing.assert_array_equal(image, again[1])
  halves = [pixels(index[:2]), pixels(index[2:])]
  np.testing.assert_array_equal(codes, np.concatenate([h[0] for h in halves]))
  np.testing.assert_array_equal(image, np.concatenate([h[1] for h in halves]))
  assert (codes[0] != codes[1]).any()
