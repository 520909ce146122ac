"""What a head is: from z to the distribution of an entity's tokens."""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import jax

from arvision.metrics import Term
from arvision.random import Draw
from arvision.structs import Array, Query

# Merges the two halves [conditional; null] of a field, at a noise level or not.
Guide = Callable[..., jax.Array]


class Head(Protocol):
  """A Linen module; `field`, `loss` and `sample` have one signature each.

  A head takes all tokens of an entity at once: FlowAR's head is a transformer over
  a scale.

  Attributes:
    draws: whether `sample` samples tokens of z. Where it does not, a sampler
      solves `field` through the whole network (`samplers.refine.Refine`).
    adjustable: fields that may be changed after training, since no parameter
      depends on them.
  """

  draws: ClassVar[bool]
  adjustable: ClassVar[tuple[str, ...]]

  def field(self, z: jax.Array, query: Query) -> jax.Array:
    """Logits, noise or velocity of tokens.

    Args:
      z: (b, t, r, d) hidden vectors of the tokens, one per branch.
      query: of the tokens; heads with a loop of their own read `query.values` at
        `query.level`.

    Returns:
      (b, t, ...) float32.
    """

  def loss(
    self, z: jax.Array, targets: Array, draw: Draw, query: Query
  ) -> tuple[jax.Array | Term, dict[str, jax.Array]]:
    """Losses (b, t) float32 of all tokens, and metrics (b, t) by name.

    Both may be (b, t, parts), of all parts.
    A `Term` has the weights (b, t) of the tokens beside their losses.

    Args:
      z: (b, t, r, d).
      targets: (b, t) int32, (b, t, parts) int32 or (b, t, parts) float32.
      draw: keys of the b examples.
      query: of the tokens.
    """

  def sample(
    self, z: jax.Array, draw: Draw, guide: Guide, sampling: Any, query: Query
  ) -> jax.Array:
    """The tokens of an entity, shaped like `loss`'s targets.

    Args:
      z: (b or 2b, t, r, d); conditional rows, then null rows.
      draw: keys of the b examples.
      guide: merges the two halves of a field.
      sampling: a `process.logits.LogitsFilter`.
      query: of the tokens, with the step of the sampler.
    """
