"""Attention: one function that dispatches to the kernels of the platforms.

    dense    softmax(q kᵀ + mask) v as written: the reference, for any mask. On a
             single CPU device it is blocked, see `kernels.cpu.attention`
    splash   TPU: block-sparse, skips blocks that are masked out
    cudnn    GPU: fused, never materializes the attention weights

The kernel is chosen at trace time, by platform and shapes.
`config.backbone.block.attention.kernel` forces one.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.experimental.pallas.ops.tpu import splash_attention
from jax.sharding import PartitionSpec

from arvision.kernels import traced
from arvision.kernels.cpu.attention import dense, dense_by_parts
from arvision.layouts.masks import Pattern
from arvision.parallel.constrain import constrain

Dropout = Callable[[jax.Array], jax.Array]
KERNELS = ('auto', 'dense', 'splash', 'cudnn')

# 'auto' takes `dense` for fewer queries: their attention weights are small, and
# kernels pad. A rule of thumb, not a measurement.
FEW_QUERIES = 256


@flax.struct.dataclass
class AttentionMask:
  """A self-attention mask as a static pattern, without an array of n x n.

  Attributes:
    pattern: who may attend to whom.
    valid: (b, n) bool or None; False = padding, which only attends to itself.
  """

  pattern: Pattern = flax.struct.field(pytree_node=False)
  valid: jax.Array | None = None

  def dense(self) -> jax.Array:
    """The mask as a bool array, broadcastable to (b, h, n, n)."""
    if self.valid is not None:
      return self.pattern.dense(jnp.asarray(self.valid))[:, None]
    if self.pattern.full:
      return jnp.ones((1, 1, 1, 1), bool)
    return jnp.asarray(self.pattern.dense()[None, None])


def attention(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  mask: AttentionMask | jax.Array,
  drop: Dropout | None = None,
  kernel: str = 'auto',
) -> jax.Array:
  """softmax(q kᵀ + mask) v with float32 softmax.

  Args:
    q: (b, h, n, k), scaled already.
    k, v: (b, h, m, k).
    mask: an `AttentionMask` with n = m; or bool, broadcastable to (b, h, n, m),
      True = may attend, for `dense` only.
    drop: dropout of the attention weights, a function (b, h, n, m) -> the same,
      or None. Only `dense` supports it.
    kernel: 'auto' or one of `KERNELS`. Calls with dropout or a bool mask use
      `dense` in any case.

  Returns:
    (b, h, n, k) in the dtype of v. Padded queries differ between kernels.

  Raises:
    ValueError: an unknown kernel, or one that cannot run here.
  """
  name = choose(q, mask, drop, kernel)
  if name != 'dense':
    assert isinstance(mask, AttentionMask)  # see `choose`
    if name == 'splash':
      return splash(q, k, v, mask, interpret=traced.on_cpu())
    return fused(q, k, v, mask)
  # Queries stay sharded along the sequence; every device gets all keys.
  k, v = (
    constrain(x, ('act_batch', 'act_heads', None, 'act_kv')) for x in (k, v)
  )
  seen = mask.dense() if isinstance(mask, AttentionMask) else mask
  if drop is not None or not traced.on_cpu() or not _is_alone():
    return dense(q, k, v, seen, drop)
  pattern = mask.pattern if isinstance(mask, AttentionMask) else None
  return dense_by_parts(q, k, v, seen, pattern)


def choose(
  q: jax.Array,
  mask: AttentionMask | jax.Array,
  drop: Dropout | None,
  kernel: str,
) -> str:
  """The kernel for a call of `attention`; logs it once."""
  if kernel not in KERNELS:
    raise ValueError(
      f"config.backbone.block.attention.kernel='{kernel}': wanted one of "
      f'{", ".join(KERNELS)}'
    )
  if drop is not None or not isinstance(mask, AttentionMask):
    return 'dense'
  platform, device = traced.devices()
  refused = {
    'splash': _splash_refuses(platform),
    'cudnn': _cudnn_refuses(q, mask, platform, device),
  }
  if kernel == 'auto':
    fit = [name for name, why in refused.items() if not why]
    many = q.shape[2] >= FEW_QUERIES and platform != 'cpu' and _is_placed()
    name = fit[0] if many and fit else 'dense'
  else:
    name = kernel
    if why := refused.get(name):
      raise ValueError(
        f"config.backbone.block.attention.kernel='{name}': {why}; "
        "set it to 'auto' or 'dense'"
      )
  _log_once(f'attention of {q.shape[2]} queries, heads of {q.shape[3]}: {name}')
  return name


@functools.cache
def _log_once(text):
  logging.info(text)


def _is_placed():
  """Whether the devices of the program are known.

  The compiler cannot partition kernels. Without a mesh in scope, arrays may be
  on one device or sharded over several.
  """
  return not jax.sharding.get_abstract_mesh().empty or jax.device_count() == 1


def _is_alone():
  """Whether a program is for a single device."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.are_all_axes_manual:
    return True
  return (jax.device_count() if mesh.empty else mesh.size) == 1


# ------------------------------------------------------------------------ TPU


class _Blocks(splash_attention.splash_attention_mask.Mask):
  """A pattern, padded to `length`, for splash attention.

  Padding is attended to by nobody. It attends to what the last real slot
  attends to, so that every query has a key.
  """

  def __init__(self, pattern: Pattern, length: int):
    self.pattern, self.length = pattern, length

  @property
  def shape(self):
    return self.length, self.length

  def __getitem__(self, index):
    q, k = (np.arange(self.length)[x] for x in index)
    last = self.pattern.slots - 1
    seen = self.pattern.block(np.minimum(q, last), np.minimum(k, last))
    return seen & (k <= last)

  def __eq__(self, other):
    return type(self) is type(other) and self._key == other._key

  def __hash__(self):
    return hash(self._key)

  @property
  def _key(self):
    return self.pattern, self.length


class _Staircase(_Blocks):
  """A pattern that `ends` describes: the kernel computes the mask from it."""

  def __init__(self, pattern: Pattern, length: int):
    super().__init__(pattern, length)
    more = length - pattern.slots
    ends = np.asarray(pattern.ends)
    self.q_sequence = np.pad(ends, (0, more), mode='edge')
    self.mask_function = _before

  def __getitem__(self, index):
    q, k = index
    ends = self.q_sequence[q]
    return _before(ends[:, None], np.arange(self.length)[k])


def _before(end, key):
  return key < end


def block_mask(pattern: Pattern, length: int) -> _Blocks:
  """The splash attention mask of a pattern of n slots.

  Args:
    pattern: the pattern.
    length: n with padding.
  """
  form = _Blocks if pattern.ends is None else _Staircase
  return form(pattern, length)


def block_size(
  length: int, sides: tuple[int, ...] = (512, 384, 256, 128)
) -> tuple[int, int]:
  """Chooses the block size of splash attention.

  The cost grows with the square of the padded length, plus an overhead for
  small blocks. The overhead is a rule of thumb, not a measurement.

  Args:
    length: number of queries.
    sides: candidate block sizes, multiples of 128.

  Returns:
    the block size and the padded length.
  """

  def cost(block):
    return (math.ceil(length / block) * block) ** 2 * (1 + 64 / block)

  block = min(sides, key=cost)
  return block, math.ceil(length / block) * block


def _splash_refuses(platform):
  if platform in ('tpu', 'cpu'):
    return ''
  return f'wants a TPU (or a CPU, interpreted), got {platform}'


def splash(
  q,
  k,
  v,
  mask: AttentionMask,
  interpret: bool = False,
  block: int | None = None,
) -> jax.Array:
  """Block-sparse attention, sharded over examples and heads.

  The mesh axis of the sequence shards heads here, if it divides them.

  Args:
    q, k, v, mask: see `attention`.
    interpret: interpret the kernel, without a TPU, slowly.
    block: block size, a multiple of 128; None: `block_size`.
  """
  n = q.shape[2]
  side, length = block_size(n, *([(block,)] if block else []))
  ids: tuple[jax.Array, ...] = ()
  if mask.valid is not None:
    # Every padded slot is a segment of its own and only attends to itself.
    own = 1 + np.arange(n, dtype=np.int32)
    each = jnp.where(mask.valid, 0, own)
    ids = (jnp.broadcast_to(each, (q.shape[0], n)),)
  kernel = functools.partial(
    _splash_here,
    masks=block_mask(mask.pattern, length),
    side=side,
    interpret=interpret,
  )
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.are_all_axes_manual:
    return kernel(q, k, v, *ids)
  rules = dict(nn.get_logical_axis_rules())
  batch = _dividing(mesh, [rules.get('act_batch')], q.shape[0])
  heads = [rules.get('act_heads'), rules.get('act_length')]
  heads = _dividing(mesh, heads, q.shape[1])
  spec = PartitionSpec(batch, heads)
  specs = (spec,) * 3 + (PartitionSpec(batch),) * len(ids)
  # The kernel does not declare the varying axes of its output.
  mapped = jax.shard_map(
    kernel, in_specs=specs, out_specs=spec, check_vma=False
  )
  return mapped(q, k, v, *ids)


def _splash_here(q, k, v, ids=None, *, masks, side, interpret):
  """`splash` on one device."""
  n = q.shape[2]
  more = masks.length - n
  q, k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, more), (0, 0))) for x in (q, k, v))
  segments = None
  if ids is not None:
    ids = jnp.pad(ids, ((0, 0), (0, more)), mode='edge')
    segments = splash_attention.SegmentIds(ids, ids)
  kernel = splash_attention.make_splash_mha(
    splash_attention.MultiHeadMask([masks]),  # the same for all heads
    block_sizes=_block_sizes(side),
    head_shards=1,
    q_seq_shards=1,
    interpret=interpret,
  )
  return jax.vmap(kernel)(q, k, v, segments)[:, :, :n]


def _block_sizes(side):
  forward = ('q', 'kv', 'kv_compute')
  backward = ('q_dkv', 'kv_dkv', 'kv_dkv_compute', 'q_dq', 'kv_dq')
  sides = {f'block_{name}': side for name in (*forward, *backward)}
  return splash_attention.BlockSizes(**sides)


def _dividing(mesh, axes, size):
  """The mesh axes, taken greedily, whose product divides a size."""
  kept: tuple[str, ...] = ()
  for names in axes:
    for name in (names,) if isinstance(names, str) else names or ():
      parts = math.prod(mesh.shape[a] for a in (*kept, name))
      if name not in kept and size % parts == 0:
        kept += (name,)
  return kept or None


# ------------------------------------------------------------------------ GPU


def _cudnn_refuses(q, mask, platform, device):
  """Why cuDNN cannot take a call; '' if it can."""
  n, head = q.shape[2:]
  if platform not in ('gpu', 'cuda') or not device.startswith('NVIDIA'):
    return f'wants an NVIDIA GPU, got {device} ({platform})'
  if q.dtype not in (jnp.bfloat16, jnp.float16):
    return f"wants config.backbone.dtype='bfloat16', got {q.dtype}"
  if head > 128 or head % 8:
    return f'wants heads of at most 128, a multiple of 8, got {head}'
  if n % 2 and not (mask.pattern.causal or mask.pattern.full):
    return f'wants an even number of slots with such a mask, got {n}'
  return ''


def fused(
  q, k, v, mask: AttentionMask, implementation: str = 'cudnn'
) -> jax.Array:
  """Fused attention by `jax.nn.dot_product_attention`.

  Args:
    q, k, v, mask: see `attention`.
    implementation: of `jax.nn.dot_product_attention`.
  """
  options: dict[str, Any] = {'scale': 1.0, 'implementation': implementation}
  if mask.valid is not None or not (mask.pattern.full or mask.pattern.causal):
    options['mask'] = mask.dense()
  elif not mask.pattern.full:
    options['is_causal'] = True
  length_first = (x.swapaxes(1, 2) for x in (q, k, v))
  return jax.nn.dot_product_attention(*length_first, **options).swapaxes(1, 2)
