"""Several conditions of one model: prefix, memory, additions per token."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.configs.common import block
from arvision.layers.condition import ClassLabel, Together, together
from arvision.layers.param import FIXED
from arvision.random import Draw
from arvision.structs import Cond, Tokens
from tests.configs import TINY
from tests.laws.test_generators import BATCH, Case, jit

LENGTH, CHANNELS, TOKENS = 4, 8, 16


class Control(nn.Module):
  """A vector for every token, such as a map of edges (ControlAR)."""

  width: int
  drop: float = 0.3
  reads_slots = False

  def blank(self, batch):
    return {'control': np.zeros((batch, TOKENS, 2), np.float32)}

  @nn.compact
  def __call__(self, inputs, slots=None, *, null):
    x = nn.Dense(self.width, name='linear')(inputs['control'])
    return Cond(per_token=jnp.where(null[:, None, None], 0, x))


def config():
  """LlamaGen with a class, a caption that blocks attend to, and a control."""
  config = TINY['llamagen/tiny:B']()
  config.unlock()
  width = config.backbone.width
  config.backbone.block.cross = block(
    type='layers.attention.CrossAttention', std=0.3
  )
  config.condition = block(
    type='layers.condition.Together',
    parts=block(
      label=config.condition,
      text=block(
        type='layers.condition.CaptionMemory',
        length=LENGTH,
        channels=CHANNELS,
        width=width,
      ),
      control=block(type='tests.laws.test_conditions.Control', width=width),
    ),
  )
  return config.lock()


class Conditioned(Case):
  def some_inputs(self, numbers):
    rng = np.random.default_rng(0)
    blank = self.model.condition.blank(len(numbers))
    normal = lambda name: jnp.float32(rng.normal(size=blank[name].shape))
    return {
      'label': jnp.asarray(numbers % 10, jnp.int32),
      'text': normal('text'),
      'text_valid': jnp.arange(LENGTH) >= (numbers % 3)[:, None],
      'control': normal('control'),
    }


@pytest.fixture(scope='module')
def law():
  return Conditioned(config())


def test_decoding_against_a_cache_equals_the_full_pass(law):
  _, found, _ = law.decoded
  np.testing.assert_allclose(found, law.z(law.tokens), atol=2e-4)


def test_every_part_reaches_the_tokens_that_it_is_for(law):
  base = law.z(law.tokens)

  def change(name, where):
    value = np.array(law.inputs[name])
    value[where] = value[where] + 1
    inputs = {**law.inputs, name: jnp.asarray(value)}
    return np.abs(law.z(law.tokens, inputs) - base).max((2, 3))

  assert (change('label', np.s_[:]) > 1e-4).all()
  assert (change('text', np.s_[:, -1]) > 1e-5).all()
  # The second caption has a row of padding.
  assert not law.inputs['text_valid'][1, 0]
  moved = change('text', np.s_[:, 0])
  assert (moved[0] > 1e-5).all() and not moved[1].any()
  # A vector of a token is added where it is predicted, and seen from then on.
  moved = change('control', np.s_[:, 5])
  assert (moved[:, 5:] > 1e-5).all() and not moved[:, :5].any()


def test_it_samples_and_every_part_is_trained(law):
  assert law.draw(np.arange(BATCH)).shape == law.tokens.shape
  shown = law.model.condition.clone(rate=0.0)
  model = law.model.clone(condition=shown)

  @jit
  def gradient(params, inputs):
    draw = Draw.create(0, jnp.arange(BATCH))

    def loss(params):
      terms, _ = model.apply(
        {'params': params},
        Tokens(law.tokens),
        inputs,
        draw,
        train=True,
        method='losses',
        rngs={'dropout': jax.random.key(0)},
      )
      return terms['tokens'].loss.sum()

    return jax.grad(loss)(params)

  found = gradient(law.params, law.inputs)['condition']
  for path, leaf in jax.tree_util.tree_leaves_with_path(found):
    name = jax.tree_util.keystr(path)
    assert np.abs(leaf).max() > 0 or FIXED in name, name


def test_parts_are_dropped_together_or_each_at_its_own_rate():
  parts = {
    'label': lambda **kw: ClassLabel(classes=3, width=4, drop=0.1, **kw),
    'control': lambda **kw: Control(width=4, **kw),
  }
  each = Together(parts)
  assert each.drop == (0.1, 0.3) and Together(parts, rate=0.2).drop == 0.2
  assert each.blank(2).keys() == {'label', 'control'}
  inputs = {'label': jnp.zeros(2, jnp.int32), 'control': jnp.ones((2, 16, 2))}
  none = jnp.zeros(2, bool)
  params = each.init(jax.random.key(0), inputs, null=none)
  apply = lambda null: each.apply(params, inputs, null=null)
  shown, hidden = apply(none), apply(~none)
  one = apply(jnp.array([[False, True], [True, False]]))
  for name, first, second in (
    ('prefix', shown, hidden),
    ('per_token', hidden, shown),
  ):
    got = getattr(one, name)
    np.testing.assert_array_equal(got[0], getattr(first, name)[0])
    np.testing.assert_array_equal(got[1], getattr(second, name)[1])


def test_prefixes_follow_one_another_and_modulations_add():
  ones = jnp.ones((2, 1, 3))
  short = Cond(prefix=ones, modulation=ones)
  valid = jnp.array([[False, True], [True, True]])
  long = Cond(
    prefix=jnp.zeros((2, 2, 3)),
    prefix_valid=valid,
    modulation=jnp.ones((2, 5, 3)),
    per='entity',
  )
  both = together(short, long)
  assert both.prefix.shape == (2, 3, 3) and both.per == 'entity'
  np.testing.assert_array_equal(both.prefix_valid[:, 0], True)
  np.testing.assert_array_equal(both.prefix_valid[:, 1:], valid)
  np.testing.assert_array_equal(both.modulation, np.full((2, 5, 3), 2.0))
  slots = dataclasses.replace(long, per='slot')
  with pytest.raises(ValueError, match='condition.parts'):
    together(long, slots)
