"""Clusters of the codes of a table, for coarse tokens (CTF)."""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp

from arvision.build import Checked
from arvision.quantizers.lookup import distances
from arvision.ranges import Few


class Clustering(Protocol):
  """A frozen dataclass that divides codes into clusters."""

  def __call__(self, key: jax.Array, codes: jax.Array, count: int) -> jax.Array:
    """The cluster of every code; runs under jit.

    Args:
      key: of random numbers.
      codes: (v, c) float32.
      count: number of clusters, at most v.

    Returns:
      (v,) int32 in [0, count).
    """


@dataclasses.dataclass(frozen=True)
class KMeans(Checked):
  """k-means from k-means++ starts.

  A cluster that loses all its codes restarts from a code that is far from its
  centre, so none is empty unless codes are equal.

  Source: Lloyd, 1982; Arthur and Vassilvitskii, 2007; arXiv 2503.16194 (CTF).

  Attributes:
    steps: steps of Lloyd's algorithm.
  """

  steps: Few = 100

  def __call__(self, key, codes, count):
    def step(i, centres):
      far = distances(codes, centres)
      own, farthest = jnp.argmin(far, 1), jnp.argsort(-jnp.min(far, 1))
      sizes = jnp.bincount(own, length=count)
      sums = jnp.zeros_like(centres).at[own].add(codes)
      empty = sizes == 0
      fresh = codes[farthest[jnp.cumsum(empty) - 1]]
      means = sums / jnp.maximum(sizes, 1)[:, None]
      return jnp.where(empty[:, None], fresh, means)

    centres = jax.lax.fori_loop(0, self.steps, step, starts(key, codes, count))
    return jnp.argmin(distances(codes, centres), 1).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class RandomClusters(Checked):
  """Clusters of equal sizes without regard to the codes: CTF's control."""

  def __call__(self, key, codes, count):
    return jax.random.permutation(key, len(codes)).astype(jnp.int32) % count


def starts(key: jax.Array, codes: jax.Array, count: int) -> jax.Array:
  """(count, c) codes, each drawn by its squared distance from those before."""

  def add(i, carry):
    centres, far = carry
    # Codes that equal a centre have a probability of 0, as long as others do not.
    logits = jnp.where(i == 0, 0.0, jnp.log(jnp.maximum(far, 1e-30)))
    new = codes[jax.random.categorical(jax.random.fold_in(key, i), logits)]
    far = jnp.minimum(far, jnp.sum((codes - new) ** 2, 1))
    return centres.at[i].set(new), far

  carry = jnp.zeros((count, codes.shape[1])), jnp.full(len(codes), jnp.inf)
  return jax.lax.fori_loop(0, count, add, carry)[0]
