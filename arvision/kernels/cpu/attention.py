"""Dense attention, and a blocked version of it for a single CPU device.

The blocked version processes a few heads at a time, so that their logits stay in
the cache: otherwise they take twice as long. It also splits queries into bands,
and leaves out the keys that a static mask hides from a whole band.
"""

import functools

import jax
import jax.numpy as jnp

from arvision.kernels.cpu.product import product
from arvision.layouts.masks import Pattern

# Bytes of float32 logits. If all heads together have more than `_MANY`, a group of
# heads gets at most `_CACHED`. Measured on two cores of an EPYC.
_MANY, _CACHED = 24 << 20, 6 << 20

# Least queries of a band, and most bands: each band is compiled separately.
_BAND, _BANDS = 64, 16

# (queries, keys) of every band.
_Bands = list[tuple[slice, slice]]


def dense(q, k, v, mask, drop=None) -> jax.Array:
  """softmax(q kᵀ + mask) v with float32 softmax: the reference for all kernels.

  Args:
    q: (b, h, n, k), scaled already.
    k, v: (b, h, m, k).
    mask: bool, broadcastable to (b, h, n, m), True = may attend.
    drop: dropout of the attention weights, or None; see `kernels.attention`.

  Returns:
    (b, h, n, k) in the dtype of v.
  """
  logits = product('bhnk,bhmk->bhnm', q, k, q.dtype)
  logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
  weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
  weights = weights if drop is None else drop(weights)
  return product('bhnm,bhmk->bhnk', weights, v, v.dtype).astype(v.dtype)


def dense_by_parts(q, k, v, mask, pattern: Pattern | None = None) -> jax.Array:
  """`dense` on a single CPU device.

  Args:
    q, k, v, mask: see `dense`.
    pattern: the static part of the mask, with n = m; or None.
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
  """Heads of one example to process at a time; None: the whole batch at once."""
  batch, heads = q.shape[:2]
  if mask.ndim < 4 or mask.shape[1] > 1:
    return None
  each = [4 * (r.stop - r.start) * (c.stop - c.start) for r, c in bands]
  if batch * heads * sum(each) <= _MANY:
    return None
  fit = [g for g in range(1, heads + 1) if heads % g == 0]
  return max(g for g in fit if g == 1 or g * max(each) <= _CACHED)


def _by_bands(q, k, v, mask, bands) -> jax.Array:
  """`dense`, band by band."""
  if len(bands) == 1:
    return dense(q, k, v, mask)
  parts = [
    dense(q[:, :, r], k[:, :, c], v[:, :, c], mask[:, :, r, c])
    for r, c in bands
  ]
  return jnp.concatenate(parts, axis=2)


def _by_groups(q, k, v, mask, bands, group) -> jax.Array:
  """`_by_bands`, one group of heads of one example at a time."""
  parts = q.shape[1] // group

  def cut(x):
    return x.reshape(-1, 1, group, *x.shape[2:])

  # Saved attention weights would leave the cache: the backward pass recomputes them.
  @functools.partial(jax.checkpoint, prevent_cse=False)
  def some(inputs):
    i, *qkv = inputs
    of_example = i // parts if mask.shape[0] > 1 else 0
    seen = jax.lax.dynamic_slice_in_dim(mask, of_example, 1)
    return _by_bands(*qkv, seen, bands)

  cuts = [cut(x) for x in (q, k, v)]
  out = jax.lax.map(some, (jnp.arange(len(cuts[0])), *cuts))
  return out.reshape(*q.shape[:3], v.shape[-1])
