"""The convolutional encoder and decoder of latent models (LDM, VQGAN).

Names follow the official state dicts with dots replaced by underscores:
`encoder.down.0.block.1.conv1` is `enc/down_0_block_1/conv1`.

Source: Esser et al., arXiv 2012.09841, as used by FoundationVision/VAR and
FoundationVision/LlamaGen: GroupNorm of 32 groups with epsilon 1e-6, swish,
attention in the middle and after the blocks of some levels.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import lecun_normal, ones, zeros

from arvision.kernels.cpu.winograd import convolve
from arvision.ranges import (
  Below1,
  Dtype,
  Few,
  FewOr0,
  Fews,
  Natural,
  Side,
  Width,
)


def conv(
  features: int,
  kernel: int = 3,
  *,
  name: str,
  stride: int = 1,
  padding: Any = None,
  bias: bool = True,
  init: Any = None,
  dtype: Any = jnp.float32,
) -> nn.Conv:
  """A convolution over (b, h, w, c) that pads as torch does.

  Args:
    features: output channels.
    kernel: side of the square kernel; the parameter is (k, k, in, out).
    name: of the submodule.
    stride: in rows and columns.
    padding: ((top, bottom), (left, right)) zeros; None keeps the grid where
      stride is 1. ('SAME' would pad a strided convolution on the other side.)
    bias: whether a bias is added.
    init: initialiser of the kernel.
    dtype: compute dtype.
  """
  names = (None, None, 'conv_in', 'conv_out')
  if padding is None:
    padding = ((kernel // 2, kernel // 2),) * 2
  return nn.Conv(
    features,
    (kernel, kernel),
    strides=(stride, stride),
    padding=padding,
    use_bias=bias,
    dtype=dtype,
    kernel_init=nn.with_logical_partitioning(init or lecun_normal(), names),
    bias_init=nn.with_logical_partitioning(zeros, ('conv_out',)),
    conv_general_dilated=convolve,
    name=name,
  )


def norm(
  channels: int, groups: int, *, name: str, epsilon: float = 1e-6
) -> nn.GroupNorm:
  """Group norm in float32; `groups` or the next smaller divisor of `channels`."""
  groups = next(g for g in range(groups, 0, -1) if channels % g == 0)
  return nn.GroupNorm(
    num_groups=groups,
    epsilon=epsilon,
    dtype=jnp.float32,
    use_fast_variance=False,  # E[x^2] - E[x]^2 loses digits
    scale_init=nn.with_logical_partitioning(ones, (None,)),
    bias_init=nn.with_logical_partitioning(zeros, (None,)),
    name=name,
  )


class ResBlock(nn.Module):
  """x + conv(swish(norm(conv(swish(norm(x)))))).

  Attributes:
    features: output channels; where they differ from the input's, the
      shortcut is a 1 x 1 convolution.
    groups: of the norms.
    dropout: rate before the second convolution.
    dtype: compute dtype of the convolutions.
  """

  features: Width
  groups: Few = 32
  dropout: Below1 = 0.0
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    h = nn.swish(norm(x.shape[-1], self.groups, name='norm1')(x))
    h = conv(self.features, name='conv1', dtype=self.dtype)(h)
    h = nn.swish(norm(self.features, self.groups, name='norm2')(h))
    h = nn.Dropout(self.dropout, deterministic=not train)(h)
    h = conv(self.features, name='conv2', dtype=self.dtype)(h)
    if x.shape[-1] != self.features:
      shortcut = conv(self.features, 1, name='nin_shortcut', dtype=self.dtype)
      x = shortcut(x)
    return x + h


class Attention(nn.Module):
  """x + attention over all places of the grid, one head.

  Attributes:
    groups: of the norm.
    dtype: compute dtype; the softmax is float32.
  """

  groups: Few = 32
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    b, height, width, c = x.shape
    h = norm(c, self.groups, name='norm')(x)
    # The official VAR stores one fused kernel; three are the same map.
    q, k, v = (
      conv(c, 1, name=n, dtype=self.dtype)(h).reshape(b, height * width, c)
      for n in ('q', 'k', 'v')
    )
    logits = jnp.einsum('bqc,bkc->bqk', q, k, preferred_element_type='float32')
    weights = jax.nn.softmax(logits * c**-0.5).astype(v.dtype)
    h = jnp.einsum('bqk,bkc->bqc', weights, v).reshape(x.shape)
    return x + conv(c, 1, name='proj_out', dtype=self.dtype)(h)


class Down(nn.Module):
  """Halves the grid; zeros are padded on the right and below only."""

  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    padding = ((0, 1), (0, 1))
    down = conv(
      x.shape[-1], stride=2, padding=padding, name='conv', dtype=self.dtype
    )
    return down(x)


class Up(nn.Module):
  """Doubles the grid: nearest neighbour, then a convolution."""

  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = x.repeat(2, axis=1).repeat(2, axis=2)
    return conv(x.shape[-1], name='conv', dtype=self.dtype)(x)


def space_to_depth(x: jax.Array, patch: int) -> jax.Array:
  """(b, h, w, c) -> (b, h / patch, w / patch, patch * patch * c)."""
  b, h, w, c = x.shape
  x = x.reshape(b, h // patch, patch, w // patch, patch, c)
  return x.swapaxes(2, 3).reshape(b, h // patch, w // patch, -1)


def depth_to_space(x: jax.Array, patch: int) -> jax.Array:
  """The inverse of `space_to_depth`."""
  b, h, w, _ = x.shape
  x = x.reshape(b, h, w, patch, patch, -1)
  return x.swapaxes(2, 3).reshape(b, h * patch, w * patch, -1)


class Encoder(nn.Module):
  """Image (b, H, W, C) -> latent (b, H / factor, W / factor, z_channels).

  Attributes:
    ch: channels of the first level.
    ch_mult: channels of every level, in units of `ch`; the grid is halved
      between levels.
    res_blocks: per level.
    z_channels: channels of the latent.
    attention: whether the net attends at all: in the middle always.
    attention_levels: numbers of the levels whose blocks attend too, 0 for that
      of the image; None: the lowest level, () for the middle alone.
    patch: side of the squares of pixels that become channels before the first
      convolution (1 in all published models; more is cheap on a CPU).
    last_swish: whether a swish follows the last norm (ELM has none).
    groups: of the norms.
    dropout: rate inside the blocks.
    dtype: compute dtype; norms and softmax are float32.
  """

  ch: Width = 128
  ch_mult: Fews = (1, 1, 2, 2, 4)
  res_blocks: Few = 2
  z_channels: Width = 256
  attention: bool = True
  attention_levels: tuple[Natural, ...] | None = None
  patch: Side = 1
  last_swish: bool = True
  groups: Few = 32
  dropout: Below1 = 0.0
  dtype: Dtype = jnp.float32

  @property
  def factor(self) -> int:
    """Pixels per latent place, along each side."""
    return self.patch * 2 ** (len(self.ch_mult) - 1)

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    if x.shape[1] % self.factor or x.shape[2] % self.factor:
      raise ValueError(
        f'image of {x.shape[1]} x {x.shape[2]}: both sides must be multiples '
        f'of {self.factor} (patch {self.patch}, {len(self.ch_mult)} levels); '
        'change config.data.size or config.tokenizer.encoder'
      )
    block, attend = _parts(self)
    attending = _attending(self)
    lowest = len(self.ch_mult) - 1
    h = space_to_depth(x, self.patch)
    h = conv(self.ch, name='conv_in', dtype=self.dtype)(h)
    for i, mult in enumerate(self.ch_mult):
      for j in range(self.res_blocks):
        h = block(self.ch * mult, f'down_{i}_block_{j}')(h, train)
        if i in attending:
          h = attend(f'down_{i}_attn_{j}')(h)
      if i != lowest:
        h = Down(self.dtype, name=f'down_{i}_downsample')(h)
    h = _middle(self, h, train)
    h = _last(self, h)
    return conv(self.z_channels, name='conv_out', dtype=self.dtype)(h)


class Decoder(nn.Module):
  """Latent (b, h, w, z) -> image (b, h * factor, w * factor, channels).

  Level numbers count from the image, as in the encoder, so the highest number
  runs first (LlamaGen's `conv_blocks` count the other way).

  Attributes:
    channels: of the image.
    ch, ch_mult, attention, attention_levels, patch, last_swish, groups, dropout,
      dtype: see `Encoder`.
    res_blocks: of the encoder; a level has one more here.
    norm_first: whether a norm comes before the first convolution.
  """

  channels: Width = 3
  ch: Width = 128
  ch_mult: Fews = (1, 1, 2, 2, 4)
  res_blocks: FewOr0 = 2
  attention: bool = True
  attention_levels: tuple[Natural, ...] | None = None
  patch: Side = 1
  last_swish: bool = True
  norm_first: bool = False
  groups: Few = 32
  dropout: Below1 = 0.0
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, z: jax.Array, train: bool = False) -> jax.Array:
    block, attend = _parts(self)
    attending = _attending(self)
    if self.norm_first:
      z = norm(z.shape[-1], self.groups, name='norm_in')(z)
    h = conv(self.ch * self.ch_mult[-1], name='conv_in', dtype=self.dtype)(z)
    h = _middle(self, h, train)
    for i in reversed(range(len(self.ch_mult))):
      for j in range(self.res_blocks + 1):
        h = block(self.ch * self.ch_mult[i], f'up_{i}_block_{j}')(h, train)
        if i in attending:
          h = attend(f'up_{i}_attn_{j}')(h)
      if i:
        h = Up(self.dtype, name=f'up_{i}_upsample')(h)
    h = _last(self, h)
    features = self.patch**2 * self.channels
    h = conv(features, name='conv_out', dtype=self.dtype)(h)
    return depth_to_space(h, self.patch)


def _parts(net):
  """(features, name) -> block and name -> attention, with the net's fields."""

  def block(features, name):
    return ResBlock(features, net.groups, net.dropout, net.dtype, name=name)

  def attend(name):
    return Attention(net.groups, net.dtype, name=name)

  return block, attend


def _attending(net):
  """Indices of the levels with attention."""
  lowest = len(net.ch_mult) - 1
  if not net.attention:
    return ()
  if net.attention_levels is None:
    return (lowest,)
  wrong = [i for i in net.attention_levels if not 0 <= i <= lowest]
  if wrong:
    raise ValueError(
      f'attention_levels={net.attention_levels}: no level {wrong[0]}, ch_mult='
      f'{net.ch_mult} has levels 0 to {lowest}; change config.tokenizer.'
      'encoder.attention_levels and decoder.attention_levels'
    )
  return net.attention_levels


def _middle(net, h, train):
  """Block, attention, block at the lowest level."""
  block, attend = _parts(net)
  h = block(h.shape[-1], 'mid_block_1')(h, train)
  if net.attention:
    h = attend('mid_attn_1')(h)
  return block(h.shape[-1], 'mid_block_2')(h, train)


def _last(net, h):
  """The norm before the last convolution."""
  h = norm(h.shape[-1], net.groups, name='norm_out')(h)
  return nn.swish(h) if net.last_swish else h
