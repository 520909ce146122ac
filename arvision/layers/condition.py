"""Conditions: what an image shall show, as prefix and modulation."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.layers.dense import Embed
from arvision.layers.param import normal, param
from arvision.structs import Cond


class ClassLabel(nn.Module):
  """A class label, or nothing, as prefix vectors and as modulation.

  The table has one row per class and a last row for the null class. With
  `classes=0` it has the null row alone: an unconditional model.

  Attributes:
    classes: number of classes.
    width: d.
    prefix: prefix slots the vector fills; 0 for none.
    modulate: whether the vector is also what adaLN reads.
    start: whether every prefix slot adds a vector of its own (VAR's
      pos_start).
    tokens: learned vectors before the class in the prefix (RAR's cls_token).
    steps: rows of a table that is added to the modulation, slot by slot (RAR's
      timesteps_embeddings); 0 for none.
    drop: share of training examples whose label is replaced by null.
    std: standard deviation at the start.
  """

  classes: int
  width: int
  prefix: int = 1
  modulate: bool = False
  start: bool = False
  tokens: int = 0
  steps: int = 0
  drop: float = 0.1
  std: float = 0.02

  @nn.compact
  def __call__(self, inputs: dict, slots=None, *, null: jax.Array) -> Cond:
    """The condition of a batch.

    Args:
      inputs: 'label' (b,) int32 in [0, classes); not read where classes = 0.
      slots: not read; other conditions take noise levels from it.
      null: (b,) bool, True where the label is hidden.
    """
    ids = jnp.full(null.shape, self.classes, jnp.int32)
    if self.classes:
      ids = jnp.where(null, self.classes, inputs['label'])
    rows = self.classes + 1
    embed = Embed(rows, self.width, normal(self.std), name='label')
    vector = embed(ids)
    prefix = None
    if self.prefix:
      prefix = jnp.repeat(vector[:, None], self.prefix, axis=1)
      if self.start:
        shape = (self.prefix, self.width)
        own = param(self, 'start', normal(self.std), (None, 'embed'), shape)
        prefix = prefix + own
    if self.tokens:
      shape = (self.tokens, self.width)
      own = param(self, 'tokens', normal(self.std), (None, 'embed'), shape)
      own = jnp.broadcast_to(own, (len(ids), *shape))
      prefix = own if prefix is None else jnp.concatenate([own, prefix], 1)
    modulation = vector[:, None] if self.modulate else None
    if modulation is not None and self.steps:
      shape = (self.steps, self.width)
      own = param(self, 'steps', normal(self.std), (None, 'embed'), shape)
      modulation = modulation + jnp.asarray(own)
    return Cond(prefix=prefix, modulation=modulation)
