"""What samplers share."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from arvision.layouts.base import Layout
from arvision.process.choice import Choice
from arvision.process.guidance import Constant, Schedule


@dataclasses.dataclass(frozen=True)
class Sampler:
  """A decode loop: (model, inputs, draw, batch) -> Tokens.

  Attributes:
    guidance: schedule of the guidance scale.
    choice: how an id is chosen.
    layout: another one than in training, for a model that can have any (its
      positions are resized); the tokens that come out are its own.
  """

  guidance: Schedule = Constant()
  choice: Choice = Choice()
  layout: Layout | None = None

  # Whether it reads the layers one by one, against a cache.
  cached = True
  # Whether it takes the noise away by the backbone itself.
  refines = False

  def tokenizer(self, tokenizer: Any) -> Any:
    """The tokenizer of the tokens that this sampler draws."""
    if self.layout is None:
      return tokenizer
    return tokenizer.clone(scales=self.layout.grids)


def tile(tree: Any, times: int) -> Any:
  """Repeats the leading axis of every array, whole batches after another."""
  if times == 1:
    return tree
  return jax.tree.map(lambda x: jnp.concatenate([x] * times), tree)
