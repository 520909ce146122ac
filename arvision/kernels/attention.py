"""Attention: one entry, and the kernels that it chooses among.

    dense    softmax(q kᵀ + mask) v as written; the reference, any mask. By parts
             on a CPU, see `kernels.cpu.attention`
    splash   TPU: block-sparse, skips the blocks that the mask hides
    cudnn    GPU: fused, never holds the weights

The choice is made while a program is traced, by the platform that it is traced
for and by shapes; `config.backbone.block.attention.kernel` forces one.
"""

import functools
import math
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

KERNELS = ('auto', 'dense', 'splash', 'cudnn')

# 'auto' takes `dense` for fewer rows: their weights are small, and kernels pad.
# A rule of thumb, not a measurement.
FEW_ROWS = 256


@flax.struct.dataclass
class AttentionMask:
  """Who may see whom among rows that see one another, not as an array.

  Attributes:
    pattern: static.
    valid: (b, n) bool, False = padding, seen by nobody but itself; or None.
  """

  pattern: Pattern = flax.struct.field(pytree_node=False)
  valid: Any = None

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
  mask: Any,
  drop: Any = None,
  kernel: str = 'auto',
) -> jax.Array:
  """softmax(q kᵀ + mask) v with float32 softmax.

  Args:
    q: (b, h, n, k), scaled already.
    k, v: (b, h, m, k).
    mask: a `AttentionMask` of n = m rows; or bool, broadcastable to (b, h, n, m), True =
      may attend, which only `dense` takes.
    drop: what is done to the weights of the sum, or None; only `dense` takes it.
    kernel: 'auto', or the name of a kernel, taken wherever mask and drop let it.

  Returns:
    (b, h, n, k) in the dtype of v. Rows that are padding differ between kernels.

  Raises:
    ValueError: an unknown kernel, or one that cannot run here.
  """
  name = choose(q, mask, drop, kernel)
  if name == 'splash':
    return splash(q, k, v, mask, interpret=traced.on_cpu())
  if name == 'cudnn':
    return fused(q, k, v, mask)
  # Queries stay where their slots are; every device has all keys.
  k, v = (
    constrain(x, ('act_batch', 'act_heads', None, 'act_kv')) for x in (k, v)
  )
  seen = mask.dense() if isinstance(mask, AttentionMask) else mask
  if drop is not None or not traced.on_cpu() or not _is_alone():
    return dense(q, k, v, seen, drop)
  pattern = mask.pattern if isinstance(mask, AttentionMask) else None
  return dense_by_parts(q, k, v, seen, pattern)


def choose(q: jax.Array, mask: Any, drop: Any, kernel: str) -> str:
  """The kernel for a call of `attention`, said once in the log."""
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
    many = q.shape[2] >= FEW_ROWS and platform != 'cpu' and _is_placed()
    name = fit[0] if many and fit else 'dense'
  else:
    name = kernel
    if why := refused.get(name):
      raise ValueError(
        f"config.backbone.block.attention.kernel='{name}': {why}; "
        "set it to 'auto' or 'dense'"
      )
  _say(f'attention of {q.shape[2]} rows, heads of {q.shape[3]}: {name}')
  return name


@functools.cache
def _say(text):
  logging.info(text)


def _is_placed():
  """Whether it is known which devices a program is for.

  Kernels cannot be partitioned by the compiler. Without a mesh in scope, arrays
  may lie on one device or be spread over several.
  """
  return not jax.sharding.get_abstract_mesh().empty or jax.device_count() == 1


def _is_alone():
  """Whether a program is for a single device."""
  mesh = jax.sharding.get_abstract_mesh()
  return (jax.device_count() if mesh.empty else mesh.size) == 1


# ------------------------------------------------------------------------ TPU


class _Blocks(splash_attention.splash_attention_mask.Mask):
  """A pattern as splash attention asks for it, block by block.

  Rows after those of the pattern are seen by none of these, and see what the
  last of these sees, so that no row is left without a key.
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
  """The same where a number per row says it all: the kernel computes the mask."""

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
  """The mask object of splash attention for a pattern and its padding.

  Args:
    pattern: of n rows.
    length: padded n.
  """
  form = _Blocks if pattern.ends is None else _Staircase
  return form(pattern, length)


def block_size(
  rows: int, sides: tuple[int, ...] = (512, 384, 256, 128)
) -> tuple[int, int]:
  """The side of the kernel's blocks, and the length that rows are padded to.

  Work grows with the square of the length, and small blocks have more overhead
  beside it; how much is a rule of thumb, not a measurement.

  Args:
    rows: of the queries.
    sides: to choose among; multiples of 128.
  """

  def cost(block):
    return (math.ceil(rows / block) * block) ** 2 * (1 + 64 / block)

  block = min(sides, key=cost)
  return block, math.ceil(rows / block) * block


def _splash_refuses(platform):
  if platform in ('tpu', 'cpu'):
    return ''
  return f'wants a TPU, or interpreted a CPU, got {platform}'


def splash(
  q,
  k,
  v,
  mask: AttentionMask,
  interpret: bool = False,
  block: int | None = None,
) -> jax.Array:
  """Block-sparse attention, on every device for its examples and heads.

  Where the mesh has an axis for the sequence, it is spread over heads here, if
  it divides them.

  Args:
    q, k, v, mask: see `attention`.
    interpret: run it without a TPU, slowly.
    block: side of the kernel's blocks, a multiple of 128; None: `block_size`.
  """
  rows = q.shape[2]
  side, length = block_size(rows, *([(block,)] if block else []))
  ids: tuple[jax.Array, ...] = ()
  if mask.valid is not None:
    # Padding has a number of its own, so it is seen by itself alone.
    own = 1 + np.arange(rows, dtype=np.int32)
    each = jnp.where(mask.valid, 0, own)
    ids = (jnp.broadcast_to(each, (q.shape[0], rows)),)
  kernel = functools.partial(
    _splash_here,
    masks=block_mask(mask.pattern, length),
    side=side,
    interpret=interpret,
  )
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return kernel(q, k, v, *ids)
  rules = dict(nn.get_logical_axis_rules())
  batch = _dividing(mesh, [rules.get('act_batch')], q.shape[0])
  heads = [rules.get('act_heads'), rules.get('act_length')]
  heads = _dividing(mesh, heads, q.shape[1])
  spec = PartitionSpec(batch, heads)
  specs = (spec,) * 3 + (PartitionSpec(batch),) * len(ids)
  # The kernel does not say over which axes what it gives varies.
  mapped = jax.shard_map(
    kernel, in_specs=specs, out_specs=spec, check_vma=False
  )
  return mapped(q, k, v, *ids)


def _splash_here(q, k, v, ids=None, *, masks, side, interpret):
  """The part of `splash` on one device."""
  rows = q.shape[2]
  more = masks.length - rows
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
  return jax.vmap(kernel)(q, k, v, segments)[:, :, :rows]


def _block_sizes(side):
  forward = ('q', 'kv', 'kv_compute')
  backward = ('q_dkv', 'kv_dkv', 'kv_dkv_compute', 'q_dq', 'kv_dq')
  sides = {f'block_{name}': side for name in (*forward, *backward)}
  return splash_attention.BlockSizes(**sides)


def _dividing(mesh, axes, size):
  """Those of some mesh axes, in turn, that divide a size together."""
  kept: tuple[str, ...] = ()
  for names in axes:
    for name in (names,) if isinstance(names, str) else names or ():
      parts = math.prod(mesh.shape[a] for a in (*kept, name))
      if name not in kept and size % parts == 0:
        kept += (name,)
  return kept or None


# ------------------------------------------------------------------------ GPU


def _cudnn_refuses(q, mask, platform, device):
  """Why not; '' where it can."""
  rows, head = q.shape[2:]
  if platform not in ('gpu', 'cuda') or not device.startswith('NVIDIA'):
    return f'wants an NVIDIA GPU, got {device} ({platform})'
  if q.dtype not in (jnp.bfloat16, jnp.float16):
    return f"wants config.backbone.dtype='bfloat16', got {q.dtype}"
  if head > 128 or head % 8:
    return f'wants heads of at most 128, a multiple of 8, got {head}'
  if rows % 2 and not (mask.pattern.causal or mask.pattern.full):
    return f'wants an even number of rows with such a mask, got {rows}'
  return ''


def fused(
  q, k, v, mask: AttentionMask, implementation: str = 'cudnn'
) -> jax.Array:
  """Fused attention of `jax.nn`; see `attention`.

  Args:
    q, k, v, mask: see there.
    implementation: of `jax.nn.dot_product_attention`.
  """
  said: dict[str, Any] = {}
  if mask.valid is not None or not (mask.pattern.full or mask.pattern.causal):
    said = {'mask': mask.dense()}
  elif not mask.pattern.full:
    said = {'is_causal': True}
  call: Any = functools.partial(jax.nn.dot_product_attention, **said)
  rows_first = (x.swapaxes(1, 2) for x in (q, k, v))
  out = call(*rows_first, scale=1.0, implementation=implementation)
  return out.swapaxes(1, 2)
