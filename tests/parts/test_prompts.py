"""Masked inputs of next-token prediction (MEAP), and full-view prompts (VFP)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.errors import ConfigError
from arvision.feeds.shift import Permuted, Shift
from arvision.layouts import grid
from arvision.process.editing import kept_tokens
from arvision.random import Draw
from arvision.samplers.base import Known
from arvision.structs import Tokens
from arvision.tasks import assemble, fit
from tests.configs import ALL
from tests.laws.structure import structure
from tests.laws.test_generators import BATCH, case, jit

DRAW = Draw.create(3, jnp.arange(BATCH))
TRAINING = DRAW.replace(progress=0.5)


def test_a_share_of_the_inputs_is_masked_and_every_token_is_predicted():
  layout = grid.raster(4, 5, prefix=2)
  codes = Tokens(jnp.arange(2 * 20).reshape(2, 20))
  slots, targets = Shift(masked=0.15).train(codes, layout, None, TRAINING)
  masked = np.asarray(slots.masked)
  assert (masked.sum(1) == 2).all() and not masked[:, :2].any()  # of 19
  assert (masked[0] != masked[1]).any()
  assert (np.asarray(targets.weight) == 1).all() and targets.weight.size == 20
  np.testing.assert_array_equal(targets.values, codes.values)
  assert Shift(masked=0.15).train(codes, layout, None, DRAW)[0].masked is None
  slots, _ = Permuted(masked=0.01).train(codes, layout, None, TRAINING)
  assert (slots.masked.sum(1) == 1).all() and slots.position is not None


def test_without_a_share_the_program_is_that_of_next_token_prediction():
  law = case('meap/tiny')
  train = lambda feed: (
    lambda x: feed.train(Tokens(x), law.layout, None, TRAINING)
  )
  program = lambda feed: str(jax.make_jaxpr(train(feed))(law.tokens))
  assert program(Shift(masked=0.0)) == program(Shift())
  assert program(law.feed) != program(Shift())
  ours = ALL['meap/tiny']().unlock()
  ours.feed.masked, ours.backbone.input.extra = 0.0, 0
  ours, plain = map(structure, (ours, ALL['llamagen/tiny:B']()))
  del plain['release'], ours['release']  # the row of masked codes is not in it
  assert ours == plain


def test_what_is_masked_is_not_seen():
  law = case('meap/tiny')
  z = jit(
    lambda tokens, draw: law.model.apply(
      {'params': law.params},
      Tokens(tokens),
      law.inputs,
      draw=draw,
      method='teacher_forced',
    )[0]
  )
  slots, _ = law.feed.train(Tokens(law.tokens), law.layout, None, TRAINING)
  slot = np.argsort(law.layout.token)[-(law.layout.tokens - 1) :]
  hidden = np.zeros(law.tokens.shape, bool)
  hidden[:, law.layout.token[slot]] = np.asarray(slots.masked)[:, slot]
  base = z(law.tokens, TRAINING)
  np.testing.assert_array_equal(z(law.others(hidden), TRAINING), base)
  assert np.abs(z(law.others(hidden), DRAW) - z(law.tokens, DRAW)).max() > 0.01
  assert np.abs(z(law.others(~hidden), TRAINING) - base).max() > 0.01


def test_an_input_without_a_row_for_masked_codes_is_refused():
  config = ALL['elm/tiny:ar']().unlock()
  config.feed.masked = 0.15
  model = assemble.make_model(config)
  with pytest.raises(ConfigError, match=r'config\.backbone\.input\.extra=1'):
    fit.check_tokenizer(config, model, assemble.make_tokenizer(config))


def test_prompts_are_codes_of_another_image_or_random_ones():
  law = case('vfp/tiny:class')
  own = np.random.default_rng(0).integers(0, 64, (BATCH, 32)).astype(np.int32)
  tokens = law.tokenizer.visit(own, DRAW).values
  np.testing.assert_array_equal(tokens[:, 8:], own[:, 16:])
  np.testing.assert_array_equal(tokens[:, :8], own[:, :16:2])  # spread evenly
  random = assemble.make_tokenizer(ALL['vfp/tiny:uniform']())
  drawn = random.visit(own[:, 16:], DRAW).values
  np.testing.assert_array_equal(drawn[:, 8:], own[:, 16:])
  other = random.visit(own[:, 16:], DRAW.fold(1)).values
  assert (drawn[:, :8] != other[:, :8]).mean() > 0.5
  assert drawn.min() >= 0 and drawn.max() < 64
  image, changed = (
    law.image(tokens),
    law.others((np.arange(24) < 8)[None])[:, :8],
  )
  prompted = np.concatenate([changed, tokens[:, 8:]], 1)
  np.testing.assert_array_equal(law.image(prompted), image)
  assert (law.image(law.tokens) != image).any()
  # What `encode` gives has no prompt.
  np.testing.assert_array_equal(law.image(tokens[:, 8:]), image)


def test_an_edit_samples_the_prompt_and_keeps_the_image():
  law = case('vfp/tiny:class')
  keep = np.ones((BATCH, 8, 8), bool)
  keep[:, :4] = False
  kept = kept_tokens(keep, law.tokenizer.image_grids)
  codes = law.tokens[:, 8:]
  known = Known(codes, kept).behind(law.tokenizer.before)
  drawn = law.draw(np.arange(BATCH), known)[:, 8:]
  np.testing.assert_array_equal(drawn[:, 8:], codes[:, 8:])
  assert (drawn[:, :8] != codes[:, :8]).any()
