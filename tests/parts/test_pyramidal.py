"""One flow trajectory in stages of growing resolution."""

import jax.numpy as jnp
import numpy as np
import pytest

from arvision.errors import ConfigError
from arvision.feeds.pyramidal import Pyramidal
from arvision.layers.resize import resize
from arvision.layouts.scales import scales
from arvision.process.pyramidal import Stages, noises
from arvision.random import Draw
from arvision.structs import Tokens

STAGES = Stages((2 / 3, 1 / 3))
LAYOUT = scales((1, 2, 4))
BATCH, CHANNELS = 2, 3


class Codec:
  """Latents stand for themselves."""

  def embed(self, values):
    return values


def latent():
  x = np.random.default_rng(0).normal(size=(BATCH, 4, 4, CHANNELS))
  maps = [resize(jnp.float32(x), grid, 'area') for grid in LAYOUT.grids]
  return jnp.concatenate([m.reshape(BATCH, -1, CHANNELS) for m in maps], 1)


def trained(tokens, draw):
  feed = Pyramidal(stages=STAGES)
  slots, targets = feed.train(Tokens(tokens), LAYOUT, Codec(), draw)
  return slots, *jnp.split(targets.values, 2, -1)


def test_a_stage_starts_where_the_one_before_ends():
  """What the sampler makes of the end of a stage is what training starts from."""
  tokens, draw = latent(), Draw.create(0, jnp.arange(BATCH))
  slots, end, start = trained(tokens, draw)
  noise = draw.normal('feed/noise', (16, CHANNELS)).reshape(BATCH, 4, 4, -1)
  entity = LAYOUT.entity_of_token
  for s, x in enumerate(noises(noise, LAYOUT.grids)):
    x, here = x.reshape(BATCH, -1, CHANNELS), entity == s
    got = STAGES.start(slots.values[:, here], x, s, LAYOUT.grids[s])
    np.testing.assert_allclose(got, start[:, here], rtol=1e-5, atol=1e-5)
    after = entity == s + 1
    if after.any():
      whole = STAGES.end(end[:, here], s)
      whole = whole.reshape(BATCH, *LAYOUT.grids[s], CHANNELS)
      up = resize(whole, LAYOUT.grids[s + 1], 'nearest')
      up = up.reshape(BATCH, -1, CHANNELS)
      np.testing.assert_allclose(slots.values[:, after], up, atol=1e-5)


def test_the_first_starts_from_noise_and_the_last_ends_at_data():
  tokens, draw = latent(), Draw.create(1, jnp.arange(BATCH))
  _, end, start = trained(tokens, draw)
  first, last = (LAYOUT.entity_of_token == s for s in (0, 2))
  np.testing.assert_array_equal(end[:, last], tokens[:, last])
  noise = draw.normal('feed/noise', (16, CHANNELS)).mean(1, keepdims=True)
  np.testing.assert_allclose(start[:, first], 4 * noise, atol=1e-5)


def test_noise_is_white_in_every_stage():
  keys = Draw.create(2, jnp.arange(20_000))
  noise = keys.normal('noise', (4, 4, 1))
  for x in noises(noise, LAYOUT.grids):
    rows = np.asarray(x).reshape(len(x), -1)
    np.testing.assert_allclose(
      rows.T @ rows / len(x), np.eye(rows.shape[1]), atol=0.05
    )
  # And where the sampler starts a stage.
  before = STAGES.windows(3)[1][1] / (1 - STAGES.windows(3)[1][1])
  small = keys.normal('small', (2, 2, 1)) * before
  up = resize(small, (4, 4), 'nearest').reshape(-1, 16, 1)
  x = STAGES.start(up, keys.normal('own', (16, 1)), 2, (4, 4))
  rows = np.asarray(x)[..., 0] / STAGES.windows(3)[0][2]
  np.testing.assert_allclose(rows.T @ rows / len(x), np.eye(16), atol=0.05)


@pytest.mark.parametrize('starts', [(0.3, 0.5), (1.0,), (0.0,)])
def test_levels_must_fall(starts):
  with pytest.raises((ValueError, ConfigError), match='falling levels'):
    Stages(starts)


def test_sides_must_double():
  layout, draw = scales((1, 2, 3)), Draw.create(0, jnp.arange(BATCH))
  tokens = Tokens(jnp.zeros((BATCH, layout.tokens, CHANNELS)))
  with pytest.raises(ValueError, match='sides that double'):
    Pyramidal(stages=STAGES).train(tokens, layout, Codec(), draw)


def test_there_is_a_level_for_every_stage():
  layout, draw = scales((1, 2)), Draw.create(0, jnp.arange(BATCH))
  tokens = Tokens(jnp.zeros((BATCH, layout.tokens, CHANNELS)))
  with pytest.raises(ValueError, match='wanted 1 levels for 2 scales'):
    Pyramidal(stages=STAGES).train(tokens, layout, Codec(), draw)
