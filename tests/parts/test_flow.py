"""A flow of one scale at a time: its head, its feed, and its loss."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.build import build
from arvision.feeds.resample import UpAndDown
from arvision.heads.flow import TokenFlow
from arvision.layers.level import as_time
from arvision.layers.stack import unstack
from arvision.layouts.scales import scales
from arvision.metrics import total
from arvision.process import flow
from arvision.process.counts import ConstantSteps, Falling
from arvision.process.guidance import Below, Linear
from arvision.random import Draw
from arvision.structs import Query, Tokens
from arvision.tasks import assemble
from tests.configs import ALL

BATCH, CHANNELS = 2, 4
LAYOUT = scales((1, 2, 4), anchor='corner')
QUERY = Query(entity=LAYOUT.entity_of_token, coords=LAYOUT.coords)
KINDS = ('S', 'L')


@functools.cache
def head(kind):
  """A flow head with random weights: module, parameters."""
  config = ALL[f'flowar/tiny:{kind}']()
  module = build(config.head, 'head')
  z, x, level = some()
  shapes = jax.eval_shape(
    lambda key: module.init(
      key, z, QUERY.replace(values=x, level=level), method='field'
    ),
    jax.random.key(0),
  )
  rng = np.random.default_rng(0)
  draw = lambda x: rng.normal(0, 0.2, x.shape).astype(np.float32)
  return module, jax.tree.map(draw, nn.unbox(shapes)['params'])


def some(seed=1):
  """z, x, and a level for every scale."""
  rng = np.random.default_rng(seed)
  z = rng.normal(size=(BATCH, LAYOUT.tokens, 1, 32)).astype(np.float32)
  x = rng.normal(size=(BATCH, LAYOUT.tokens, CHANNELS)).astype(np.float32)
  return z, x, rng.random((BATCH, LAYOUT.steps)).astype(np.float32)


@functools.cache
def of_scale(s):
  """The tokens of a scale, and what a sampler tells a head of them."""
  here = np.flatnonzero(LAYOUT.entity_of_token == s)
  query = Query(
    entity=QUERY.entity[here], coords=QUERY.coords[here], step=s, steps=3
  )
  return here, query


@functools.cache
def program(kind, s):
  """The field of a scale, or of all; compiled."""
  module, _ = head(kind)
  query = QUERY if s is None else of_scale(s)[1]

  def field(p, z, x, level):
    asked = query.replace(values=x, level=level)
    return module.apply({'params': p}, z, asked, method='field')

  return jax.jit(field)


def velocity(kind, z, x, level, s=None, params=None):
  params = head(kind)[1] if params is None else params
  return np.asarray(program(kind, s)(params, z, x, level))


@pytest.mark.parametrize('kind', KINDS)
def test_one_pass_over_all_scales_is_a_pass_over_each(kind):
  z, x, level = some()
  whole = velocity(kind, z, x, level)
  for s in range(LAYOUT.steps):
    here, _ = of_scale(s)
    own = velocity(kind, z[:, here], x[:, here], level[:, s, None], s)
    np.testing.assert_allclose(own, whole[:, here], atol=1e-5)


@pytest.mark.parametrize('kind', KINDS)
def test_a_token_sees_all_of_its_scale(kind):
  z, x, level = some()
  base = velocity(kind, z, x, level)
  x[:, -1] += 1
  moved = velocity(kind, z, x, level)
  last = LAYOUT.entity_of_token == LAYOUT.steps - 1
  assert (np.abs(moved - base)[:, last].max((0, 2)) > 1e-4).all()
  np.testing.assert_array_equal(moved[:, ~last], base[:, ~last])


@pytest.mark.parametrize('kind', KINDS)
def test_z_of_one_place_reaches_all_of_its_scale(kind):
  z, x, level = some()
  base = velocity(kind, z, x, level)
  z[:, -1] += 1
  change = np.abs(velocity(kind, z, x, level) - base)
  last = LAYOUT.entity_of_token == LAYOUT.steps - 1
  assert (change[:, last].max((0, 2)) > 1e-4).all()
  assert not change[:, ~last].any()


@pytest.mark.parametrize('kind', KINDS)
def test_layers_one_by_one_are_those_of_the_stack(kind):
  z, x, level = some()
  single = velocity(kind, z, x, level, params=unstack(head(kind)[1]))
  np.testing.assert_allclose(single, velocity(kind, z, x, level), atol=1e-5)


def test_a_sample_is_the_solution_written_out():
  """With guidance up to a level, and the null half at the same x."""
  module, params = head('S')
  module = module.clone(counts=Falling(first=6, last=4))
  schedule = Below(Linear(end=3.0), level=0.9)
  draw = Draw.create(0, jnp.arange(BATCH))
  z = np.concatenate([some(1)[0], some(2)[0]])
  for s, count in ((0, 6), (1, 5), (2, 4)):
    here, query = of_scale(s)

    def guide(field, level, s=s):
      cond, null = jnp.split(field, 2)
      return null + schedule(s, 3, level) * (cond - null)

    def sample(p, z, guide=guide, query=query):
      return module.apply(p, z, draw, guide, None, query, method='sample')

    got = jax.jit(sample)({'params': params}, z[:, here])
    levels = module.solver.levels(count)
    x = draw.normal('head/noise', (len(here), CHANNELS))
    assert len(levels) == count // 2 * 2 + 1
    for level, to in zip(levels, levels[1:]):
      halves = [
        velocity('S', part[:, here], x, level[None, None], s)
        for part in np.split(z, 2)
      ]
      scale = 1 + 2 * s / 2 if level <= 0.9 else 1
      x = x + (to - level) * (halves[1] + scale * (halves[0] - halves[1]))
    np.testing.assert_allclose(got, x, atol=1e-4)


def test_levels_are_those_of_the_official_sampler():
  solver = flow.TwoSpeeds()
  times = np.asarray(as_time(jnp.asarray(solver.levels(25)))).astype(int)
  first = [1000, 936, 872, 809, 745, 681, 618, 554, 490, 427, 363, 300]
  assert times.tolist()[:12] == first
  assert times.tolist()[12:15] == [250, 229, 208]
  assert len(times) == 25  # 24 steps
  np.testing.assert_array_equal(solver.levels(50), flow.Euler().levels(50))
  assert len(solver.levels(49)) == 49
  with pytest.raises(ValueError, match=r'config\.head\.counts'):
    solver.levels(1)
  with pytest.raises(ValueError, match='wanted 1 > knee > after > 0'):
    flow.TwoSpeeds(knee=0.2)


def test_scales_go_up_before_they_go_down():
  class Codec:
    def embed(self, values):
      return values

  layout, feed = scales((1, 2, 4, 8)), UpAndDown()
  tokens = np.random.default_rng(0).normal(size=(1, layout.tokens, 3))
  tokens = tokens.astype(np.float32)
  tokens[:, layout.entity_of_token == 0] = 5
  slots, _ = feed.train(Tokens(tokens), layout, Codec(), None)
  entity = layout.entity
  # Nothing for the first; the second sees the constant of the first.
  np.testing.assert_allclose(slots.values[:, entity == 0], 0)
  np.testing.assert_allclose(slots.values[:, entity == 1], 5, rtol=1e-6)
  # Down by area is not down by bicubic ...
  plain = dataclasses.replace(feed, down=feed.kind)
  other, _ = plain.train(Tokens(tokens), layout, Codec(), None)
  assert np.abs(other.values - slots.values)[:, entity == 2].max() > 1e-3
  # ... but the last scale has no way down.
  np.testing.assert_array_equal(
    other.values[:, entity == 3], slots.values[:, entity == 3]
  )


def test_corners_are_coordinates_in_units_of_the_largest_scale():
  coords = LAYOUT.coords
  np.testing.assert_array_equal(coords[0], [0, 0])
  np.testing.assert_array_equal(coords[1:5], [[0, 0], [0, 2], [2, 0], [2, 2]])
  np.testing.assert_array_equal(coords[-1], [3, 3])
  with pytest.raises(ValueError, match='wanted one of'):
    scales((1, 2), anchor='edge')


def test_the_loss_sums_scales_by_their_area():
  """And examples that only pad a batch change nothing."""
  config = ALL['flowar/tiny:S']()
  model = assemble.make_model(config)
  tokenizer = assemble.make_tokenizer(config)
  image = jnp.zeros((1, *config.data.size, config.data.channels))
  frozen = jax.jit(tokenizer.init)(jax.random.key(0), image)
  shape = (3, model.layout.tokens, tokenizer.spec.parts)
  rng = np.random.default_rng(3)
  tokens = rng.normal(size=shape).astype(np.float32)
  codec = tokenizer.bind(frozen)
  shapes = assemble.model_shapes(model, lambda: codec, Tokens(tokens[:1]))
  params = jax.tree.map(
    lambda x: rng.normal(0, 0.2, x.shape).astype(np.float32), shapes
  )

  @jax.jit
  def loss(tokens, weight=None):
    rows = jnp.arange(len(tokens))
    args = (Tokens(tokens), {'label': rows}, Draw.create(0, rows), codec)
    call = {'weight': weight, 'train': False, 'method': 'losses'}
    return model.apply({'params': params}, *args, **call)

  terms, metrics = loss(tokens[:2])
  whole = total(terms).compute()
  grids = model.layout.grids
  area = np.array([h * w for h, w in grids])
  assert terms['tokens'].mean.weight == 2 * area[-1]
  means = [metrics[f'loss/step_{s}'].compute() for s in range(len(grids))]
  wanted = np.sum(np.array(means) * area / area[-1])
  np.testing.assert_allclose(whole, wanted, rtol=1e-5)
  padded, _ = loss(tokens, jnp.array([1.0, 1, 0]))
  np.testing.assert_allclose(total(padded).compute(), whole, rtol=1e-5)


# A flow of every token by itself


@functools.cache
def token_head():
  """MAR's MLP as a flow, with random weights: module, parameters."""
  module = TokenFlow(channels=CHANNELS, width=32, depth=2, repeats=3)
  z, x, level = some()
  shapes = jax.eval_shape(
    lambda key: module.init(
      key, z, Query(values=x, level=level[:, :1]), method='field'
    ),
    jax.random.key(0),
  )
  rng = np.random.default_rng(0)
  draw = lambda x: rng.normal(0, 0.2, x.shape).astype(np.float32)
  return module, jax.tree.map(draw, nn.unbox(shapes))


def test_a_token_is_a_flow_of_its_own():
  module, params = token_head()
  z, x, _ = some()

  def field(level):
    query = Query(values=x, level=jnp.full((1, 1), level))
    return module.apply(params, z, query, method='field')

  base = field(0.3)
  assert base.shape == x.shape
  z[:, 0] += 1
  x[:, 1] += 1
  moved = field(0.3)
  change = np.abs(moved - base).max((0, 2))
  assert (change[:2] > 1e-3).all() and not change[2:].any()
  later = field(0.7)
  assert (np.abs(later - moved).max((0, 2)) > 1e-3).all()


def test_every_token_is_trained_on_at_several_levels():
  module, params = token_head()
  z, x, _ = some()
  draw = Draw.create(0, jnp.arange(BATCH))
  loss, _ = module.apply(params, z, x, draw, QUERY, method='loss')
  shape = (module.repeats, x.shape[1])
  level = draw.uniform('head/level', shape)
  noise = draw.normal('head/noise', (*shape, 4))
  each = []
  for i in range(module.repeats):
    noisy = flow.mix(x, noise[:, i], level[:, i])
    query = Query(values=noisy, level=level[:, i])
    seen = module.apply(params, z, query, method='field')
    each.append(np.mean((seen - (noise[:, i] - x)) ** 2, -1))
  np.testing.assert_allclose(loss, np.mean(each, 0), rtol=1e-5)


def test_a_traced_step_has_the_levels_of_its_count():
  """One program of all counts; solvers that take fewer steps among them."""
  module, params = token_head()
  z, _, _ = some()
  draw = Draw.create(0, jnp.arange(BATCH))
  guide = lambda field, level: field

  def sample(step, counts, solver):
    query = Query(step=step, steps=3)
    own = module.clone(counts=counts, solver=solver)
    return own.apply(params, z, draw, guide, None, query, method='sample')

  for solver in (flow.Euler(), flow.TwoSpeeds(even=())):
    traced = jax.jit(lambda s, solver=solver: sample(s, Falling(7, 3), solver))
    for s, count in ((0, 7), (1, 5), (2, 3)):
      same = sample(s, ConstantSteps(count), solver)
      np.testing.assert_allclose(traced(s), same, atol=1e-5)
    assert np.abs(traced(0) - traced(2)).max() > 1e-3


def test_the_true_velocity_leads_to_the_data():
  data = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
  noise = np.random.default_rng(1).normal(size=(2, 5, 3)).astype(np.float32)
  got = flow.solve(
    flow.TwoSpeeds(),
    ConstantSteps(9),
    lambda x, level: (x - data) / level,
    jnp.asarray(noise),
    Draw.create(0, jnp.arange(2)),
    Query(step=0, steps=1),
  )
  np.testing.assert_allclose(got, data, atol=1e-5)
