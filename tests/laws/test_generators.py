"""The laws of the six parts, over the tiny configs of every paper."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.build import build
from arvision.configs.mar import parts as mar_parts
from arvision.model import BoundModel, sample
from arvision.process.logits import LogitsFilter
from arvision.process.masking import LikelyFirst, masked_counts
from arvision.random import Draw, Replay
from arvision.samplers.base import Filling, Known, over_all
from arvision.samplers.masked import Masked
from arvision.structs import Tokens
from arvision.tasks import assemble, fit
from tests.configs import ALL, TINY, VARIANTS
from tests.faults.lines import walk

BATCH = 2

# Laws hold of what is computed, however well: compiling takes a third less so.
jit = functools.partial(
  jax.jit,
  compiler_options={
    'xla_backend_optimization_level': 0,
    'xla_llvm_disable_expensive_passes': True,
  },
)


def scrambled(tree, std=0.2):
  """Parameters far from their start, so that nothing is hidden by zeros."""
  leaves, structure = jax.tree.flatten(tree)
  rng = np.random.default_rng(0)
  random = [rng.normal(0, std, x.shape).astype(np.float32) for x in leaves]
  return jax.tree.unflatten(structure, random)


class Case:
  """A tiny config with random weights and random tokens."""

  def __init__(self, config):
    self.config = config
    self.model = assemble.make_model(self.config)
    self.tokenizer = assemble.make_tokenizer(self.config)
    fit.check_tokenizer(self.config, self.model, self.tokenizer)
    self.layout, self.feed = self.model.layout, self.model.feed
    task = assemble.make_task(self.config, self.data)
    shapes = nn.unbox(jax.eval_shape(task.init, jax.random.key(0)).params)
    self.params = scrambled(shapes)
    image = jnp.zeros((1, *self.data.shape))
    shapes = jax.eval_shape(self.tokenizer.init, jax.random.key(0), image)
    self.frozen = scrambled(nn.unbox(shapes))
    self.tokens = self.some_tokens(1)
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

  def some_tokens(self, seed):
    """Codes or latents of a batch."""
    rng, spec = np.random.default_rng(seed), self.tokenizer.spec
    shape = (BATCH, *spec.shape)
    if spec.size:
      return rng.integers(0, spec.size, shape).astype(np.int32)
    return rng.normal(size=shape).astype(np.float32)

  def others(self, where):
    """The tokens, but others at some places (b or 1, t) or (b, t, parts)."""
    other = self.some_tokens(2)
    if self.tokens.dtype == np.int32:
      other = (self.tokens + 7) % self.tokenizer.spec.size
    where = where.reshape(*where.shape, *[1] * (self.tokens.ndim - where.ndim))
    return np.where(where, other, self.tokens)

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
  def z(self):
    """Jitted: tokens, inputs, draw -> (b, t, r, d)."""

    @jit
    def z(params, frozen, tokens, inputs, draw):
      return self.model.apply(
        {'params': params},
        Tokens(tokens),
        inputs,
        self.codec(frozen),
        draw=draw,
        method='teacher_forced',
      )[0]

    def call(tokens, inputs=None, draw=None):
      inputs = self.inputs if inputs is None else inputs
      return np.asarray(z(self.params, self.frozen, tokens, inputs, draw))

    return call

  @property
  def plain(self):
    """Draws of training at which a feed shows tokens as sampling does."""
    if self.feed.noisy_past:
      last = np.prod(self.layout.grids[-1])
      noise = np.zeros((BATCH, last, self.tokens.shape[-1]))
      return Replay({'noise': noise}, size=BATCH)
    if not self.feed.sees_own:
      return Draw.create(0, jnp.arange(BATCH))
    noise = np.ones((BATCH, self.layout.slots, self.tokens.shape[-1]))
    zero = -np.inf if self.feed.levels == 'logit_normal' else 0.0
    level = np.full((BATCH, self.layout.steps), zero)  # of its law, for 0
    return Replay({'noise': noise, 'level': level}, size=BATCH)

  @functools.cached_property
  def decoded(self):
    """z of the cached decode loop that is fed the true tokens."""

    @jit
    def decode(params, frozen, tokens):
      bound = BoundModel(self.model, {'params': params}, self.codec(frozen))
      state, cache = bound.start(BATCH), bound.empty_cache(BATCH)

      def advance(carry, step):
        state, cache = carry
        after = bound.push(state, step, tokens[:, step.tokens])
        slots = bound.feed_slots(after if self.feed.sees_own else state, step)
        cond = bound.condition(self.inputs, jnp.zeros(BATCH, bool), slots)
        two = self.layout.two_streams
        z, new = bound.read(slots, cond, cache, step.readout, commit=not two)
        shown = slots
        if two:
          shown = bound.feed_slots(after, step.clean)
          new = bound.read(shown, cond, cache, step.readout)[1]
        return (after, new), (z, slots.values, shown.values)

      out, carry = [], (state, cache)
      for run in self.layout.runs:
        if run.count == 1:
          carry, found = advance(carry, run.step(0))
          out.append([x[None] for x in found])
        else:
          carry, rows = jax.lax.scan(
            lambda c, i, run=run: advance(c, run.step(i, jnp)),
            carry,
            jnp.arange(run.count),
          )
          out.append(rows)
      return bound.finish(carry[0]).values, out

    finished, out = decode(self.params, self.frozen, self.tokens)
    shape = (self.layout.tokens, self.layout.branches, out[0][0].shape[-1])
    found = np.zeros((BATCH, *shape), np.float32)
    slots = {}
    for run, (z, *values) in zip(self.layout.runs, out):
      for i in range(run.count):
        real = run.tokens[i] >= 0
        found[:, run.tokens[i][real]] = z[i][:, real]
        for index, x in zip((run.index[i], run.shown[i]), values):
          slots.update(zip(index, np.asarray(x[i]).swapaxes(0, 1)))
    return np.asarray(finished), found, slots

  @functools.cached_property
  def draw(self):
    """Numbers of examples (b,), known tokens -> tokens."""
    sampler = build(self.config.sampler, 'sampler')
    tokenizer = sampler.tokenizer(self.tokenizer)

    @jit
    def draw(params, frozen, index, inputs, known):
      keys, codec = Draw.create(0, index), tokenizer.bind(frozen)
      return sample(self.model, params, sampler, inputs, keys, codec, known)

    def call(numbers, known=None):
      inputs = self.some_inputs(numbers)
      tokens = draw(self.params, self.frozen, numbers, inputs, known)
      return np.asarray(tokens.values)

    return call

  @functools.cached_property
  def image(self):
    """Tokens -> image in 8 bits."""

    @jit
    def image(frozen, tokens):
      return self.codec(frozen).decode(Tokens(tokens))

    def call(tokens):
      return np.asarray((image(self.frozen, tokens) + 1) * 127.5).round()

    return call


@functools.cache
def case(name):
  return Case(TINY[name]())


SAMPLERS = {n: build(make().sampler, 'sampler') for n, make in TINY.items()}
FILLED = [n for n, sampler in SAMPLERS.items() if isinstance(sampler, Filling)]
# Those that refine entities have laws of their own, in test_remask.
CAUSAL = [n for n, sampler in SAMPLERS.items() if not sampler.fills]
QUICK = TINY.keys() - VARIANTS


def pairs(part, other):
  """One config of every pair of two parts, no variant where there is another."""
  found = {}
  for name in sorted(TINY, key=VARIANTS.__contains__):
    config = TINY[name]()
    found.setdefault((config[part].type, config[other].type), name)
  return list(found.values())


def slowly(names, quick=QUICK):
  """The names, of which those that are not quick are slow tests."""
  return [
    name if name in quick else pytest.param(name, marks=pytest.mark.slow)
    for name in names
  ]


PAIRS = pairs('feed', 'head')
SAMPLING = pairs('sampler', 'head')
# Those that keep the tokens that they are most sure of.
CONFIDENT = [
  n for n, sampler in SAMPLERS.items() if isinstance(sampler, Masked)
]


def part_types(name):
  """The types of all parts of a tiny config."""
  fields = walk(TINY[name]().copy_and_resolve_references())
  return {x for key, x in fields.items() if key.endswith('type')}


def test_every_part_has_laws_that_are_not_slow():
  quick = set().union(*map(part_types, QUICK))
  assert quick
  for name in TINY.keys() & VARIANTS:
    assert part_types(name) <= quick, name


class Logged:
  """A `Draw` that notes every key that it uses.

  Attributes:
    log: of every draw what was folded in, numbers or tracers, and its name.
  """

  methods = (
    'normal',
    'uniform',
    'gumbel',
    'exponential',
    'categorical',
    'permutation',
    'key',
  )

  def __init__(self, draw, log, folds=()):
    self._draw, self.log, self._folds = draw, log, folds

  def fold(self, i):
    i = i if isinstance(i, jax.core.Tracer) else int(i)
    return Logged(self._draw.fold(i), self.log, (*self._folds, i))

  def replace(self, **changes):
    return Logged(self._draw.replace(**changes), self.log, self._folds)

  def __getattr__(self, name):
    found = getattr(self._draw, name)
    if name not in self.methods:
      return found

    def drawn(what, *args):
      self.log.append((*self._folds, what))
      return found(what, *args)

    return drawn

  def check(self):
    """Asserts that no key was used twice."""
    # The log holds the tracers, so no two of them have the same id.
    names = lambda used: [
      x if isinstance(x, int | str) else id(x) for x in used
    ]
    keys = [tuple(names(used)) for used in self.log]
    assert keys
    assert len(set(keys)) == len(keys), self.log


@pytest.fixture(params=slowly(TINY))
def law(request):
  return case(request.param)


@pytest.fixture(params=slowly(TINY, SAMPLING))
def sampled(request):
  """A law of a sampler and a head."""
  return case(request.param)


@pytest.fixture(params=slowly(CAUSAL))
def causal(request):
  """A law of models that draw one entity after another."""
  return case(request.param)


@pytest.fixture(params=slowly(FILLED))
def masked(request):
  """A law of models that fill masked tokens."""
  return case(request.param)


def test_causality(causal):
  """Tokens of this step and later change nothing; earlier ones do.

  Feeds that show an entity something of its own: of later ones.
  """
  base = causal.z(causal.tokens)
  entity, steps = causal.layout.entity_of_token, causal.layout.steps
  first_seen = steps == 1
  for s in sorted({1, steps // 2, steps - 1}):
    unseen = entity >= s + causal.feed.sees_own
    changed = causal.z(causal.others(unseen[None]))
    np.testing.assert_allclose(
      changed[:, entity <= s], base[:, entity <= s], atol=1e-4
    )
    after = entity > s
    if after.any():
      first_seen += np.abs(changed[:, after] - base[:, after]).max() > 1e-2
  assert first_seen


def test_the_condition_is_seen_everywhere(law):
  base = law.z(law.tokens)
  classes = law.config.condition.get('classes', 2)
  assert classes > 1, 'unconditional configs want a law of their own'
  other = law.z(law.tokens, law.some_inputs(np.arange(BATCH) + 1))
  assert (np.abs(other - base).max(axis=(0, 2, 3)) > 1e-4).all()


def test_feed_trains_on_what_it_samples_with(causal):
  slots = jit(
    lambda frozen, tokens: (
      causal.feed.train(
        Tokens(tokens),
        causal.layout,
        causal.codec(frozen),
        causal.plain,
      )[0].values
    )
  )(causal.frozen, causal.tokens)
  _, _, unrolled = causal.decoded
  assert len(unrolled) == causal.layout.slots
  for i, values in unrolled.items():
    np.testing.assert_allclose(slots[:, i], values, atol=1e-4)


def test_cached_decoding_equals_the_masked_pass(causal):
  _, z, _ = causal.decoded
  masked = causal.z(causal.tokens, draw=causal.plain)
  np.testing.assert_allclose(z, masked, atol=1e-4)


def test_halves_of_different_sizes_share_a_cache_of_two_shapes():
  config = ALL['flowar/tiny:S']()
  with config.unlocked():
    mar_parts.second_half(config, width=24, heads=3, hidden=20)
  law = Case(config)
  first, second = law.model.backbone.empty_cache(BATCH, law.layout)
  assert first[0].k.shape[1:] != second[0].k.shape[1:]
  test_cached_decoding_equals_the_masked_pass(law)


def test_hidden_tokens_are_not_seen(masked):
  """Masked tokens change no output; every unmasked one changes all.

  Of several entities: those of later ones are masked, those of earlier ones are
  seen by way of hidden states, if at all.
  """
  parts = masked.tokens.shape[: 3 if masked.feed.masks_parts else 2]
  random = np.random.default_rng(2).random(parts) < 0.5
  entity = masked.layout.entity_of_token
  for run in masked.layout.runs:
    step = run.step(0)
    here = random[:, step.tokens]
    here[:, 0], here[:, 1] = True, False  # one of each at least
    mask = np.asarray(over_all(here, step, masked.layout.tokens))

    @jit
    def read(params, tokens, step=step, mask=mask):
      codec = masked.codec(masked.frozen)
      bound = BoundModel(masked.model, {'params': params}, codec)
      slots = bound.feed_slots(tokens, step, mask)
      cond = bound.condition(masked.inputs, jnp.zeros(BATCH, bool))
      cache = None
      if masked.layout.steps > 1:
        cache = bound.empty_cache(BATCH)
      return bound.read(slots, cond, cache, step.readout, False)[0]

    own = entity == step.s
    later = np.broadcast_to(entity > step.s, mask.shape[:2])
    later = later.reshape(*later.shape, *[1] * (mask.ndim - 2))
    base = read(masked.params, masked.tokens)
    behind = read(masked.params, masked.others(mask | later))
    np.testing.assert_array_equal(base, behind)
    shown = ~mask & own.reshape(-1, *[1] * (mask.ndim - 2))
    unmasked = read(masked.params, masked.others(shown))
    assert (np.abs(unmasked - base).max((2, 3)) > 1e-4).all()


def filled(masked, sampler, known=None):
  """The tokens, and for every entity the input and the mask of every step."""

  @jit
  def run(params):
    codec = masked.codec(masked.frozen)
    bound = BoundModel(masked.model, {'params': params}, codec)
    draw = Draw.create(0, jnp.arange(BATCH))
    return sampler.loop(bound, masked.inputs, draw, BATCH, known)

  return jax.device_get(run(masked.params))


def test_kept_tokens_never_change(masked):
  sampler = build(masked.config.sampler, 'sampler')
  tokens, traces = filled(masked, sampler)
  entity = masked.layout.entity_of_token
  assert len(traces) == masked.layout.steps
  for s, (inputs, mask) in enumerate(traces):
    states = [x[:, entity == s] for x in (*inputs, tokens.values)]
    mask = mask[:, :, entity == s]
    assert mask[0].all()
    for before, after, hidden in zip(states, states[1:], mask):
      np.testing.assert_array_equal(before[~hidden], after[~hidden])
    each = sampler.together if isinstance(sampler, Masked) else 1
    groups = mask[0, 0].size // each
    wanted = masked_counts(sampler.schedule, len(mask), groups)
    for hidden, count in zip(mask[1:], wanted):
      together = hidden.reshape(BATCH, groups, each)
      assert (together.all(-1) == together.any(-1)).all()
      assert (together.any(-1).sum(1) == count).all()
  if np.issubdtype(tokens.values.dtype, np.integer):
    assert (tokens.values >= 0).all()


@pytest.mark.parametrize('name', CONFIDENT)
def test_equally_sure_tokens_are_kept_as_scheduled(name):
  """With one id left of each token, log p is 0 everywhere."""
  masked = case(name)
  sampler = dataclasses.replace(
    build(masked.config.sampler, 'sampler'),
    logits_filter=LogitsFilter(temperature=0.0, top_k=1),
    policy=LikelyFirst(4.5),
    steps=4,
  )
  tokens = masked.some_tokens(3)
  each = sampler.together
  known = np.zeros((BATCH, tokens.shape[1] // each), bool)
  known[1, ::3] = True
  known = np.repeat(known, each, axis=1)
  found, [(_, mask)] = filled(masked, sampler, Known(tokens, known))
  for row, keep in enumerate(known):
    total = int((~keep).sum()) * tokens[0, 0].size // each
    wanted = [total, *masked_counts(sampler.schedule, 4, total)[:-1]]
    counts = mask[:, row].reshape(len(mask), -1).sum(1) // each
    assert counts.tolist() == wanted
  np.testing.assert_array_equal(found.values[known], tokens[known])


@pytest.mark.parametrize('name', PAIRS)
def test_draws_of_a_step_share_no_key(name):
  law = case(name)
  draw = Logged(Draw.create(0, jnp.arange(BATCH)), [])

  def loss(params, frozen, tokens):
    codec = law.codec(frozen)
    args = Tokens(tokens), law.inputs, draw, codec
    rngs = {'dropout': jax.random.key(0)}
    return law.model.apply(
      {'params': params}, *args, rngs=rngs, method='losses'
    )

  jax.eval_shape(loss, law.params, law.frozen, law.tokens)
  draw.check()


@pytest.mark.parametrize('name', SAMPLING)
def test_draws_of_sampling_share_no_key(name):
  law, sampler = case(name), SAMPLERS[name]
  tokenizer = sampler.tokenizer(law.tokenizer)
  draw = Logged(Draw.create(0, jnp.arange(BATCH)), [])

  def tokens(params, frozen):
    codec = tokenizer.bind(frozen)
    return sample(law.model, params, sampler, law.inputs, draw, codec).values

  jax.eval_shape(tokens, law.params, law.frozen)
  draw.check()


def test_readout_is_the_step_that_samples(law):
  layout = law.layout
  assert (layout.readout >= 0).any(1).all()
  there = layout.readout >= 0
  entity = np.where(there, layout.entity[layout.readout], -1)
  same = entity == layout.entity_of_token[:, None]
  assert same[there].all()


def test_finish_returns_what_was_pushed(causal):
  finished, _, _ = causal.decoded
  np.testing.assert_array_equal(finished, causal.tokens)
  order, unorder = causal.layout.order, causal.layout.unorder
  np.testing.assert_array_equal(
    causal.tokens[:, order][:, unorder], causal.tokens
  )


def test_sampling_depends_on_seed_and_example_alone(law):
  tokens = law.draw(np.array([0, 1]))
  np.testing.assert_array_equal(tokens, law.draw(np.array([0, 1])))
  # The same example beside another one, and in another row.
  other = law.draw(np.array([2, 0]))
  np.testing.assert_array_equal(tokens[0], other[1])
  image, beside = law.image(tokens), law.image(other)
  np.testing.assert_array_equal(image, law.image(tokens))
  np.testing.assert_array_equal(image[0], beside[1])
  assert (tokens[0] != tokens[1]).any()


def test_known_tokens_stay(sampled):
  """All known: nothing is sampled. None: ordinary sampling. Some: they stay."""
  law, numbers = sampled, np.array([0, 1])
  drawn = law.draw(numbers)
  tokens = law.some_tokens(3)[:, : drawn.shape[1]]
  everywhere = np.ones(tokens.shape[:2], bool)
  np.testing.assert_array_equal(
    law.draw(numbers, Known(tokens, everywhere)), tokens
  )
  none = law.draw(numbers, Known(tokens, ~everywhere))
  # Latents come from another program, which may round otherwise.
  codes = np.issubdtype(drawn.dtype, np.integer)
  limit = 0 if codes else 1e-5 * np.abs(drawn).max()
  np.testing.assert_allclose(none, drawn, rtol=0, atol=limit)
  some = np.random.default_rng(4).random(everywhere.shape) < 0.5
  mixed = law.draw(numbers, Known(tokens, some))
  np.testing.assert_array_equal(mixed[some], tokens[some])
  assert (mixed[~some] != tokens[~some]).any()
