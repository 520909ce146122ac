"""The convolutional encoder and decoder of MaskGIT's tokenizer, and MaskBit's.

Other than in `layers.conv`: residual blocks have no biases, the grid is halved
by averaging, nothing attends, and encoder and decoder have equally many blocks.

Source: Chang et al., arXiv 2202.04200; google-research/maskgit,
nets/vqgan_tokenizer.py, and its PyTorch form in bytedance/1d-tokenizer;
markweberdev/maskbit, modeling/conv_vqgan.py (arXiv 2409.16211).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.layers.conv import (
  Down,
  Up,
  conv,
  depth_to_space,
  norm,
  space_to_depth,
)
from arvision.ranges import Dtype, Few, Fews, Side, Width


class ResBlock(nn.Module):
  """x + h with h = conv(swish(norm(conv(swish(norm(x)))))).

  Where the channels change, x is left out: the 1 x 1 shortcut is applied to h
  and added to it. The released weights were trained that way.

  Attributes:
    features: output channels.
    groups: of the norms.
    dtype: compute dtype of the convolutions.
  """

  features: Width
  groups: Few = 32
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    plain = {'bias': False, 'dtype': self.dtype}
    h = nn.swish(norm(x.shape[-1], self.groups, name='norm1')(x))
    h = conv(self.features, name='conv1', **plain)(h)
    h = nn.swish(norm(self.features, self.groups, name='norm2')(h))
    h = conv(self.features, name='conv2', **plain)(h)
    if x.shape[-1] != self.features:
      x = conv(self.features, 1, name='nin_shortcut', **plain)(h)
    return x + h


class Encoder(nn.Module):
  """Image (b, H, W, C) -> latent (b, H / factor, W / factor, z_channels).

  Attributes:
    ch: channels of the first level.
    ch_mult: channels of every level, in units of `ch`; the grid is halved
      between levels.
    res_blocks: per level, and in the middle.
    z_channels: channels of the latent.
    patch: side of the squares of pixels that become channels before the first
      convolution (1 in the published model).
    groups: of the norms.
    dtype: compute dtype; norms are float32.
  """

  ch: Width = 128
  ch_mult: Fews = (1, 1, 2, 2, 4)
  res_blocks: Few = 2
  z_channels: Width = 256
  patch: Side = 1
  groups: Few = 32
  dtype: Dtype = jnp.float32

  @property
  def factor(self) -> int:
    """Pixels per latent place, along each side."""
    return self.patch * 2 ** (len(self.ch_mult) - 1)

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    del train
    if x.shape[1] % self.factor or x.shape[2] % self.factor:
      raise ValueError(
        f'image of {x.shape[1]} x {x.shape[2]}: both sides must be multiples '
        f'of {self.factor}; change config.data.size or config.tokenizer.encoder'
      )
    h = space_to_depth(x, self.patch)
    h = conv(self.ch, name='conv_in', bias=False, dtype=self.dtype)(h)
    for i, mult in enumerate(self.ch_mult):
      for j in range(self.res_blocks):
        h = _block(self, self.ch * mult, f'down_{i}_block_{j}')(h)
      if i + 1 < len(self.ch_mult):
        h = self._halved(h, i)
    h = _middle(self, h)
    h = nn.swish(norm(h.shape[-1], self.groups, name='norm_out')(h))
    return conv(self.z_channels, 1, name='conv_out', dtype=self.dtype)(h)

  def _halved(self, h, level):
    del level
    return nn.avg_pool(h, (2, 2), (2, 2))


class StridedEncoder(Encoder):
  """The same with strided convolutions instead of averages (MaskBit)."""

  def _halved(self, h, level):
    return Down(self.dtype, name=f'down_{level}_downsample')(h)


class Decoder(nn.Module):
  """Latent (b, h, w, z) -> image (b, h * factor, w * factor, channels).

  Level numbers count from the image; the highest runs first.

  Attributes:
    channels: of the image.
    ch, ch_mult, res_blocks, patch, groups, dtype: see `Encoder`.
  """

  channels: Width = 3
  ch: Width = 128
  ch_mult: Fews = (1, 1, 2, 2, 4)
  res_blocks: Few = 2
  patch: Side = 1
  groups: Few = 32
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, z: jax.Array, train: bool = False) -> jax.Array:
    del train
    width = self.ch * self.ch_mult[-1]
    h = conv(width, name='conv_in', dtype=self.dtype)(z)
    h = _middle(self, h)
    for i in reversed(range(len(self.ch_mult))):
      for j in range(self.res_blocks):
        h = _block(self, self.ch * self.ch_mult[i], f'up_{i}_block_{j}')(h)
      if i:
        h = Up(self.dtype, name=f'up_{i}_upsample')(h)
    h = nn.swish(norm(h.shape[-1], self.groups, name='norm_out')(h))
    features = self.patch**2 * self.channels
    h = conv(features, name='conv_out', dtype=self.dtype)(h)
    return depth_to_space(h, self.patch)


def _block(net, features, name):
  return ResBlock(features, net.groups, net.dtype, name=name)


def _middle(net, h):
  for j in range(net.res_blocks):
    h = _block(net, h.shape[-1], f'mid_block_{j}')(h)
  return h
