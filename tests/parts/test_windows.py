"""Windows of tokens as one token (Token-Shuffle)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.heads.window import Unshuffle
from arvision.layers.window import ResidualMLPs, Shuffle
from arvision.process.guidance import Ramp
from arvision.process.logits import LogitsFilter
from arvision.random import Draw
from arvision.structs import Query

IDS = jax.random.randint(jax.random.key(0), (2, 3, 4), 0, 16)


def shuffle(depth):
  module = Shuffle(width=8, vocab_size=16, parts=4, depth=depth, std=0.5)
  return module, module.init(jax.random.key(1), IDS)


def test_every_token_has_its_share_of_the_channels():
  module, variables = shuffle(0)
  once = module.apply(variables, IDS)
  other = module.apply(variables, IDS.at[:, :, 2].add(1) % 16)
  changed = np.any(np.asarray(once != other), (0, 1))
  np.testing.assert_array_equal(np.flatnonzero(changed), [4, 5])


def test_mlps_mix_the_tokens_of_a_window_and_no_others():
  module, variables = shuffle(2)
  once = module.apply(variables, IDS)
  other = module.apply(variables, IDS.at[:, 1, 2].add(1) % 16)
  changed = np.asarray(once != other)
  assert changed[:, 1].all() and not changed[:, [0, 2]].any()


def test_no_mlps_are_the_identity():
  x = jnp.ones((1, 2, 8))
  module = ResidualMLPs(0)
  assert not module.init(jax.random.key(0), x)
  np.testing.assert_array_equal(module.apply({}, x), x)


def test_the_head_gives_every_token_of_a_window_its_logits():
  head = Unshuffle(vocab_size=16, parts=4, width=8, depth=0, std=0.5)
  z = jax.random.normal(jax.random.key(2), (2, 3, 1, 8))
  draw, query = Draw.create(0, np.arange(2)), Query()
  variables = head.init(jax.random.key(3), z, query, method='field')
  logits = head.apply(variables, z, query, method='field')
  assert logits.shape == (2, 3, 4, 16)
  p = variables['params']
  each = z[:, :, 0].reshape(2, 3, 4, 2) @ _value(p['expand']['kernel'])
  wanted = each @ _value(p['linear']['kernel'])
  np.testing.assert_allclose(logits, wanted, atol=1e-5)
  loss, metrics = head.apply(variables, z, IDS, draw, query, method='loss')
  right = jnp.take_along_axis(jax.nn.log_softmax(wanted), IDS[..., None], -1)
  np.testing.assert_allclose(loss, -right[..., 0], rtol=1e-5)
  assert metrics['token_accuracy'].shape == (2, 3, 4)
  best = head.apply(
    variables,
    z,
    draw,
    lambda logits: logits,
    LogitsFilter(temperature=0.0),
    query,
    method='sample',
  )
  np.testing.assert_array_equal(best, jnp.argmax(wanted, -1))


def test_a_width_that_no_window_divides_is_refused():
  module = Shuffle(width=6, vocab_size=16, parts=4)
  with pytest.raises(ValueError, match='width=6: wanted a multiple of 4'):
    module.init(jax.random.key(0), IDS)


def test_half_linear_guidance_grows_and_stays():
  """Over 8 steps up to 5: half of the way after 2, all of it after 4."""
  scales = [float(Ramp(5.0)(s, 8)) for s in range(8)]
  assert scales == [1, 2, 3, 4, 5, 5, 5, 5]
  assert Ramp(5.0).active and not Ramp(1.0).active
  assert Ramp(5.0).scaled_to(2.0) == Ramp(2.0)


def _value(leaf):
  return getattr(leaf, 'value', leaf)
