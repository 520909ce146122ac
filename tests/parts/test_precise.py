"""Draws of ids with 64 random bits, and what 23 bits do to unlikely ids."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision import random
from arvision.process.logits import LogitsFilter, Precise, PreciseWithin
from arvision.random import Draw

# An id of this probability, beside a likely one.
RARE, ROWS = 2.0**-25, 200_000
# Its noise is among the largest of this share, which is sampled alone.
SHARE = 2.0**-20


def chance(noise, rare):
  """How often a rare id is drawn, of (n,) Gumbel numbers of both ids.

  Args:
    noise: of the likely id.
    rare: of the rare id, the largest `SHARE` of all.
  """
  return SHARE * np.mean(np.log(RARE) + rare > np.log1p(-RARE) + noise)


def test_gumbel_noise_of_32_bits_draws_a_rare_id_too_rarely():
  """As `jax.random.categorical` makes it, and as `Precise` does."""
  key, logits = jax.random.key(0), jnp.log(jnp.array([[0.25, 0.75]] * 8))
  uniform = jax.random.uniform(key, (8, 2), minval=jnp.finfo('float32').tiny)
  gumbel = lambda u: -np.log(-np.log(u))
  drawn = jax.random.categorical(key, logits)
  np.testing.assert_array_equal(drawn, np.argmax(logits + gumbel(uniform), 1))

  # Uniform numbers are multiples of 2^-23; the largest are 1 - i 2^-23.
  rng = np.random.default_rng(0)
  every = np.float32(rng.integers(1, 2**23, ROWS) * 2.0**-23)
  last = np.float32(1 - rng.integers(1, 9, ROWS) * 2.0**-23)
  assert chance(gumbel(every), gumbel(last)) < 0.2 * RARE

  # The first 20 of 64 bits are 0.
  words = rng.integers(0, 2**32, (4, ROWS), np.uint32)
  rare = random.exponential(words[0] >> 20, words[1])
  noise = random.exponential(words[2], words[3])
  found = chance(-np.log(noise), -np.log(rare))
  np.testing.assert_allclose(found, RARE, rtol=0.05)


def test_exponential_numbers_of_64_bits_are_exact():
  shift = np.repeat(np.arange(64), 50).astype(np.uint64)
  rng = np.random.default_rng(0)
  bits = rng.integers(0, 2**64, shift.size, np.uint64) >> shift
  bits = np.concatenate([bits, ~bits])
  high, low = np.uint32(bits >> np.uint64(32)), np.uint32(bits & 0xFFFFFFFF)
  found = np.asarray(random.exponential(high, low))
  # 1 - x has the inverted bits: both are exact to float64.
  x, rest = ((np.float64(b) + 0.5) * 2.0**-64 for b in (bits, ~bits))
  wanted = np.where(x < 0.5, -np.log1p(-np.minimum(x, 0.5)), -np.log(rest))
  np.testing.assert_allclose(found, wanted, rtol=3e-7)
  assert found.min() < 2.0**-60 and found.max() > 40


@pytest.mark.parametrize('options', [{}, {'top_k': 2}, {'top_p': 0.7}])
def test_ids_have_their_probabilities(options):
  logits = jnp.log(jnp.array([0.1, 0.4, 0.2, 0.3]))
  precise = Precise(**options)
  rows = jnp.broadcast_to(logits, (4000, 1, 4))
  ids = np.asarray(precise(rows, Draw.create(0, jnp.arange(4000))))
  share = np.bincount(ids.ravel(), minlength=4) / ids.size
  wanted = jax.nn.softmax(LogitsFilter(**options).filter(logits))
  np.testing.assert_allclose(share, wanted, atol=0.03)
  best = Precise(temperature=0.0)(rows, Draw.create(0, jnp.arange(4000)))
  assert (np.asarray(best) == 1).all()


def test_a_top_p_that_no_set_exceeds():
  """BD3-LM's: 0.4 + 0.3 exceeds 0.6, so one id is kept; the other keeps two."""
  logits = jnp.log(jnp.array([0.1, 0.4, 0.2, 0.3]))
  kept = lambda f: np.flatnonzero(f.filter(logits) > -1e30).tolist()
  assert kept(PreciseWithin(top_p=0.6)) == [1]
  assert kept(PreciseWithin(top_p=0.75)) == [1, 3]
  assert kept(PreciseWithin(top_p=0.1)) == [1]
  assert kept(Precise(top_p=0.6)) == [1, 3]
