"""Conditions: class labels, captions and noise levels as vectors."""

import functools
from typing import ClassVar, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.layers.dense import Dense, Embed
from arvision.layers.level import LevelEmbedding, as_time
from arvision.layers.param import fixed, normal, param
from arvision.ranges import AtLeast0, Count, Natural, Share, Width
from arvision.structs import Cond, Slots, Template


class Condition(Protocol):
  """A Linen module: labels, captions, ... -> vectors for the backbone.

  Attributes:
    drop: share of training examples that get the null condition instead; None: the
      level of the slots. A condition of several parts may have a share for each.
    reads_slots: whether it reads noise levels from the slots, so that samplers
      ask it again at every step.
  """

  drop: float | None | tuple[float | None, ...]
  reads_slots: ClassVar[bool]

  def blank(self, batch: int) -> dict:
    """The arrays that it reads of a batch, as zeros; leading axis b."""

  def __call__(
    self, inputs: dict, slots: Slots | None = None, *, null: jax.Array
  ) -> Cond:
    """The condition of a batch.

    Args:
      inputs: arrays under the names of `blank`, and maybe others.
      slots: for conditions that read noise levels.
      null: (b,) bool, True for no condition; with several rates in `drop`
        (b, parts) in training.
    """


class NoCondition(nn.Module):
  """The condition of a model whose config states none.

  Attributes:
    drop: see `ClassLabel`; there is nothing to drop.
  """

  drop: Share = 0.0

  reads_slots: ClassVar[bool] = False

  def blank(self, batch: int) -> dict:
    del batch
    return {}

  def __call__(self, inputs: dict, slots=None, *, null: jax.Array) -> Cond:
    """An empty condition."""
    del inputs, slots, null
    return Cond()


class ClassLabel(nn.Module):
  """A class label, or null, as prefix vectors and as modulation.

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
    spare: rows before those of the classes, which are not used (BAR).
    norm: template of a norm of the prefix vectors of the class, or None (AutoNAT).
    drop: share of training examples whose label is replaced by null; None: the
      level of the slots, so that a label is masked like a token (SMDM).
    std: standard deviation at the start.
  """

  classes: Natural
  width: Width
  prefix: Natural = 1
  modulate: bool = False
  start: bool = False
  tokens: Natural = 0
  steps: Natural = 0
  spare: Natural = 0
  norm: Template | None = None
  drop: Share | None = 0.1
  std: AtLeast0 = 0.02

  reads_slots: ClassVar[bool] = False

  def blank(self, batch: int) -> dict:
    return {'label': np.zeros(batch, np.int32)}

  @nn.compact
  def __call__(self, inputs: dict, slots=None, *, null: jax.Array) -> Cond:
    """The condition of a batch.

    Args:
      inputs: 'label' (b,) int32 in [0, classes); not read where classes = 0.
      slots: not read; other conditions take noise levels from it.
      null: (b,) bool, True where the label is dropped.
    """
    ids = jnp.full(null.shape, self.classes, jnp.int32)
    if self.classes:
      ids = jnp.where(null, self.classes, inputs['label'])
    rows = self.spare + self.classes + 1
    embed = Embed(rows, self.width, normal(self.std), name='label')
    vector = embed(self.spare + ids)
    prefix = None
    if self.prefix:
      prefix = jnp.repeat(vector[:, None], self.prefix, axis=1)
      if self.start:
        shape = (self.prefix, self.width)
        own = param(self, 'start', normal(self.std), (None, 'embed'), shape)
        prefix = prefix + own
      if self.norm is not None:
        prefix = self.norm(name='norm')(prefix)
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


class ClassPerStage(nn.Module):
  """A class label, or null, as the prefix of every stage (Hi-MAR).

  In training every stage drops it by itself. See `ClassLabel` for the table.

  Source: arXiv 2505.20288; HiDream-ai/himar, models/himar.py.

  Attributes:
    classes: number of classes.
    width: d.
    prefix: prefix slots of a stage that the vector fills.
    stages: number of stages.
    rate: share of training examples whose label is replaced by null in a stage.
    std: standard deviation at the start.
  """

  classes: Natural
  width: Width
  prefix: Natural = 1
  stages: Count = 2
  rate: Share = 0.1
  std: AtLeast0 = 0.02

  reads_slots: ClassVar[bool] = False

  @property
  def drop(self) -> tuple[float, ...]:
    return (self.rate,) * self.stages

  def blank(self, batch: int) -> dict:
    return {'label': np.zeros(batch, np.int32)}

  @nn.compact
  def __call__(self, inputs: dict, slots=None, *, null: jax.Array) -> Cond:
    """The condition of a batch, its `prefix` (b, stages * prefix, d).

    Args:
      inputs: 'label' (b,) int32 in [0, classes).
      slots: not read.
      null: (b,) bool, True where the label is dropped; in training (b, stages).
    """
    nulls = null if null.ndim == 2 else null[:, None]
    nulls = jnp.broadcast_to(nulls, (len(null), self.stages))
    ids = jnp.full(nulls.shape, self.classes, jnp.int32)
    if self.classes:
      ids = jnp.where(nulls, self.classes, inputs['label'][:, None])
    table = Embed(self.classes + 1, self.width, normal(self.std), name='label')
    return Cond(prefix=jnp.repeat(table(ids), self.prefix, axis=1))


class ClassAndLevel(nn.Module):
  """A class label, or null, and the noise level of every entity.

  The sum of both vectors is what adaLN reads, a row for every entity. The last
  row of the table of classes is that of null, see `ClassLabel`.

  Source: OliverRensu/xAR (arXiv 2502.20388).

  Attributes:
    classes: number of classes.
    width: d.
    drop: share of training examples whose label is replaced by null.
    std: standard deviation of the table at the start.
    level_std: of the kernels of `LevelEmbedding`; None: Xavier's.
  """

  classes: Natural
  width: Width
  drop: Share = 0.1
  std: AtLeast0 = 0.02
  level_std: AtLeast0 | None = None

  reads_slots: ClassVar[bool] = True

  def blank(self, batch: int) -> dict:
    return {'label': np.zeros(batch, np.int32)}

  @nn.compact
  def __call__(self, inputs: dict, slots: Slots, *, null: jax.Array) -> Cond:
    """The condition of a batch.

    Args:
      inputs: 'label' (b,) int32 in [0, classes); not read where classes = 0.
      slots: their `level` (b or 1, s).
      null: (b,) bool, True where the label is dropped.
    """
    ids = jnp.full(null.shape, self.classes, jnp.int32)
    if self.classes:
      ids = jnp.where(null, self.classes, inputs['label'])
    table = Embed(self.classes + 1, self.width, normal(self.std), name='label')
    embed = LevelEmbedding(self.width, std=self.level_std, name='level')
    level = embed(self.times(jnp.asarray(slots.level)))
    return Cond(modulation=table(ids)[:, None] + level, per='entity')

  def times(self, level: jax.Array) -> jax.Array:
    """Levels as the times that `LevelEmbedding` takes."""
    return as_time(level)


class ClassAndTime(ClassAndLevel):
  """The same with times 1 - level in [0, 1], which rise from noise to data.

  Source: arXiv 2401.08740 (SiT); TheFllood/ARFlow.
  """

  def times(self, level: jax.Array) -> jax.Array:
    return 1 - level.astype(jnp.float32)


class Caption(nn.Module):
  """Features of a caption, or null, as prefix vectors.

  fc2(gelu(fc1 x)), tanh form, without biases. The null caption is a table of fixed
  random numbers, with the padding of the caption that it replaces.

  Source: FoundationVision/LlamaGen, CaptionEmbedder.

  Attributes:
    length: rows of features, and prefix slots.
    channels: numbers of a row.
    width: d.
    drop: share of training examples whose caption is replaced by null.
    std: standard deviation of the kernels at the start.
  """

  length: Count
  channels: Width
  width: Width
  drop: Share = 0.1
  std: AtLeast0 = 0.02

  reads_slots: ClassVar[bool] = False

  def blank(self, batch: int) -> dict:
    shape = (batch, self.length)
    text = np.zeros((*shape, self.channels), np.float32)
    return {'text': text, 'text_valid': np.ones(shape, bool)}

  @nn.compact
  def __call__(self, inputs: dict, slots=None, *, null: jax.Array) -> Cond:
    """The condition of a batch.

    Args:
      inputs: 'text' (b, length, channels) float32, padded on the left, and
        'text_valid' (b, length) bool, False where padded.
      slots: not read.
      null: (b,) bool, True where the caption is dropped.
    """
    shape = (self.length, self.channels)
    init = normal(self.channels**-0.5)
    nothing = fixed(self, 'null', init, (None, None), shape)
    x = jnp.where(null[:, None, None], nothing, inputs['text'])

    def linear(name, axes):
      init = normal(self.std)
      return Dense((self.width,), axes, bias=False, kernel_init=init, name=name)

    x = jax.nn.gelu(linear('fc1', (None, 'mlp'))(x), approximate=True)
    x = linear('fc2', ('mlp', 'embed'))(x)
    return Cond(prefix=x, prefix_valid=inputs['text_valid'])


class CaptionMemory(Caption):
  """The same vectors for blocks with cross attention, padding left out."""

  def __call__(self, inputs: dict, slots=None, *, null: jax.Array) -> Cond:
    """See `Caption`."""
    cond = super().__call__(inputs, slots, null=null)
    return Cond(memory=cond.prefix, memory_valid=cond.prefix_valid)


class Together(nn.Module):
  """Several conditions as one.

  Prefixes and memories follow one another, modulations and additions per token
  are summed. Every part reads its own arrays; two parts may read the same one.

  Attributes:
    parts: name -> template of a condition.
    rate: share of training examples that lose all parts at once; None: every part
      is dropped by itself, at its own rate.
  """

  parts: dict[str, Template]
  rate: Share | None = None

  @property
  def drop(self) -> float | tuple[float, ...]:
    if self.rate is not None:
      return self.rate
    return tuple(part.drop for part in self._unbound)

  @property
  def reads_slots(self) -> bool:
    return any(part.reads_slots for part in self._unbound)

  @property
  def _unbound(self):
    return [part(parent=None) for part in self.parts.values()]

  def blank(self, batch: int) -> dict:
    found: dict = {}
    for part in self._unbound:
      found |= part.blank(batch)
    return found

  @nn.compact
  def __call__(self, inputs: dict, slots=None, *, null: jax.Array) -> Cond:
    """The condition of a batch; `null` is (b,) or (b, parts)."""
    nulls = null if null.ndim == 2 else null[:, None]
    nulls = jnp.broadcast_to(nulls, (len(null), len(self.parts)))
    conds = [
      part(name=name)(inputs, slots, null=nulls[:, i])
      for i, (name, part) in enumerate(self.parts.items())
    ]
    return functools.reduce(together, conds)


def together(a: Cond, b: Cond) -> Cond:
  """Two conditions as one, see `Together`.

  Raises:
    ValueError: modulations with rows of different things.
  """

  def both(f, x, y):
    return (y if x is None else x) if x is None or y is None else f(x, y)

  def joined(name):
    rows = [getattr(c, name) for c in (a, b)]
    valid = [getattr(c, f'{name}_valid') for c in (a, b)]
    if any(v is not None for v in valid):
      valid = [
        jnp.ones(r.shape[:2], bool) if v is None and r is not None else v
        for r, v in zip(rows, valid)
      ]
    join = lambda x, y: jnp.concatenate([x, y], 1)
    return {name: both(join, *rows), f'{name}_valid': both(join, *valid)}

  many = {
    c.per
    for c in (a, b)
    if c.modulation is not None and c.modulation.shape[1] > 1
  }
  if len(many) > 1:
    raise ValueError(
      'config.condition.parts: one modulates every slot and another every '
      'entity; use conditions of one kind'
    )
  return Cond(
    modulation=both(jnp.add, a.modulation, b.modulation),
    per_token=both(jnp.add, a.per_token, b.per_token),
    per=many.pop() if many else 'slot',
    **joined('prefix'),
    **joined('memory'),
  )
