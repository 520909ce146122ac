"""Mergeable metrics and losses: sums that are divided once.

Adding the leaves of these structures merges the parts of a global batch
(accumulation steps, devices, batches of a pass), without a mean of means.
"""

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
  def of(cls, values: Array, weight: Array | float = 1.0) -> 'Mean':
    """The mean of all values; `weight` broadcasts to their shape."""
    values = jnp.asarray(values, jnp.float32)
    weight = jnp.broadcast_to(jnp.asarray(weight, jnp.float32), values.shape)
    return cls(jnp.sum(weight * values), jnp.sum(weight))

  def scaled(self, scale: Array | float) -> 'Mean':
    """`scale` times the mean."""
    return Mean(scale * self.total, self.weight)

  def compute(self) -> Array:
    """() float32; 0 without any weight."""
    return self.total / jnp.where(self.weight > 0, self.weight, 1)


@flax.struct.dataclass
class Sum:
  """A sum of means with separate weights.

  Attributes:
    parts: name -> mean.
  """

  parts: dict[str, Mean]

  @property
  def weight(self) -> Array | float:
    """() float32, positive if any part has weight."""
    return sum(part.weight for part in self.parts.values())

  def compute(self) -> Array:
    """() float32."""
    return jnp.asarray(sum(part.compute() for part in self.parts.values()))


Metric = Mean | Sum


@flax.struct.dataclass
class Term:
  """One term of an objective: scale x Σ weight x loss / Σ denominator.

  Attributes:
    loss: float32 of any shape, usually (b, m).
    weight: weights of the losses; broadcasts to `loss`.
    denominator: summands of the divisor, broadcasts to `loss`; None: `weight`.
    scale: factor of the term in the objective.
  """

  loss: Array
  weight: Array | float = 1.0
  denominator: Array | None = None
  scale: Array | float = 1.0

  @property
  def mean(self) -> Mean:
    """The term without its scale; no gradient flows through the divisor."""
    mean = Mean.of(self.loss, self.weight)
    weight = mean.weight
    if self.denominator is not None:
      weight = jnp.sum(jnp.broadcast_to(self.denominator, self.loss.shape))
    return mean.replace(weight=jax.lax.stop_gradient(weight))


def total(terms: dict[str, Term]) -> Sum:
  """The objective: the sum of the scaled terms."""
  return Sum({k: term.mean.scaled(term.scale) for k, term in terms.items()})
