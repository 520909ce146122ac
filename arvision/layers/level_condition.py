"""Conditions that hand the noise level on as a number (VQ-Diffusion).

The norms of `layers.embedded_norm` embed it, each for itself.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.layers.param import normal, param
from arvision.ranges import AtLeast0, Count, Natural, Share, Width
from arvision.structs import Cond, Slots


class LevelAndClass(nn.Module):
  """The noise level and the class, or null, as two numbers.

  It has no parameters. The null class is `classes`.

  Attributes:
    classes: number of classes; 0 for an unconditional model.
    drop: share of training examples whose label is replaced by null.
  """

  classes: Natural
  drop: Share = 0.0

  reads_slots: ClassVar[bool] = True

  def blank(self, batch: int) -> dict:
    return {'label': np.zeros(batch, np.int32)}

  @nn.compact
  def __call__(self, inputs: dict, slots: Slots, *, null: jax.Array) -> Cond:
    """The condition of a batch.

    Args:
      inputs: 'label' (b,) int32 in [0, classes); not read where classes = 0.
      slots: their `level` (b or 1, 1).
      null: (b,) bool, True where the label is dropped.
    """
    ids = jnp.full(null.shape, self.classes, jnp.int32)
    if self.classes:
      ids = jnp.where(null, self.classes, inputs['label'])
    return Cond(modulation=_numbers(slots, ids))


class LevelAndCaption(nn.Module):
  """The noise level as a number, and features of a caption as memory.

  The null caption is learned: features of `length` rows, all of which are seen.

  Source: arXiv 2205.16007 (Improved VQ-Diffusion).

  Attributes:
    length: rows of features.
    channels: numbers of a row.
    drop: share of training examples whose caption is replaced by null.
    std: standard deviation of the null caption at the start.
  """

  length: Count
  channels: Width
  drop: Share = 0.1
  std: AtLeast0 = 1.0

  reads_slots: ClassVar[bool] = True

  def blank(self, batch: int) -> dict:
    shape = (batch, self.length)
    text = np.zeros((*shape, self.channels), np.float32)
    return {'text': text, 'text_valid': np.ones(shape, bool)}

  @nn.compact
  def __call__(self, inputs: dict, slots: Slots, *, null: jax.Array) -> Cond:
    """The condition of a batch.

    Args:
      inputs: 'text' (b, length, channels) float32, and 'text_valid' (b, length)
        bool, False where padded.
      slots: their `level` (b or 1, 1).
      null: (b,) bool, True where the caption is dropped.
    """
    nothing = self.nothing()
    text = jnp.where(null[:, None, None], nothing, inputs['text'])
    valid = jnp.asarray(inputs['text_valid']) | null[:, None]
    # A caption without features attends to zeros.
    valid |= ~jnp.any(valid, -1, keepdims=True)
    zeros = jnp.zeros(null.shape, jnp.int32)
    modulation = _numbers(slots, zeros)
    return Cond(modulation=modulation, memory=text, memory_valid=valid)

  def nothing(self) -> jax.Array:
    """(length, channels) the null caption."""
    shape = (self.length, self.channels)
    return param(self, 'null', normal(self.std), (None, None), shape)


class LevelAndPlainCaption(LevelAndCaption):
  """The same with zeros as null caption, for weights without a learned one."""

  def nothing(self):
    return jnp.zeros((self.length, self.channels))


def _numbers(slots, ids):
  """(b, 1, 2) float32 level and number."""
  if slots is None or slots.level is None:
    raise ValueError(
      'config.condition reads noise levels, which config.feed does not give; '
      'wanted feeds.transition.Transition'
    )
  if slots.level.shape[1] != 1:
    raise ValueError(
      'config.condition takes one noise level for all tokens, but config.feed '
      'gives one for every entity; wanted feeds.transition.Transition'
    )
  level = jnp.broadcast_to(slots.level[:, 0], ids.shape)
  return jnp.stack([level, ids.astype(jnp.float32)], -1)[:, None]
