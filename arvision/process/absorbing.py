"""Absorbing diffusion: times at which tokens are unmasked, and likelihoods.

Vocabulary: b batch, t tokens. The noise level, or time, is the probability that a
token is masked, from 1 (all) to 0 (none).

Source: arXiv 2410.18514 (SMDM), arXiv 2409.02908 (first hitting).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from arvision.structs import Array

# (b, t) bool mask -> (b, t) nats of every token, given those that are not masked.
Nats = Callable[[Array], Array]


def stay_shares(steps: int, last: float = 0.0) -> np.ndarray:
  """(steps,) shares of masked tokens that stay masked, of even time steps.

  Args:
    steps: from time 1 to time `last`; the last one unmasks all tokens.
    last: smallest time.

  Source: ML-GSAI/SMDM, eval/gen_model_answer.py.
  """
  times = np.linspace(1, last, steps + 1, dtype=np.float32)
  return np.append(times[1:-1] / times[:-2], np.float32(0))


def uneven_stay_shares(steps: int) -> np.ndarray:
  """The same at times from 1 to 0 in steps of 1 / (steps - 1), each with the share
  of a step of 1 / steps.

  Source: kuleshov-group/bd3lms, diffusion.py, `_semi_ar_sampler`. Differs: there the
    share of the last time, 0, is a quotient by 0.
  """
  times = np.linspace(1, 0, steps)
  later = np.maximum(times - 1 / steps, 0)
  return np.where(times > 0, later / np.maximum(times, 1e-9), 0.0)


def hitting_time(time: Array, masked: Array, uniform: Array) -> jax.Array:
  """The time at which the first of some masked tokens is unmasked.

  The largest of `masked` uniform numbers below `time`. A schedule p of the masked
  share only moves the clock: its time is that at which p has this value.

  Args:
    time: now.
    masked: number of masked tokens.
    uniform: numbers in [0, 1).
  """
  return jnp.asarray(time) * uniform ** (1 / jnp.maximum(masked, 1))


def antithetic(uniform: Array, index: Array | int, count: int) -> jax.Array:
  """Times that together are spread evenly: (uniform + index / count) mod 1."""
  return (jnp.asarray(uniform) + index / count) % 1


def bound(
  nats: Nats, time: Array, uniform: Array, target: Array | bool = True
) -> jax.Array:
  """(b,) one sample of a bound of the negative log likelihood (ELBO), in nats.

  The mean over random numbers is the bound: the mean of `chain_rule` over all
  orders of tokens.

  Args:
    nats: see `Nats`.
    time: (b,) in [0, 1).
    uniform: (b, t) in [0, 1).
    target: (b or 1, t), True for the tokens that count; others stay unmasked.

  Source: ML-GSAI/SMDM, evaluate_diff.py, `_eval_target_nll_mc`.
  """
  time = jnp.asarray(time)[:, None]
  masked = (uniform < time) & target
  return jnp.sum(jnp.where(masked, nats(masked) / time, 0), 1)


def chain_rule(nats: Nats, order: Array, tokens: int) -> jax.Array:
  """(b,) negative log likelihood of tokens that are predicted in an order, in nats.

  Args:
    nats: see `Nats`; it is called once per token of the order.
    order: (n,) or (b, n) tokens; those that are not in it are given.
    tokens: t.

  Source: ML-GSAI/SMDM, evaluate_diff.py, `_eval_target_nll_ar` (raster order).
  """
  order = np.atleast_2d(order)
  rank = np.full((len(order), tokens), -1)
  np.put_along_axis(rank, order, np.arange(order.shape[1]), 1)
  found: jax.Array | float = 0.0
  for i in range(order.shape[1]):
    found += jnp.sum(jnp.where(rank == i, nats(rank >= i), 0), 1)
  return jnp.asarray(found)
