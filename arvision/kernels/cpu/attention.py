"""Attention as it is written, and the same by parts that suit a CPU.

Two things cost a CPU time that a GPU or TPU would not notice. Logits that leave the
cache take twice the time, so some heads are taken at a time; and a static mask hides
keys from many rows at once, so rows are taken in bands, without the keys that none
of them sees.
"""

import functools

import jax
import jax.numpy as jnp

from arvision.kernels.cpu.product import product
from arvision.layouts.masks import Pattern

# Bytes of float32 logits: where all together have more than the first number, as
# many heads are taken at a time as the second lets (measured on an EPYC of two
# cores).
_MANY, _CACHED = 24 << 20, 6 << 20

# Bands have so many rows at least, and there are so many at most: each is compiled.
_BAND, _BANDS = 64, 16

# Rows of queries, and the keys that are taken with them.
_Bands = list[tuple[slice, slice]]


def dense(q, k, v, mask, drop=None) -> jax.Array:
  """softmax(q kᵀ + mask) v with float32 softmax: the reference of all kernels.

  Args:
    q: (b, h, n, k), scaled already.
    k, v: (b, h, m, k).
    mask: bool, broadcastable to (b, h, n, m), True = may attend.
    drop: what is done to the weights of the sum, or None.

  Returns:
    (b, h, n, k) in the dtype of v.
  """
  logits = product('bhnk,bhmk->bhnm', q, k, q.dtype)
  logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
  share = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
  share = share if drop is None else drop(share)
  return product('bhnm,bhmk->bhnk', share, v, v.dtype).astype(v.dtype)


def dense_by_parts(q, k, v, mask, pattern: Pattern | None = None) -> jax.Array:
  """`dense` on a single CPU device.

  Args:
    q, k, v, mask: see `dense`.
    pattern: what is static of the mask, of n = m rows; or None.
  """
  bands = _bands(q, k, pattern)
  group = _group(q, mask, bands)
  if group is None:
    return _by_bands(q, k, v, mask, bands)
  return _by_groups(q, k, v, mask, bands, group)


def _bands(q, k, pattern) -> _Bands:
  rows = q.shape[2]
  if pattern is None:
    return [(slice(0, rows), slice(0, k.shape[2]))]
  return pattern.bands(max(_BAND, rows // _BANDS))


def _group(q, mask, bands) -> int | None:
  """Heads of an example that are taken at a time; None: all of a batch."""
  batch, heads = q.shape[:2]
  if mask.ndim < 4 or mask.shape[1] > 1:
    return None
  each = [4 * (r.stop - r.start) * (c.stop - c.start) for r, c in bands]
  if batch * heads * sum(each) <= _MANY:
    return None
  fit = [g for g in range(1, heads + 1) if heads % g == 0]
  return max(g for g in fit if g == 1 or g * max(each) <= _CACHED)


def _by_bands(q, k, v, mask, bands) -> jax.Array:
  """`dense`, some rows at a time and only the keys that these see."""
  if len(bands) == 1:
    return dense(q, k, v, mask)
  parts = [
    dense(q[:, :, r], k[:, :, c], v[:, :, c], mask[:, :, r, c])
    for r, c in bands
  ]
  return jnp.concatenate(parts, axis=2)


def _by_groups(q, k, v, mask, bands, group) -> jax.Array:
  """`_by_bands`, some heads of an example at a time."""
  parts = q.shape[1] // group

  def cut(x):
    return x.reshape(-1, 1, group, *x.shape[2:])

  # Weights leave the cache too: the backward pass computes them again.
  @functools.partial(jax.checkpoint, prevent_cse=False)
  def some(inputs):
    i, *qkv = inputs
    of_example = i // parts if mask.shape[0] > 1 else 0
    seen = jax.lax.dynamic_slice_in_dim(mask, of_example, 1)
    return _by_bands(*qkv, seen, bands)

  cuts = [cut(x) for x in (q, k, v)]
  out = jax.lax.map(some, (jnp.arange(len(cuts[0])), *cuts))
  return out.reshape(*q.shape[:3], v.shape[-1])
