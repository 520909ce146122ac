"""Metrics and losses that merge: sums are added, and divided once.

The parts of a global batch (pieces of a step, devices, batches of a pass) are
merged by adding the leaves of these structures, so no mean of means is taken.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

Array = jax.Array


@flax.struct.dataclass
class Mean:
  """A weighted mean, as its two sums.

  Attributes:
    total: () float32 Σ w x.
    weight: () float32 Σ w.
  """

  total: Array | float
  weight: Array | float

  @classmethod
  def of(cls, values: Any, weight: Any = 1.0) -> 'Mean':
    """The mean of all values, with weights that broadcast to their shape."""
    values = jnp.asarray(values, jnp.float32)
    weight = jnp.broadcast_to(jnp.asarray(weight, jnp.float32), values.shape)
    return cls(jnp.sum(weight * values), jnp.sum(weight))

  def scaled(self, scale: Any) -> 'Mean':
    """`scale` times the mean."""
    return Mean(scale * self.total, self.weight)

  def compute(self) -> Array:
    """() float32; 0 where there is no weight."""
    return self.total / jnp.where(self.weight > 0, self.weight, 1)


@flax.struct.dataclass
class Sum:
  """A sum of means with weights of their own.

  Attributes:
    parts: name -> mean.
  """

  parts: dict[str, Mean]

  @property
  def weight(self) -> Array | float:
    """() float32, positive where a part has any weight."""
    return sum(part.weight for part in self.parts.values())

  def compute(self) -> Array:
    """() float32."""
    return jnp.asarray(sum(part.compute() for part in self.parts.values()))


Metric = Mean | Sum


@flax.struct.dataclass
class Term:
  """One term of an objective: scale x Σ weight x loss / Σ denominator.

  Attributes:
    loss: (b, m) float32, or any other shape.
    weight: of every loss; broadcasts to `loss`.
    denominator: what every loss counts in the divisor; None: its weight.
    scale: factor of the term in the objective.
  """

  loss: Array
  weight: Any = 1.0
  denominator: Any = None
  scale: Any = 1.0

  @property
  def mean(self) -> Mean:
    """The term without its scale. The divisor has no gradient."""
    mean = Mean.of(self.loss, self.weight)
    weight = mean.weight
    if self.denominator is not None:
      weight = jnp.sum(jnp.broadcast_to(self.denominator, self.loss.shape))
    return mean.replace(weight=jax.lax.stop_gradient(weight))


def total(terms: dict[str, Term]) -> Sum:
  """The objective: the sum of the terms, each with its scale."""
  return Sum({k: term.mean.scaled(term.scale) for k, term in terms.items()})
