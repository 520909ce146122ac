"""What samplers share."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from arvision.build import Checked
from arvision.layouts.base import Layout
from arvision.process.choice import Choice
from arvision.process.guidance import Constant, Schedule
from arvision.structs import Array, Draw, Tokens


@flax.struct.dataclass
class Known:
  """Tokens of which some are not drawn but taken as they are (editing).

  Attributes:
    values: (b, t) int32 or (b, t, c).
    keep: (b, t) bool, True where a token is known.
  """

  values: Array
  keep: Array

  def over(self, drawn: jax.Array, which: Any = slice(None)) -> jax.Array:
    """Tokens (b, e) or (b, e, c) with the known ones in their places.

    Args:
      drawn: the tokens of a step.
      which: (e,) their raster numbers; -1 for padding.
    """
    keep, values = jnp.asarray(self.keep), jnp.asarray(self.values)
    keep = keep[:, which]
    if drawn.ndim == 3:
      keep = keep[..., None]
    return jnp.where(keep, values[:, which], drawn)


@dataclasses.dataclass(frozen=True)
class Sampler(Checked):
  """A decode loop: (model, inputs, draw, batch, known) -> Tokens.

  Attributes:
    guidance: schedule of the guidance scale.
    choice: how an id is chosen.
    layout: another one than in training, for a model that can have any (its
      positions are resized); the tokens that come out are its own.
    site: what is guided: the 'field' that the head gives, or the 'hidden'
      vectors that the head is given (TokenBridge).
  """

  guidance: Schedule = Constant()
  choice: Choice = Choice()
  layout: Layout | None = None
  site: str = 'field'

  # Whether it reads the layers one by one, against a cache.
  cached = True
  # Whether it takes the noise away by the backbone itself.
  refines = False
  # What of a model it can guide.
  sites: ClassVar[tuple[str, ...]] = ('field', 'hidden')

  def guided(
    self, z: jax.Array, merge: Callable[..., jax.Array]
  ) -> tuple[jax.Array, Callable[..., jax.Array]]:
    """z as the head is given it, and what is left for the head to merge.

    Args:
      z: (b or 2b, ...).
      merge: makes one of the two halves of an array, at a noise level or not.
    """
    if self.site == 'hidden':
      return merge(z), lambda field, level=None: field
    return z, merge

  def tokenizer(self, tokenizer: Any) -> Any:
    """The tokenizer of the tokens that this sampler draws."""
    if self.layout is None or self.layout.grids == tokenizer.spec.grids:
      return tokenizer
    return tokenizer.clone(scales=self.layout.grids)


class HoleFilling(Sampler, abc.ABC):
  """Some of the hidden tokens at every step, without a cache."""

  cached = False

  def __call__(
    self,
    model: Any,
    inputs: dict,
    draw: Draw,
    batch: int,
    known: Known | None = None,
  ) -> Tokens:
    """Draws the tokens of a batch, see `EntityAR`."""
    return self.run(model, inputs, draw, batch, known)[0]

  @abc.abstractmethod
  def run(
    self,
    model: Any,
    inputs: dict,
    draw: Draw,
    batch: int,
    known: Known | None = None,
  ) -> tuple[Tokens, jax.Array, jax.Array]:
    """The tokens, and what every step was shown.

    With `known` the schedule counts the tokens that are not.

    Returns:
      tokens, (steps, b, t) int32 or (steps, b, t, c) what was known, and
      (steps, b, t) bool what was not.
    """


def tile(tree: Any, times: int) -> Any:
  """Repeats the leading axis of every array, whole batches after another."""
  if times == 1:
    return tree
  return jax.tree.map(lambda x: jnp.concatenate([x] * times), tree)
