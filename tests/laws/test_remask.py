"""Laws of models that sample an entity at once and refine it (HMAR)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from arvision.build import build
from arvision.model import BoundModel, sample
from arvision.random import Draw
from arvision.samplers.base import Known
from arvision.structs import Tokens
from tests.laws.test_generators import BATCH, case, jit

REFINED, PLAIN = 'hmar/tiny', 'hmar/tiny:nsp'


def sampler_of(law, sampler):
  """Known tokens -> tokens, and the masks of further passes of every entity."""

  @jit
  def run(params, frozen, known):
    bound = BoundModel(law.model, {'params': params}, law.codec(frozen))
    draw = Draw.create(0, jnp.arange(BATCH))
    tokens, masks = sampler.loop(bound, law.inputs, draw, BATCH, known)
    return tokens.values, masks

  return lambda known: jax.device_get(run(law.params, law.frozen, known))


def shared(params, shapes):
  """The parameters of a tree that another one has too."""
  if not isinstance(shapes, dict):
    return params
  return {name: shared(params[name], some) for name, some in shapes.items()}


def test_without_further_passes_it_is_next_scale_prediction():
  law, plain = case(REFINED), case(PLAIN)
  own = build(law.config.sampler, 'sampler')
  once = dataclasses.replace(own, passes=())
  tokens, masks = sampler_of(law, once)(None)
  assert not jax.tree.leaves(masks)
  sampler = build(plain.config.sampler, 'sampler')
  draw = Draw.create(0, jnp.arange(BATCH))
  wanted = jit(
    lambda params, frozen: (
      sample(
        plain.model, params, sampler, law.inputs, draw, law.codec(frozen)
      ).values
    )
  )(shared(law.params, plain.params), law.frozen)
  np.testing.assert_array_equal(tokens, wanted)


def test_a_pass_masks_as_scheduled_and_keeps_the_rest():
  law = case(REFINED)
  sampler = build(law.config.sampler, 'sampler')
  run = sampler_of(law, sampler)
  none = np.zeros((BATCH, law.layout.tokens), bool)
  some = none.copy()
  some[1, 5:13] = True  # all but one of the third scale
  for keep in (none, some):
    tokens, masks = run(Known(law.tokens, keep))
    np.testing.assert_array_equal(tokens[keep], law.tokens[keep])
    for s, own in enumerate(masks):
      here = law.layout.entity_of_token == s
      free = ~keep[:, here]
      last = free
      passes = sampler.passes[s]
      assert len(own) == len(passes) - 1
      for i, masked in enumerate(own):
        assert (masked <= last).all()  # what was kept once stays
        count = np.minimum(sum(passes[i + 1 :]), free.sum(1))
        np.testing.assert_array_equal(masked.sum(1), count)
        last = masked


class Apart:
  """A codec in which tokens of a scale do not blur into one another."""

  def __init__(self, law):
    self.scale = law.layout.entity_of_token
    channels = law.tokenizer.spec.channels
    rng, size = np.random.default_rng(0), law.tokenizer.spec.size
    self.spec = law.tokenizer.spec
    self.table = jnp.asarray(rng.normal(size=(size, channels)), jnp.float32)

  def canvas(self, batch):
    return jnp.zeros((batch, len(self.scale), self.table.shape[1]))

  def merge(self, canvas, codes, s):
    return canvas.at[:, self.scale == s].set(self.table[codes])

  def view(self, canvas, s):
    smaller = canvas[:, self.scale < s].sum(1, keepdims=True)
    return canvas[:, self.scale == s] + smaller


def test_a_pass_sees_what_is_not_masked_alone():
  """Of its own scale; of smaller ones everything, of larger ones nothing."""
  law, s = case(REFINED), 2
  scale, step = law.layout.entity_of_token, law.layout.runs[s].step(0)
  mask = np.random.default_rng(0).random(scale.shape) < 0.5
  at = np.flatnonzero(scale == s)
  mask[at[0]], mask[at[1]] = True, False

  @jit
  def read(params, tokens):
    bound = BoundModel(law.model, {'params': params}, Apart(law))
    state = bound.start(BATCH)
    for run in law.layout.runs[: s + 1]:
      own = run.step(0)
      state = bound.push(state, own, tokens[:, own.tokens])
    masked = jnp.broadcast_to(mask, (BATCH, len(mask)))
    slots = bound.feed_slots(state, step, masked)
    cond = bound.condition(law.inputs, jnp.zeros(BATCH, bool))
    return bound.read(slots, cond, None, step.readout)[0]

  base = read(law.params, law.tokens)
  hidden = (scale == s) & mask | (scale > s)
  other = read(law.params, law.others(hidden[None]))
  np.testing.assert_array_equal(base, other)
  for seen in ((scale == s) & ~mask, scale < s):
    other = read(law.params, law.others(seen[None]))
    assert (np.abs(other - base).max((2, 3)) > 1e-4).all()


def test_training_hides_what_it_asks_for():
  """Masked tokens change no output of their scale, and they alone count."""
  law, codec = case(REFINED), Apart(case(REFINED))
  draw = Draw.create(3, jnp.arange(BATCH))
  masked = np.asarray(law.feed.masked(draw, law.layout))
  scale = law.layout.entity_of_token
  for s in range(1, law.layout.steps):
    assert masked[:, scale == s].any(1).all()
  assert not masked[:, scale == 0].any()

  @jit
  def z(params, tokens):
    slots, targets = law.feed.train(Tokens(tokens), law.layout, codec, draw)
    args = Tokens(tokens), law.inputs, codec, None, draw
    out = law.model.apply({'params': params}, *args, method='teacher_forced')
    return out[0], slots.masked, targets.weight

  base, where, weight = z(law.params, law.tokens)
  np.testing.assert_array_equal(where, masked)
  np.testing.assert_array_equal(weight > 0, masked)
  np.testing.assert_allclose(np.sum(weight, 1), 1, rtol=1e-6)
  for s in range(1, law.layout.steps):
    hidden = law.others(masked & (scale == s))
    same = scale <= s
    other = z(law.params, hidden)[0]
    np.testing.assert_array_equal(base[:, same], other[:, same])


def test_scales_that_see_themselves_alone_need_no_cache():
  def held(law):
    cache = jax.eval_shape(
      lambda: law.model.backbone.empty_cache(BATCH, law.layout)
    )
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(cache))

  assert held(case(REFINED)) == held(case(PLAIN)) == 0
  assert held(case('var/tiny:d16')) > 0
