"""The decode loop: entities that are filled, padding, and what networks see."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.feeds import noise, resample, residual, shift
from arvision.feeds.base import all_slots
from arvision.feeds.mask import RandomMask
from arvision.layouts import grid
from arvision.layouts.base import Step
from arvision.model import sample
from arvision.process.logits import LogitsFilter
from arvision.random import Draw
from arvision.samplers.base import Known
from arvision.samplers.masked import Masked
from arvision.structs import Tokens, TokenSpec
from arvision.tasks import assemble
from tests.configs import ALL
from tests.laws.test_generators import scrambled

BATCH, CELLS = 2, grid.cells(4, 4, (2, 4))


@pytest.fixture(scope='module')
def filled():
  """MaskGIT over two entities, each filled in three passes: model, params."""
  config = ALL['maskgit/tiny']()
  model = assemble.make_model(config).clone(layout=CELLS)
  params = scrambled(assemble.model_shapes(model), 0.3)

  def without_bias(path, x):
    return 0 * x if 'bias' in jax.tree_util.keystr(path) else x

  # Biases would hide what is seen.
  params = jax.tree_util.tree_map_with_path(without_bias, params)
  return model, params


def test_entities_are_filled_one_after_another(filled):
  """What a pass sees through the cache is what the whole network sees."""
  model, params = filled
  inputs, null = {'label': jnp.arange(BATCH)}, jnp.zeros(BATCH, bool)
  draw = Draw.create(0, jnp.arange(BATCH))

  second = np.broadcast_to(CELLS.entity_of_token == 1, (BATCH, 16))
  given = np.arange(BATCH * 16).reshape(BATCH, 16)

  @functools.partial(jax.jit, static_argnums=0)
  def filled_in(steps, known=None):
    sampler = Masked(steps=steps, logits_filter=LogitsFilter(temperature=0.0))
    return sample(model, params, sampler, inputs, draw, known=known).values

  @jax.jit
  def best(values, masked):
    slots = all_slots(
      jnp.where(masked, 0, values)[:, CELLS.token],
      CELLS,
      masked=masked[:, CELLS.token],
    )
    read = lambda m: m.head.field(*m.hidden(slots, inputs, null))
    return jnp.argmax(model.apply({'params': params}, method=read), -1)

  # One pass takes the best ids of an entity that is masked as a whole.
  alone = best(given, np.ones_like(second))
  once = filled_in(1)
  np.testing.assert_array_equal(once[~second], alone[~second])
  np.testing.assert_array_equal(once[second], best(once, second)[second])
  # It matters what the entity before it is.
  once = filled_in(1, Known(given, ~second))
  np.testing.assert_array_equal(once[second], best(given, second)[second])
  assert (once != alone)[second].any()


class Codec:
  """Latents as they are."""

  spec = TokenSpec(0, 2, 2, ((2, 3),))

  def embed(self, values):
    return values


@pytest.mark.parametrize(
  'feed',
  [shift.Shift(), noise.Noise(), resample.Resample(), RandomMask()],
  ids=lambda feed: type(feed).__name__,
)
def test_padding_is_pushed_nowhere(feed):
  """Steps of different sizes share a scanned run, see `Layout.pad_to`."""
  layout = grid.raster(2, 3)
  state = feed.init(1, layout, Codec())
  step = Step(
    0, *[np.arange(3)] * 2, np.array([1, 4, -1]), np.zeros((3, 1), int), 3
  )
  pushed = feed.push(state, step, jnp.ones((1, 3, 2)), layout, Codec())
  assert np.asarray(pushed)[0, :, 0].tolist() == [0, 1, 0, 0, 1, 0]


def test_the_network_is_shown_what_tokens_say():
  layout = grid.raster(2, 2)
  tokens = Tokens(jnp.array([[1, 2, 3, 4]]), shown=jnp.array([[5, 6, 7, 8]]))
  slots, targets = shift.Shift().train(tokens, layout, None, None)
  assert slots.values[0].tolist() == [0, 5, 6, 7]
  assert targets.values[0].tolist() == [1, 2, 3, 4]


def test_feeds_of_scales_keep_ids_apart_from_the_canvas():
  class Pyramid:
    spec = TokenSpec(8, 1, 2, ((1, 1), (2, 2)))

    def canvas(self, batch):
      return jnp.zeros((batch, 2, 2, 2))

    def merge(self, canvas, values, s):
      return canvas + values.mean()

  feed, layout = residual.Residual(), grid.raster(1, 5)
  state = feed.init(1, layout, Pyramid())
  step = Step(
    1, *[np.arange(2)] * 2, np.array([1, 2]), np.zeros((2, 1), int), 3
  )
  state = feed.push(state, step, jnp.array([[3, 3]]), layout, Pyramid())
  assert feed.finish(state).values.tolist() == [[0, 3, 3, 0, 0]]
  assert (np.asarray(state['canvas']) == 3).all()
