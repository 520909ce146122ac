"""The decoder-only transformer that most of the papers share."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.kernels.attention import AttentionMask
from arvision.layers.attention import Cache
from arvision.layers.blocks import Block
from arvision.layers.dense import Dense, Embed
from arvision.layers.norm import modulate
from arvision.layers.param import normal
from arvision.layers.stack import BlockInputs, Caches, Stack
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


class VectorInput(nn.Module):
  """Input embedding of vectors: a linear map in float32 (VAR's word_embed).

  Attributes:
    width: d.
    std: standard deviation at the start; None: Xavier's.
  """

  width: Width
  std: AtLeast0 | None = 0.02

  @nn.compact
  def __call__(self, values: jax.Array, masked=None) -> jax.Array:
    del masked
    init = normal(self.std)
    return Dense(
      (self.width,), (None, 'embed'), kernel_init=init, name='linear'
    )(values)


class Decoder(nn.Module):
  """Slots + condition + layout -> hidden, with or without a cache.

  Attributes:
    width: d.
    depth: number of layers.
    heads: attention heads.
    input: template of the input embedding.
    attention, mlp, norm: templates of the blocks' parts.
    position: template of learned positions, or None.
    rotary: rotations by coordinates, or None.
    adaln: template of a block's modulation, or None.
    shared_adaln: one set of six modulations for all blocks; `adaln` then adds
      each block's offset (VAR-d36).
    block: template of a block, which these parts are given.
    embedding_norm: template of a norm on the embedded slots, or None (BERT).
    last_norm: template of the last norm where it is another one.
    modulated_norm: whether the last norm is modulated (VAR's head_nm).
    modulation_std: standard deviation of the modulation layers outside of
      the blocks.
    norm_std: standard deviation of the last norm's modulation.
    dropout: rate on the embedded slots, condition included (LlamaGen).
    drop_path: largest rate of stochastic depth.
    remat, unroll: see `Stack`.
    dtype: compute dtype of the blocks.
  """

  width: Width
  depth: Few
  heads: Few
  input: Template
  attention: Template
  mlp: Template
  norm: Template
  position: Template | None = None
  rotary: Callable | None = None
  adaln: Template | None = None
  shared_adaln: bool = False
  block: Template = Block
  embedding_norm: Template | None = None
  last_norm: Template | None = None
  modulated_norm: bool = False
  modulation_std: AtLeast0 = 0.02
  norm_std: AtLeast0 = 0.02
  dropout: Below1 = 0.0
  drop_path: Below1 = 0.0
  remat: str = 'none'
  unroll: Few = 1
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    slots: Slots,
    cond: Cond,
    layout: Layout,
    *,
    cache: tuple[Caches, ...] | None = None,
    commit: bool = True,
    train: bool = False,
  ) -> tuple[jax.Array, tuple[Caches, ...] | None]:
    """Hidden vectors (b, n, r, d) of some slots, see `Backbone`."""
    x = self._embed(slots, cond, layout, cache)
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    modulation: Any = cond.modulation
    rows = None
    if modulation is not None and modulation.shape[1] > 1:
      if cond.per == 'slot':
        modulation = modulation[:, slots.index]
        cond = cond.replace(modulation=modulation)
      else:
        # A few vectors for many slots: they are mapped first, then dealt out.
        rows = take(layout.group, slots.index)
    if self.shared_adaln:
      modulation = self._modulation('shared_adaln', 6, self.modulation_std)(
        jax.nn.silu(modulation)
      )
    inputs = self._inputs(slots, cond, layout, modulation, cache, train)
    inputs = inputs.replace(rows=rows)
    x = x.astype(self.dtype)
    hidden, written = self._layers(x, inputs, cond, cache, layout, slots)
    return hidden, written if commit else cache

  @property
  def stacks(self) -> tuple[tuple[int, int, int], ...]:
    """Depth, width and heads of every stack with a cache."""
    return ((self.depth, self.width, self.heads),)

  def empty_cache(self, batch: int, layout: Layout) -> tuple[Caches, ...]:
    """A cache for every layer of every stack, with a row per clean slot."""

    def empty(width, heads):
      head = width // heads
      return Cache.empty(batch, heads, len(layout.clean), head, self.dtype)

    return tuple(
      tuple(empty(w, h) for _ in range(d)) for d, w, h in self.stacks
    )

  def _layers(self, x, inputs, cond, cache, layout, slots):
    """x (b, n, d) -> hidden (b, n, branches, d), and the caches of the stacks."""
    (own,) = (None,) if cache is None else cache
    x, own = self._stack('stack', self.depth)(x, inputs, own)
    hidden = self._last_norm('norm', x, cond)[:, :, None]
    return hidden, None if cache is None else (own,)

  def _last_norm(self, name, x, cond):
    norm = self.last_norm or self.norm
    x = norm(name=name)(x.astype(jnp.float32))
    if self.modulated_norm:
      two = self._modulation(f'{name}_adaln', 2, self.norm_std)(
        jax.nn.silu(jnp.asarray(cond.modulation, jnp.float32))
      )
      x = modulate(x, two[..., 0, :], two[..., 1, :])
    return x

  def _stack(self, name, depth, keep=False, width=None, heads=None, inner=None):
    width, heads = width or self.width, heads or self.heads
    inner = inner or self.mlp

    def attention(name):
      return self.attention(heads=heads, dtype=self.dtype, name=name)

    def mlp(name):
      return inner(dtype=self.dtype, name=name)

    def norm(name):
      return self.norm(dtype=self.dtype, name=name)

    def adaln(name):
      return self.adaln(width=width, dtype=self.dtype, name=name)

    def block(**kwargs):
      return self.block(
        attention, mlp, norm, adaln if self.adaln else None, **kwargs
      )

    return Stack(
      block,
      depth,
      self.drop_path,
      self.remat,
      min(self.unroll, depth),
      keep,
      name=name,
    )

  def _embed(self, slots, cond, layout, cache):
    """Input vectors of the slots, (b, n, d) float32."""
    index = slots.index
    x = self.input(width=self.width, name='input')(slots.values, slots.masked)
    if layout.prefix:
      first = np.arange(len(index)) if cache is None else index
      x = self._fill_prefix(x, cond.prefix, first, layout.prefix)
    if self.position is not None:
      x = x + self.position(width=self.width, name='position')(layout, slots)
    if self.embedding_norm is not None:
      x = self.embedding_norm(name='embedding_norm')(x)
    return x

  def _fill_prefix(self, x, prefix, index, count):
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

  def _inputs(self, slots, cond, layout, modulation, cache, train):
    index, extent = slots.index, slots.extent
    if cache is None:
      extent = len(index)
    valid: Any = True if slots.valid is None else slots.valid
    if cond.prefix_valid is not None:
      rest = extent - layout.prefix
      valid &= jnp.pad(
        cond.prefix_valid, ((0, 0), (0, rest)), constant_values=True
      )
    static = isinstance(index, np.ndarray)
    xp = np if static and valid is True else jnp
    mask: Any
    if cache is not None:
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
      modulation=modulation,
      rotation=self._rotation(layout, index, self.width // self.heads),
      start=None if cache is None else take(layout.row, index[:1])[0],
      extent=extent,
      train=train,
    )

  def _rotation(self, layout, index, head):
    return None if self.rotary is None else self.rotary(layout, index, head)

  def _modulation(self, name, chunks, std):
    return Dense(
      (chunks, self.width),
      ('embed', None, 'mlp'),
      kernel_init=normal(std),
      name=name,
    )
