"""The Axial Transformer: rows above by axial attention, then one row."""

import functools
from typing import ClassVar

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from arvision.layers.attention import BlockInputs
from arvision.layers.axial import AxialBlock
from arvision.layers.cache import Cache
from arvision.layers.param import normal, param
from arvision.layers.stack import Caches, Stack
from arvision.layouts.base import Layout
from arvision.ranges import AtLeast0, Below1, Dtype, Few, FewOr0, Side, Width
from arvision.structs import Cond, Slots, Template


@flax.struct.dataclass
class Rows(Cache):
  """What a step of decoding knows of the steps before it.

  Attributes:
    tokens: (b, t, d) embedded tokens, zeros for those not sampled yet.
    channels: (b, h, w, d) what the current channel knows of those before it.
    above: (b, w, d) what the current row knows of the rows above it.
    outer: keys and values of the columns, a row of the grid each.
    inner: keys and values of the current row.
  """

  tokens: jax.Array
  channels: jax.Array
  above: jax.Array
  outer: Caches | None
  inner: Caches | None


class Axial(nn.Module):
  """An Axial Transformer over the pixels of `layouts.grid.channels`.

  A channel encoder (rows and columns, not masked) reads the channels before the
  current one. An outer decoder (rows not masked, columns masked) reads the current
  one, and its output is shifted down a row. An inner decoder (rows, masked) reads
  both, and the pixels of the current row shifted right. So a step of decoding runs
  the inner decoder alone; the outer one runs once a row, the encoder once a channel.

  The vector of the prefix is added to the input of all three.

  Source: arXiv 1912.12180.
  Differs: the prefix; the published model has no classes.

  Attributes:
    grid: (height, width) of a channel.
    width: d.
    heads: attention heads.
    encoder, outer: pairs of layers, along rows and along columns; without further
      channels the encoder has none.
    inner: layers along rows.
    input: template of the input embedding of a channel.
    block: template of a block.
    last_norm: template of the last norm.
    channels: grids of the layout.
    std: standard deviation of positions at the start.
    dropout: rate on the inputs of encoder and decoders.
    remat, unroll: see `Stack`.
    dtype: compute dtype of the blocks.
  """

  grid: tuple[Side, Side]
  width: Width
  heads: Few
  encoder: FewOr0
  outer: Few
  inner: Few
  input: Template
  block: Template
  last_norm: Template
  channels: Few = 1
  std: AtLeast0 = 0.02
  dropout: Below1 = 0.0
  remat: str = 'none'
  unroll: Few = 1
  dtype: Dtype = jnp.float32

  recalls: ClassVar[bool] = False

  def setup(self):
    if (self.channels > 1) != bool(self.encoder):
      wanted = '1 or more' if self.channels > 1 else '0'
      raise ValueError(
        f'config.backbone.encoder={self.encoder}: wanted {wanted} for '
        f'config.backbone.channels={self.channels}'
      )
    make = functools.partial(self.input, width=self.width)
    self.inputs = [make(name=f'input_{k}') for k in range(self.channels)]

    def table(name, rows):
      names, shape = (None, 'embed'), (rows, self.width)
      return jnp.asarray(param(self, name, normal(self.std), names, shape))

    rows, columns = self.grid
    self.places = table('rows', rows)[:, None] + table('columns', columns)
    self.channel = table('channel', self.channels)
    if self.encoder:
      self.encode = self._stack(self.encoder, True)
    self.decode_outer = self._stack(self.outer, True)
    self.decode_inner = self._stack(self.inner, False)
    self.norm = self.last_norm()
    self.drop = nn.Dropout(self.dropout)

  def _stack(self, depth, axial, **fields):
    block = self.block
    if axial:
      block = functools.partial(AxialBlock, columns=self.grid[1], block=block)
    block = functools.partial(block, heads=self.heads, dtype=self.dtype)
    unroll = min(self.unroll, depth)
    return Stack(block, depth, remat=self.remat, unroll=unroll, **fields)

  def empty_cache(self, batch: int, layout: Layout, room: int = 0) -> Rows:
    """`Rows` without any token; nothing is computed again."""
    del room
    rows, columns = self.grid
    zeros = lambda *shape: jnp.zeros((batch, *shape, self.width))
    make = functools.partial(self._stack, parent=None)
    return Rows(
      zeros(layout.tokens),
      zeros(rows, columns),
      zeros(columns),
      make(self.outer, True).empty_cache(batch, rows, self.width),
      make(self.inner, False).empty_cache(batch, columns, self.width),
    )

  def __call__(
    self,
    slots: Slots,
    cond: Cond,
    layout: Layout,
    *,
    cache: Rows | None = None,
    commit: bool = True,
    train: bool = False,
  ) -> tuple[jax.Array, Rows | None]:
    """Hidden vectors (b, n, 1, d) of all slots, or with a cache of the next one.

    Raises:
      ValueError: another layout than `layouts.grid.channels` of these grids.
    """
    wanted = (tuple(self.grid),) * self.channels
    if layout.grids != wanted or layout.prefix != 1:
      raise ValueError(
        f'config.backbone.grid={self.grid} and .channels={self.channels}: wanted '
        f'those of config.layout, layouts.grid.channels, which has {layout.grids}'
      )
    given = jnp.zeros((1, self.width))
    if cond.prefix is not None:
      given = jnp.asarray(cond.prefix)[:, 0]
    if cache is None:
      x = self._all(jnp.asarray(slots.values), given, train)
      return x[:, :, None], None
    x, new = self._next(slots, given, cache)
    return x[:, :, None], new if commit else cache

  # ------------------------------------------------------------ the whole image

  def _all(self, values, given, train):
    """(b, t, d) of the slots (b, t), of which slot i carries token i - 1."""
    # The last token is the only one that no slot carries, and nothing reads it.
    own = jnp.pad(values[:, 1:], ((0, 0), (0, 1)))
    (rows, columns), c, d = self.grid, self.channels, self.width
    own = own.reshape(-1, c, rows * columns)
    x = jnp.stack([f(own[:, k]) for k, f in enumerate(self.inputs)], 1)
    x = x.reshape(-1, c, rows, columns, d)
    where = self.places + self.channel[:, None, None]
    where = where + given[:, None, None, None]
    known = jnp.zeros_like(x)
    if c > 1:
      before = jnp.cumsum(x, 1)[:, :-1] + where[:, 1:]
      found = self._encoder(before.reshape(-1, rows * columns, d), train)
      known = known.at[:, 1:].set(found.reshape(-1, c - 1, rows, columns, d))
    base = where + known
    y = self._dropped((x + base).reshape(-1, rows * columns, d), train)
    mask = np.tri(rows, dtype=bool)[None, None]
    y, _ = self.decode_outer(y, BlockInputs(mask=mask, train=train))
    above = _shifted(y.reshape(x.shape).astype(jnp.float32), 2)
    z = _shifted(x, 3) + above + base
    z = self._dropped(z.reshape(-1, columns, d), train)
    mask = np.tri(columns, dtype=bool)[None, None]
    z, _ = self.decode_inner(z, BlockInputs(mask=mask, train=train))
    z = self.norm(z.astype(jnp.float32))
    return z.reshape(len(values), -1, d)

  def _encoder(self, x, train=False):
    """Channels before another, summed (b, h w, d), encoded for it in float32."""
    mask = np.ones((1, 1, 1, 1), bool)
    inputs = BlockInputs(mask=mask, train=train)
    x, _ = self.encode(self._dropped(x, train), inputs)
    return x.astype(jnp.float32)

  def _dropped(self, x, train):
    return self.drop(x, deterministic=not train).astype(self.dtype)

  # ------------------------------------------------------------ token by token

  def _next(self, slots, given, cache):
    """(b, 1, d) of the next slot, and the new cache."""
    (rows, columns), d = self.grid, self.width
    i = slots.index[0]
    channel, place = i // (rows * columns), i % (rows * columns)
    row, column = place // columns, place % columns
    # The first slot carries none: what it writes, the second one overwrites.
    last = jnp.maximum(i - 1, 0)
    x = jnp.stack([f(slots.values) for f in self.inputs])
    x = x[last // (rows * columns)]
    put = jax.lax.dynamic_update_slice_in_dim
    cache = cache.replace(tokens=put(cache.tokens, x, last, 1))
    where = jnp.broadcast_to(given, (len(cache.tokens), d))[:, None]
    where = where + self.channel[channel]
    # Linen modules may not be called inside of `lax.cond`.
    net, variables = self.unbind()

    def at(method):
      apply = functools.partial(net.apply, variables, method=method)
      return lambda cache: apply(cache, where, channel, row)

    if self.channels > 1:
      start = (place == 0) & (channel > 0)
      cache = _changed(start, at('next_channel'), cache)
    cache = _changed((column == 0) & (row > 0), at('next_row'), cache)
    take = functools.partial(jax.lax.dynamic_index_in_dim, keepdims=False)
    base = where[:, 0] + take(take(self.places, row, 0), column, 0)
    base = base + take(take(cache.channels, row, 1), column, 1)
    above = jnp.where(row > 0, take(cache.above, column, 1), 0)
    z = base + above + jnp.where(column > 0, x[:, 0], 0)
    seen = (jnp.arange(columns) <= column)[None, None, None]
    inputs = BlockInputs(mask=seen, start=column, extent=columns)
    z, inner = self.decode_inner(
      z[:, None].astype(self.dtype), inputs, cache.inner
    )
    return self.norm(z.astype(jnp.float32)), cache.replace(inner=inner)

  def next_channel(
    self, cache: Rows, where: jax.Array, channel: jax.Array, row: jax.Array
  ) -> Rows:
    """The cache at the first pixel of a channel: the others are encoded.

    Args:
      cache: with all tokens before it.
      where: (b, 1, d) condition and channel.
      channel, row: () of the pixel.
    """
    del row
    rows, columns = self.grid
    tokens = cache.tokens.reshape(-1, self.channels, rows * columns, self.width)
    before = (jnp.arange(self.channels) < channel)[:, None, None]
    x = jnp.sum(jnp.where(before, tokens, 0), 1) + where
    x = x + self.places.reshape(-1, self.width)
    return cache.replace(
      channels=self._encoder(x).reshape(cache.channels.shape)
    )

  def next_row(
    self, cache: Rows, where: jax.Array, channel: jax.Array, row: jax.Array
  ) -> Rows:
    """The cache at the first pixel of a row: the outer decoder reads that above.

    Args: see `next_channel`.
    """
    rows, columns = self.grid
    above = row - 1
    take = functools.partial(jax.lax.dynamic_index_in_dim, keepdims=False)
    first = (channel * rows + above) * columns
    x = jax.lax.dynamic_slice_in_dim(cache.tokens, first, columns, 1) + where
    x = x + take(self.places, above, 0) + take(cache.channels, above, 1)
    seen = (jnp.arange(rows) <= above)[None, None, None]
    inputs = BlockInputs(mask=seen, start=above, extent=rows)
    y, outer = self.decode_outer(x.astype(self.dtype), inputs, cache.outer)
    return cache.replace(above=y.astype(jnp.float32), outer=outer)


def _changed(when, change, cache):
  """change(cache) if `when`, known statically or not."""
  if isinstance(when, jax.core.Tracer):
    return jax.lax.cond(when, change, lambda cache: cache, cache)
  return change(cache) if when else cache


def _shifted(x, axis):
  """x moved on by one along an axis, with zeros where it starts."""
  pad = [(0, 0)] * x.ndim
  pad[axis] = (1, 0)
  return jax.lax.slice_in_dim(jnp.pad(x, pad), 0, x.shape[axis], axis=axis)
