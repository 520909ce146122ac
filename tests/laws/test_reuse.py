"""Samplers that reuse a full pass, and the passes over a part of the tokens."""

import dataclasses
import types

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.build import build
from arvision.layers.stack import unstack
from arvision.model import BoundModel, sample
from arvision.process.guidance import Linear
from arvision.random import Draw
from arvision.samplers import recap
from arvision.samplers.base import Network
from arvision.samplers.masked import Masked
from arvision.samplers.random_order import RandomOrder
from tests.configs import TINY
from tests.laws.test_generators import BATCH, FILLED, SAMPLERS, case, jit

KINDS = {Masked: recap.ReuseMasked, RandomOrder: recap.ReuseRandomOrder}
PLAIN = [
  name
  for name in FILLED
  if type(SAMPLERS[name]) in KINDS
  and not TINY[name]().feed.type.endswith('RandomParts')
]
_slow = lambda name: pytest.param(name, marks=pytest.mark.slow)
# Those that are not slow stand for the others.
PLAIN = [n if n in ('maskgit/tiny', 'mar/tiny:B') else _slow(n) for n in PLAIN]
SOME = ['maskgit/tiny', 'recap/tiny:mar', _slow('recap/tiny:maskgit')]


def with_reuse(name, **fields):
  """The sampler of a config, as one that reuses."""
  own = SAMPLERS[name]
  return KINDS[type(own)](**vars(own), **fields)


def drawing(law, sampler):
  """The function that samples a batch."""

  def draw(params, frozen):
    codec, keys = law.codec(frozen), Draw.create(0, jnp.arange(BATCH))
    return sample(law.model, params, sampler, law.inputs, keys, codec).values

  return draw


def program(law, sampler):
  """The sampler as a program, in text."""
  draw = jax.jit(drawing(law, sampler))
  return draw.lower(law.params, law.frozen).as_text()


@pytest.mark.parametrize('name', PLAIN)
def test_without_reuse_it_is_the_sampler_that_it_speeds_up(name):
  """The same program, so the same bits."""
  law, sampler = case(name), SAMPLERS[name]
  assert program(law, with_reuse(name, reuse=0)) == program(law, sampler)


@pytest.mark.parametrize('name', PLAIN)
def test_every_masked_model_can_reuse(name):
  law = case(name)
  # Some steps sample nothing.
  sampler = dataclasses.replace(with_reuse(name, reuse=2), steps=20, buckets=1)
  found = jax.eval_shape(drawing(law, sampler), law.params, law.frozen)
  assert found.shape == law.tokens.shape


def two_passes(law, shown=False):
  """Functions of the parameters: a pass that reuses, and full passes.

  Args:
    law: a case.
    shown: whether two tokens become known between the passes.

  Returns:
    five tokens (b, 5) of which the last is padding; params -> cache of a full
    pass; (params, cache) -> z of these tokens; params -> z of all.
  """
  sampler = recap.ReuseMasked(guidance=Linear(2.0))
  count, rng = law.layout.tokens, np.random.default_rng(0)
  order = rng.permuted(np.tile(np.arange(count), (BATCH, 1)), axis=1)
  tokens, valid = order[:, :5], np.tile(np.arange(5) < 4, (BATCH, 1))
  before = np.ones((BATCH, count), bool)
  np.put_along_axis(before, order[:, count // 2 :], False, 1)
  after = before.copy()
  if shown:
    np.put_along_axis(after, tokens[:, :2], False, 1)
  step, one = law.layout.runs[0].step(0), lambda level: 1.0

  def start(params, masked):
    codec = law.codec(law.frozen)
    bound = BoundModel(law.model, {'params': params}, codec)
    slots = bound.feed_slots(jnp.asarray(law.tokens), step, masked)
    return Network(sampler, bound, law.inputs, BATCH), slots

  def stored(params):
    network, slots = start(params, before)
    cache = network.empty_cache(law.layout.prefix + 5)
    return network.look(slots, step.readout, one, cache)[2]

  def part(params, cache):
    network, slots = start(params, after)
    run = types.SimpleNamespace(network=network)
    own, readout = sampler.some(run, slots, jnp.asarray(tokens), valid)
    return network.look(own, readout, one, cache, False)[0]

  def full(params):
    network, slots = start(params, after)
    return network.look(slots, step.readout, one)[0]

  return tokens, stored, part, full


def passes(law, zeros=False, shown=False):
  """z (2b, 4, d) of four tokens, by a pass that reuses and by a full one.

  Args:
    law: a case.
    zeros: whether attention gives nothing.
    shown: see `two_passes`.
  """
  tokens, stored, part, full = two_passes(law, shown)
  params = law.params
  if zeros:
    flat = flax.traverse_util.flatten_dict(params, sep='/')
    flat = {k: 0 * v if '/attention/out/' in k else v for k, v in flat.items()}
    params = flax.traverse_util.unflatten_dict(flat, sep='/')
  some, whole = jit(lambda p: (part(p, stored(p)), full(p)))(params)
  at = np.concatenate([tokens] * 2)[..., None]
  whole = np.take_along_axis(np.asarray(whole[:, :, 0]), at, 1)
  return np.asarray(some[:, :4, 0]), whole[:, :4]


@pytest.mark.parametrize('name', SOME)
def test_a_pass_without_news_is_the_full_one(name):
  some, whole = passes(case(name))
  np.testing.assert_allclose(some, whole, atol=1e-4)


@pytest.mark.parametrize('name', SOME)
def test_reuse_is_exact_where_tokens_ignore_one_another(name):
  some, whole = passes(case(name), zeros=True, shown=True)
  np.testing.assert_allclose(some, whole, atol=1e-4)


def test_stored_keys_and_values_are_older():
  some, whole = passes(case('maskgit/tiny'), shown=True)
  assert np.abs(some - whole).max() > 1e-3


@pytest.mark.parametrize('name', SOME)
def test_reuse_takes_less_work(name):
  law = case(name)
  _, stored, part, full = two_passes(law)
  # Layers one by one: of a scan one layer would be counted.
  params = unstack(law.params)
  cache = jax.eval_shape(stored, params)
  work = lambda f, *args: jax.jit(f).lower(*args).cost_analysis()['flops']
  share = work(part, params, cache) / work(full, params)
  slots = (law.layout.prefix + 5) / law.layout.slots
  assert slots < 0.5 and share < 0.7


@pytest.mark.parametrize('steps', [1, 5, 8, 33])
@pytest.mark.parametrize('reuse', [0, 1, 3])
@pytest.mark.parametrize('full_steps', [0, 4, 50])
def test_programs_hold_all_steps(steps, reuse, full_steps):
  sampler = recap.ReuseMasked(
    steps=steps, reuse=reuse, full_steps=full_steps, buckets=3
  )
  groups = sampler.groups_of(steps)
  assert [first for first, _ in groups] == [
    sum(size for _, size in groups[:i]) for i in range(len(groups))
  ]
  assert sum(size for _, size in groups) == steps
  assert all(size == 1 for first, size in groups if first < full_steps)
  table = sampler.counts(64)
  counts, next_step, next_group = table[-1], 0, 0
  for p in sampler.programs_of(table[-1:]):
    assert (p.first, p.number) == (next_step, next_group)
    for first in range(p.first, p.first + p.groups * p.size, p.size):
      taken = -np.diff(counts[first : first + p.size + 1])
      assert (taken <= p.widths).all() and taken.sum() <= p.width
      assert counts[first] >= p.masked
    next_step, next_group = next_step + p.groups * p.size, next_group + p.groups
  assert next_step == steps


def test_several_entities_are_refused():
  model = types.SimpleNamespace(layout=types.SimpleNamespace(steps=3))
  network = types.SimpleNamespace(model=model)
  run = types.SimpleNamespace(network=network, cache=())
  with pytest.raises(ValueError, match='reuse=1: the layout has 3 steps'):
    recap.ReuseMasked().check(run)


def test_the_counts_of_autonat_add_up():
  for steps in (1, 7, 16, 32, 64):
    counts = recap.ReuseMasked(steps=steps, schedule='autonat').counts(256)
    assert (np.diff(counts[-1]) <= -1).all() and counts[-1][-1] == 0
    assert (counts >= 0).all() and (np.diff(counts, axis=1) <= 0).all()


def test_options_are_those_of_a_config():
  block = {'type': 'samplers.recap.ReuseMasked', 'reuse': 2, 'steps': 4}
  assert build(block, 'sampler').groups_of(4) == [(0, 3), (3, 1)]
