"""A head for the first entity of a layout and one for the others (Hi-MAR)."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.heads.base import Guide, Head
from arvision.random import Draw
from arvision.structs import Query, Template


class Stages(nn.Module):
  """A head for the tokens of the first entity, and one for those of later ones.

  Source: arXiv 2505.20288 (an MLP for pivots, a transformer for dense tokens).

  Attributes:
    first, later: templates of heads.
  """

  first: Template
  later: Template

  draws: ClassVar[bool] = True
  adjustable: ClassVar[tuple[str, ...]] = ()
  joint: ClassVar[bool] = True

  def setup(self):
    self.pivots = self.first()
    self.dense = self.later()

  def of(self, s: int) -> Head:
    """The head of entity s."""
    return self.dense if s else self.pivots

  def field(self, z: jax.Array, query: Query) -> jax.Array:
    """The field of the tokens of one entity, see `Head`."""
    return self.of(_only(query)).field(z, query)

  def loss(
    self, z: jax.Array, targets: jax.Array, draw: Draw, query: Query
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Losses (b, t) of the tokens of all entities, and no metrics.

    The s-th head draws from `draw.fold(s)`.
    """
    assert query.coords is not None
    entity = np.asarray(query.entity)
    loss = jnp.zeros(targets.shape[:2], jnp.float32)
    for s in np.unique(entity).tolist():
      at = np.flatnonzero(entity == s)
      own = query.replace(entity=entity[at], coords=query.coords[at])
      found, _ = self.of(s).loss(z[:, at], targets[:, at], draw.fold(s), own)
      loss = loss.at[:, at].set(found)
    return loss, {}

  def sample(
    self, z: jax.Array, draw: Draw, guide: Guide, sampling: Any, query: Query
  ) -> jax.Array:
    """Tokens of one entity, see `Head`."""
    return self.of(_only(query)).sample(z, draw, guide, sampling, query)


def _only(query):
  """The entity of all tokens of a query, which is static."""
  return int(query.entity[0])
