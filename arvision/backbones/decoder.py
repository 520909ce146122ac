"""The decoder-only transformer that most of the papers share.

Input embeddings of single papers are in `backbones.inputs`.
"""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.backbones.base import Body, Pass, Size
from arvision.backbones.bodies import OneStack
from arvision.kernels.attention import AttentionMask
from arvision.layers.attention import BlockInputs, Memory
from arvision.layers.dense import Dense, Embed
from arvision.layers.param import normal
from arvision.layers.stack import Caches, Stack
from arvision.layouts import masks
from arvision.layouts.base import Layout, take
from arvision.ranges import AtLeast0, Below1, Count, Dtype, Few, Natural, Width
from arvision.structs import Cond, Slots, Template


class CodeInput(nn.Module):
  """Input embedding of codes: a table with a row per id (LlamaGen).

  Attributes:
    width: d.
    vocab_size: number of ids.
    std: standard deviation at the start.
    extra: rows after those of the ids; the first is that of masked tokens.
  """

  width: Width
  vocab_size: Count
  std: AtLeast0 = 0.02
  extra: Natural = 0

  @nn.compact
  def __call__(self, values: jax.Array, masked=None) -> jax.Array:
    if masked is not None:
      values = jnp.where(masked, self.vocab_size, values)
    rows = self.vocab_size + self.extra
    return Embed(rows, self.width, normal(self.std), name='codes')(values)


class PartsInput(nn.Module):
  """Input embedding of tokens of several ids: tables side by side (ELM).

  Every part has a table of its own; a linear map joins the vectors of several.

  Attributes:
    width: d.
    vocab_size: number of ids of a part.
    parts: ids of a token.
    std: standard deviation at the start.
  """

  width: Width
  vocab_size: Count
  parts: Width
  std: AtLeast0 = 0.02

  @nn.compact
  def __call__(self, values: jax.Array, masked=None) -> jax.Array:
    del masked
    init, part = normal(self.std), np.arange(self.parts)
    rows = values.reshape(*values.shape[:2], -1) + part * self.vocab_size
    table = Embed(self.parts * self.vocab_size, self.width, init, name='codes')
    vectors = table(rows).reshape(*rows.shape[:2], -1)
    if self.parts == 1:
      return vectors
    names = (None, 'embed')
    join = Dense(
      (self.width,), names, bias=False, kernel_init=init, name='join'
    )
    return join(vectors)


class VectorInput(nn.Module):
  """Input embedding of vectors: a linear map in float32 (VAR's word_embed).

  Attributes:
    width: d.
    std: standard deviation at the start; None: Xavier's.
    bias: whether a bias is added.
  """

  width: Width
  std: AtLeast0 | None = 0.02
  bias: bool = True

  @nn.compact
  def __call__(self, values: jax.Array, masked=None) -> jax.Array:
    del masked
    init, names = normal(self.std), (None, 'embed')
    linear = Dense(
      (self.width,), names, bias=self.bias, kernel_init=init, name='linear'
    )
    return linear(values)


class Decoder(nn.Module):
  """Slots + condition + layout -> hidden, with or without a cache.

  Attributes:
    width: d.
    depth: number of layers.
    heads: attention heads.
    input: template of the input embedding.
    block: template of a block, with those of its parts.
    last_norm: template of the last norm; one with the trait `modulated` is given
      the condition.
    body: which stacks of layers there are, see `Body`.
    position: template of learned positions, or None.
    rotary: rotations by coordinates, or None.
    embedding_norm: template of a norm on the embedded slots, or None (BERT).
    shared_adaln: template of a modulation that all blocks share, or None;
      `block.adaln` then adds each block's offset (VAR-d36).
    dropout: rate on the embedded slots, condition included (LlamaGen).
    drop_path: largest rate of stochastic depth.
    remat, unroll: see `Stack`.
    dtype: compute dtype of the blocks.
  """

  width: Width
  depth: Few
  heads: Few
  input: Template
  block: Template
  last_norm: Template
  body: Body = OneStack()
  position: Template | None = None
  rotary: Callable | None = None
  embedding_norm: Template | None = None
  shared_adaln: Template | None = None
  dropout: Below1 = 0.0
  drop_path: Below1 = 0.0
  remat: str = 'none'
  unroll: Few = 1
  dtype: Dtype = jnp.float32

  recalls: ClassVar[bool] = False

  @nn.compact
  def __call__(
    self,
    slots: Slots,
    cond: Cond,
    layout: Layout,
    *,
    cache: tuple[Caches | None, ...] | None = None,
    commit: bool = True,
    train: bool = False,
  ) -> tuple[jax.Array, tuple[Caches | None, ...] | None]:
    """Hidden vectors (b, n, r, d) of some slots, see `Backbone`."""
    positions = None
    if self.position is not None:
      position = self.position(width=self.width, name='position')
      positions = position(layout, slots)
    x = self._embed(slots, cond, layout, cache, positions)
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    modulation: Any = cond.modulation
    rows = None
    if modulation is not None and modulation.shape[1] > 1:
      each = slots.index
      if cond.per != 'slot':
        each = take(layout.group, each)
      if each.ndim > 1:
        modulation = jnp.take_along_axis(modulation, each[..., None], 1)
      elif cond.per == 'slot':
        modulation = modulation[:, each]
      else:
        # A few vectors for many slots: they are mapped first, then dealt out.
        rows = each
    inputs = self._inputs(slots, cond, layout, cache, train)
    inputs = inputs.replace(modulation=modulation, rows=rows)
    if self.shared_adaln is not None:
      shared = self.shared_adaln(width=self.width, name='shared_adaln')
      inputs = inputs.replace(modulation=shared(modulation))
    run = Pass(self, slots, layout, modulation, inputs, positions)
    caches = (None,) * len(self._sizes) if cache is None else cache
    hidden, written = self.body(run, x.astype(self.dtype), caches)
    return hidden, cache if cache is None or not commit else written

  @property
  def size(self) -> Size:
    return Size(self.depth, self.width, self.heads)

  @property
  def _sizes(self):
    return self.body.sizes(self.size)

  def empty_cache(
    self, batch: int, layout: Layout, room: int = 0
  ) -> tuple[Caches | None, ...]:
    """A cache for every stack; see `Layout.rows` and `Stack.empty_cache`.

    Args:
      batch: b.
      layout: static.
      room: further rows, for slots that are computed again.
    """
    rows = layout.rows + room
    return tuple(
      self.make_stack(size, parent=None).empty_cache(batch, rows, size.width)
      for size in self._sizes
    )

  def make_stack(
    self,
    size: Size,
    block: Any = None,
    rates: tuple[float, float] = (0.0, 0.0),
    **fields: Any,
  ) -> Stack:
    """A stack of blocks, see `Pass.stack`."""
    block = functools.partial(
      block or self.block, heads=size.heads, dtype=self.dtype
    )
    unroll = min(self.unroll, size.depth)
    return Stack(block, size.depth, rates, self.remat, unroll, **fields)

  def _embed(self, slots, cond, layout, cache, positions):
    """Input vectors of the slots, (b, n, d) float32."""
    index = slots.index
    x = self._tokens(slots, layout)
    norm = None
    if self.embedding_norm is not None:
      norm = self.embedding_norm(name='embedding_norm')
    tokens_only = getattr(norm, 'tokens_only', False)

    def filled(x):
      if not layout.prefix:
        return x
      first = np.arange(len(index)) if cache is None else index
      return self._fill_prefix(x, cond.prefix, first, layout.prefix)

    x = x if tokens_only else filled(x)
    if positions is not None:
      x = x + positions
    if cond.per_token is not None:
      x = x + _of_targets(cond.per_token, layout, slots)
    if norm is not None:
      x = norm(x)
    return filled(x) if tokens_only else x

  def _tokens(self, slots, layout):
    """Embedded tokens of the slots, anything in prefix slots."""
    del layout  # maps of a subclass depend on it
    return self.input(width=self.width, name='input')(
      slots.values, slots.masked
    )

  def _fill_prefix(self, x, prefix, index, count):
    if index.ndim > 1:
      self._check_prefix(prefix, count)
      own = jnp.minimum(index, count - 1)[..., None]
      own = jnp.take_along_axis(prefix, own, 1).astype(x.dtype)
      return jnp.where((index < count)[..., None], own, x)
    if isinstance(index, np.ndarray):
      rows = np.flatnonzero(index < count)
      if not len(rows):
        return x
      self._check_prefix(prefix, count)
      return x.at[:, rows].set(prefix[:, index[rows]].astype(x.dtype))
    return x  # scanned runs come after the prefix

  def _check_prefix(self, prefix, count):
    got = 0 if prefix is None else prefix.shape[1]
    if got != count:
      raise ValueError(
        f'the layout has {count} prefix slots but the condition fills {got}; '
        'make config.condition.prefix and config.layout agree'
      )

  def _inputs(self, slots, cond, layout, cache, train):
    """What all blocks are given, but for the modulation and the rotation."""
    index, extent = slots.index, slots.extent
    if index.ndim > 1:
      return self._inputs_again(slots, cond, layout, train)
    cached = cache is not None and not layout.markov
    if not cached:
      extent = len(index)
    valid: Any = True if slots.valid is None else slots.valid
    if cond.prefix_valid is not None:
      rest = layout.slots - layout.prefix
      whole = jnp.pad(
        cond.prefix_valid, ((0, 0), (0, rest)), constant_values=True
      )
      alone = cache is not None and not cached
      valid &= whole[:, index if alone else slice(extent)]
    static = isinstance(index, np.ndarray)
    xp = np if static and valid is True else jnp
    mask: Any
    if cached:
      mask = masks.step(layout, index, extent, xp, valid)
    elif static:
      known = None if valid is True else valid
      mask = AttentionMask(masks.pattern(layout, index), known)
    else:
      mask = masks.among(layout, index, xp, valid)
    if not isinstance(mask, AttentionMask):
      mask = jnp.asarray(mask[..., None, :, :])
    return BlockInputs(
      mask=mask,
      memory=_memory(cond),
      index=index,
      layout=layout,
      start=None if cache is None else take(layout.row, index[:1])[0],
      extent=extent,
      guidance=slots.guidance,
      guided_layers=slots.guided_layers,
      train=train,
    )

  def _inputs_again(self, slots, cond, layout, train):
    """The same for slots that are computed again: rows after those of the layout."""
    known: Any = True
    if cond.prefix_valid is not None:
      rest = layout.slots - layout.prefix
      more = ((0, 0), (0, rest))
      known = jnp.pad(cond.prefix_valid, more, constant_values=True)
    mask = masks.again(layout, slots.index, slots.valid, known)
    return BlockInputs(
      mask=mask[:, None],
      memory=_memory(cond),
      index=slots.index,
      layout=layout,
      start=layout.slots,
      extent=layout.slots + slots.index.shape[1],
      train=train,
    )


def _of_targets(per_token, layout, slots):
  """To every slot the vector (b, t, d) of the token that it predicts, or 0."""
  target = slots.target_position
  if target is None:
    target = jnp.atleast_2d(take(layout.target_position, slots.index))
  own = jnp.take_along_axis(per_token, jnp.maximum(target, 0)[..., None], 1)
  return jnp.where((target >= 0)[..., None], own, 0)


def _memory(cond):
  if cond.memory is None:
    return None
  mask = jnp.ones((1, 1, 1, 1), bool)
  if cond.memory_valid is not None:
    mask = jnp.asarray(cond.memory_valid)[:, None, None]
  return Memory(jnp.asarray(cond.memory), mask)
