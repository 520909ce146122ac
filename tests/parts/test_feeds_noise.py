"""Noisy tokens: what is shown, at which level, and what is to be predicted."""

import jax.numpy as jnp
import numpy as np
import pytest

from arvision.feeds import noise
from arvision.layouts import grid, sequence
from arvision.random import Draw, Replay
from arvision.structs import Tokens

BATCH, CHANNELS = 3, 2
LAYOUT = grid.cells(4, 4, (2, 2))
TWICE = sequence.two_stream(LAYOUT)


def fed(feed, layout, draw=None):
  tokens = np.random.default_rng(0).normal(size=(BATCH, 16, CHANNELS))
  draw = draw or Draw.create(0, jnp.arange(BATCH))
  return tokens, *feed.train(Tokens(tokens), layout, None, draw)


def test_targets_lie_as_tokens_and_values_as_slots():
  level = np.array([[0.0, 0.25, 0.5, 1.0]] * BATCH)
  made = np.random.default_rng(1).normal(size=(BATCH, 16, CHANNELS))
  draw = Replay({'level': level, 'noise': made}, size=BATCH)
  tokens, slots, targets = fed(noise.Noise(levels='uniform'), LAYOUT, draw)
  at = LAYOUT.readout[:, 0]
  np.testing.assert_allclose(targets.values, made[:, at] - tokens, atol=1e-6)
  share = level[:, LAYOUT.entity_of_token, None]
  shown = tokens + share * (made[:, at] - tokens)
  np.testing.assert_allclose(slots.values[:, at], shown, atol=1e-6)


@pytest.mark.parametrize('kind, sign', [(noise.Rising, 1), (noise.Falling, -1)])
def test_levels_in_order(kind, sign):
  _, slots, _ = fed(kind(), LAYOUT)
  _, any_, _ = fed(noise.Noise(), LAYOUT)
  assert (sign * np.diff(slots.level) > 0).all()
  np.testing.assert_array_equal(np.sort(slots.level), np.sort(any_.level))


def test_a_clean_past_lies_beside_noisy_tokens():
  tokens, slots, _ = fed(noise.CleanPast(), TWICE)
  clean, noisy = np.split(np.asarray(slots.values), 2, axis=1)
  np.testing.assert_allclose(clean, tokens[:, LAYOUT.token], atol=1e-6)
  assert np.abs(noisy - clean).min() > 0
  assert slots.level.shape == (BATCH, 8)
  assert not slots.level[:, :4].any() and slots.level[:, 4:].all()


@pytest.mark.parametrize(
  'feed, layout, said',
  [
    (noise.Noise(), TWICE, 'use feeds.noise.CleanPast'),
    (noise.CleanPast(), LAYOUT, 'layouts.sequence.two_stream'),
  ],
)
def test_a_feed_that_does_not_fit_the_layout(feed, layout, said):
  with pytest.raises(ValueError, match=said):
    fed(feed, layout)
