"""A method that generalises another one is equal to it at the limit."""

import jax
import jax.numpy as jnp
import numpy as np

from arvision.metrics import total
from arvision.model import BoundModel, sample
from arvision.process.counts import ConstantSteps
from arvision.process.flow import Euler
from arvision.process.guidance import Constant
from arvision.random import Draw
from arvision.samplers.entity import EntityAR
from arvision.samplers.refine import Refine
from arvision.structs import Slots, Tokens
from tests.laws.test_generators import BATCH, case

IMAGE = 'xar/tiny:image'
STEPS = 5


def field(law, params, x, level):
  """The network on whole images x (b, t, c) at levels (b,): velocities."""
  layout = law.layout
  slots = Slots(values=x[:, layout.token], index=layout.index, level=level)

  def read(model):
    z, query = model.hidden(slots, law.inputs, jnp.zeros(BATCH, bool))
    return model.head.field(z, query)

  return law.model.apply({'params': params}, method=read)


def test_one_entity_trains_as_plain_flow_matching():
  law, draw = case(IMAGE), Draw.create(5, jnp.arange(BATCH))
  assert law.layout.steps == 1

  @jax.jit
  def ours(params):
    terms, _ = law.model.apply(
      {'params': params},
      Tokens(law.tokens),
      law.inputs,
      draw,
      train=False,
      method='losses',
    )
    return total(terms).compute()

  @jax.jit
  def plain(params):
    level = jax.nn.sigmoid(draw.normal('feed/level', (1,)))
    noise = draw.normal('feed/noise', law.tokens.shape[1:])
    x = (1 - level)[..., None] * law.tokens + level[..., None] * noise
    got = field(law, params, x, level)
    return jnp.mean((got - (noise - law.tokens)) ** 2)

  np.testing.assert_allclose(ours(law.params), plain(law.params), rtol=1e-5)


def test_one_entity_is_drawn_by_plain_integration():
  law, draw = case(IMAGE), Draw.create(6, jnp.arange(BATCH))
  sampler = Refine(Constant(1.0), counts=ConstantSteps(STEPS), solver=Euler())

  @jax.jit
  def ours(params, frozen):
    codec = law.codec(frozen)
    return sample(law.model, params, sampler, law.inputs, draw, codec).values

  @jax.jit
  def plain(params):
    x = draw.fold(0).normal('sampler/start', law.tokens.shape[1:])
    for i in range(STEPS):
      level = jnp.full((BATCH, 1), 1 - i / STEPS)
      x = x - field(law, params, x, level) / STEPS
    return x

  got = np.asarray(ours(law.params, law.frozen))
  np.testing.assert_allclose(got, plain(law.params), rtol=1e-4, atol=1e-4)


def test_images_one_by_one_equal_their_training_sequence():
  law, draw = case('arflow/tiny'), Draw.create(7, jnp.arange(BATCH))
  none = jnp.zeros(BATCH, bool)

  @jax.jit
  def both(params):
    slots, _ = law.feed.train(Tokens(law.tokens), law.layout, None, draw)
    bound = BoundModel(law.model, {'params': params})
    args = slots, law.inputs, none
    whole, _ = law.model.apply({'params': params}, *args, method='hidden')
    cache, found = bound.empty_cache(BATCH), []
    for i in range(law.layout.steps):
      step = law.layout.runs[0].step(i)
      own = slots.replace(
        values=slots.values[:, step.index],
        index=step.index,
        extent=step.extent,
        level=slots.level[:, i : i + 1],
      )
      cond = bound.condition(law.inputs, none, own)
      z, cache = bound.read(own, cond, cache, step.readout)
      found.append(z)
    return slots.level, whole, jnp.concatenate(found, 1)

  level, whole, found = both(law.params)
  assert (np.diff(level) < 0).all()
  np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-4)


def test_one_stage_trains_as_plain_flow_matching():
  law, draw = case('ecar/tiny:one'), Draw.create(8, jnp.arange(BATCH))
  tokens = Tokens(law.tokens)

  @jax.jit
  def ours(params, frozen):
    args = tokens, law.inputs, draw, law.codec(frozen)
    variables = {'params': params}
    terms, _ = law.model.apply(variables, *args, train=False, method='losses')
    return total(terms).compute()

  @jax.jit
  def plain(params, frozen):
    level = draw.uniform('head/level', (1,))
    noise = draw.normal('feed/noise', law.tokens.shape[1:])
    x = (1 - level)[..., None] * law.tokens + level[..., None] * noise
    got = given_class(law, params, frozen, x, level)
    return jnp.mean((got - (noise - law.tokens)) ** 2)

  args = law.params, law.frozen
  np.testing.assert_allclose(ours(*args), plain(*args), rtol=1e-5)


def test_one_stage_is_drawn_by_plain_integration():
  law, draw = case('ecar/tiny:one'), Draw.create(9, jnp.arange(BATCH))
  count = law.model.head.counts(0, 1)

  @jax.jit
  def ours(params, frozen):
    codec = law.codec(frozen)
    sampler = EntityAR()
    return sample(law.model, params, sampler, law.inputs, draw, codec).values

  @jax.jit
  def plain(params, frozen):
    x = draw.fold(0).normal('head/noise', law.tokens.shape[1:])
    for i in range(count):
      level = jnp.full((BATCH, 1), 1 - i / count)
      x = x - given_class(law, params, frozen, x, level) / count
    return x

  args = law.params, law.frozen
  np.testing.assert_allclose(ours(*args), plain(*args), rtol=1e-4, atol=1e-4)


def given_class(law, params, frozen, x, level):
  """The flow head on whole images x (b, t, c) at levels (b, 1): velocities."""
  tokens, codec = Tokens(law.tokens), law.codec(frozen)

  def read(model):
    z, query = model.teacher_forced(tokens, law.inputs, codec)
    return model.head.field(z, query.replace(values=x, level=level))

  return law.model.apply({'params': params}, method=read)
