"""What a layer keeps of past slots while tokens are decoded."""

from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from arvision.kernels import traced


class Cache:
  """A pytree with batch b first, which an attention module makes and reads.

  Subclasses are flax structs of fixed shapes. These defaults suit a state that
  is small, such as that of a recurrence.

  Attributes:
    joins: whether the caches of a stack become one when its layers are scanned.
  """

  joins: ClassVar[bool] = False

  def first(self, slots: int) -> Any:
    """What is read of it where no slot at or after `slots` is visible."""
    del slots
    return self

  def over(self, whole: Any) -> Any:
    """`whole`, of which this was `first` before it changed, brought up to date."""
    del whole
    return self

  def at_layer(self, i: Any) -> Any:
    """Of the caches of a stack, on a leading axis: that of layer i."""
    index = jax.lax.dynamic_index_in_dim
    return jax.tree.map(lambda x: index(x, i, keepdims=False), self)

  def put_layer(self, i: Any, own: Any) -> Any:
    """The caches of a stack with a new one for layer i, see `at_layer`."""
    put = jax.lax.dynamic_update_index_in_dim
    return jax.tree.map(lambda x, new: put(x, new, i, 0), self, own)


@flax.struct.dataclass
class KeyValues(Cache):
  """Keys and values of one layer, a row per slot of the layout.

  Heads come before slots, so that a decoding step is a plain batched matmul.

  Attributes:
    k, v: (b, h, n, k); of a stack of layers (l, b, h, n, k).
    layer: of a stack, the one that is written and read; None: there is none.
  """

  k: jax.Array
  v: jax.Array
  layer: Any = None

  joins: ClassVar[bool] = True

  @classmethod
  def empty(cls, batch, heads, slots, head_dim, dtype=jnp.float32):
    zeros = jnp.zeros((batch, heads, slots, head_dim), dtype)
    return cls(zeros, zeros)

  def write(self, k, v, start: Any) -> 'KeyValues':
    """Rows k, v (b, h, e, k) at slots start, start + 1, ..."""
    at: tuple[Any, ...] = (0, 0, start, 0)
    if self.layer is not None:
      k, v, at = k[None], v[None], (self.layer, *at)
    put = jax.lax.dynamic_update_slice
    return self.replace(
      k=put(self.k, k.astype(self.k.dtype), at),
      v=put(self.v, v.astype(self.v.dtype), at),
    )

  def first(self, slots: int) -> 'KeyValues':
    """The rows of the first slots alone."""
    return self.replace(k=self.k[..., :slots, :], v=self.v[..., :slots, :])

  def over(self, whole: 'KeyValues') -> 'KeyValues':
    """`whole` with these rows as its first."""
    put = lambda x, new: jax.lax.dynamic_update_slice(x, new, (0,) * x.ndim)
    return whole.replace(k=put(whole.k, self.k), v=put(whole.v, self.v))

  def at_layer(self, i):
    return self.replace(layer=i)

  def put_layer(self, i, own):
    del i  # its rows were written where they are
    return own.replace(layer=None)

  def read(self, extent: int | None) -> tuple[jax.Array, jax.Array]:
    """k and v (b, h, extent, k) of the first slots; None: of all."""
    if self.layer is None:
      return self.k[..., :extent, :], self.v[..., :extent, :]
    return self._of_layer(self.k, extent), self._of_layer(self.v, extent)

  def _of_layer(self, x, extent):
    # Slicing `extent` of all layers first would copy all layers. On a TPU the
    # matrix product reads a single dynamic slice in place: by the plan, a sampling
    # step of VAR-d16 moves 67 GiB instead of 91. On two cores of a CPU that single
    # slice is slower (22.5 s for four images instead of 16.9), so there are two.
    rows = x.shape[-2] if extent is None else min(extent, x.shape[-2])
    if traced.on_cpu():
      x = jax.lax.dynamic_index_in_dim(x, self.layer, keepdims=False)
      return x[..., :rows, :]
    sizes = (1, *x.shape[1:-2], rows, x.shape[-1])
    return jax.lax.dynamic_slice(x, (self.layer, 0, 0, 0, 0), sizes)[0]


@flax.struct.dataclass
class PerModule(Cache):
  """The caches of a layer with several modules that keep something.

  Attributes:
    of: name of a module -> its `Cache`, or None where it keeps nothing.
  """

  of: dict[str, Any]

  def first(self, slots):
    return self._map(lambda own: own.first(slots))

  def over(self, whole):
    return self._map(lambda own, all_: own.over(all_), whole)

  def at_layer(self, i):
    return self._map(lambda own: own.at_layer(i))

  def put_layer(self, i, own):
    return self._map(lambda all_, new: all_.put_layer(i, new), own)

  def _map(self, f, *others):
    is_cache = lambda x: isinstance(x, Cache)
    of = (other.of for other in others)
    return PerModule(jax.tree.map(f, self.of, *of, is_leaf=is_cache))
