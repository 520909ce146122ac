"""Vision transformers that turn an image into a few vectors, and back (TiTok).

Source: arXiv 2406.07550; bytedance/1d-tokenizer, modeling/modules/blocks.py.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.kernels.attention import AttentionMask
from arvision.layers.attention import Attention, BlockInputs
from arvision.layers.blocks import Block, ExactGELU
from arvision.layers.conv import conv
from arvision.layers.dense import Dense
from arvision.layers.norm import AffineLayerNorm
from arvision.layers.param import normal, param
from arvision.layers.stack import Stack
from arvision.layouts import masks
from arvision.ranges import AtLeast0, Count, Dtype, Few, Side, Width


class _ViT(nn.Module):
  """What both halves have: positions, blocks, and norms around them.

  Attributes:
    width: d.
    depth: number of layers.
    heads: attention heads.
    patch: side of the square patches, in pixels.
    length: how many vectors stand for an image.
    unroll: layers in one round of the scan, see `layers.stack.Stack`.
    std: standard deviation of every linear map at the start; as published it
      suits widths of 512 and more, narrow ones learn faster from width**-0.5.
    dtype: compute dtype of the blocks.
  """

  width: Width
  depth: Few
  heads: Few
  patch: Side
  length: Count
  unroll: Few = 1
  std: AtLeast0 = 0.02
  dtype: Dtype = jnp.float32

  def _run(self, places: jax.Array, latents: jax.Array, train: bool):
    """All rows after the blocks.

    Args:
      places: (b or 1, patches, d).
      latents: (b or 1, length, d).
      train: not used; nothing is dropped.

    Returns:
      [class row, places, latents] (b, 1 + patches + length, d).
    """
    batch = max(len(places), len(latents))
    own = self._table('class_embedding', 1)[None]
    own = jnp.broadcast_to(own, (batch, 1, self.width))
    places = jnp.broadcast_to(places, (batch, *places.shape[1:]))
    latents = latents + self._table('latent_position', self.length)
    latents = jnp.broadcast_to(latents, (batch, *latents.shape[1:]))
    x = jnp.concatenate([own, places], 1)
    x = jnp.concatenate([x + self._table('position', x.shape[1]), latents], 1)
    x = _norm(name='norm_pre')(x)
    stack = Stack(
      self._block(),
      self.depth,
      unroll=min(self.unroll, self.depth),
      name='stack',
    )
    every = masks.same(np.zeros(x.shape[1], np.int32))
    inputs = BlockInputs(mask=AttentionMask(every), train=train)
    x, _ = stack(x.astype(self.dtype), inputs)
    return x.astype(jnp.float32)

  def _block(self):
    """Template of a block."""
    part = functools.partial
    std: dict[str, Any] = {'std': self.std, 'out_std': self.std}
    return part(
      Block,
      attention=part(Attention, biases=('q', 'k', 'v', 'out'), **std),
      mlp=part(ExactGELU, hidden=4 * self.width, **std),
      norm=_norm,
      heads=self.heads,
      dtype=self.dtype,
    )

  def _linear(self, features, names, name):
    init = normal(self.std)
    return Dense((features,), names, kernel_init=init, name=name)

  def _table(self, name, rows):
    init = normal(self.width**-0.5)
    return jnp.asarray(
      param(self, name, init, (None, 'embed'), (rows, self.width))
    )


def _norm(**kwargs):
  return AffineLayerNorm(epsilon=1e-5, **kwargs)


class Encoder(_ViT):
  """An image as `length` vectors.

  Attributes:
    z_channels: width of a vector.
  """

  z_channels: Width = 12

  @nn.compact
  def __call__(self, image: jax.Array, train: bool = False) -> jax.Array:
    """(b, H, W, C) -> (b, 1, length, z_channels) float32."""
    x = conv(
      self.width,
      self.patch,
      stride=self.patch,
      padding=((0, 0),) * 2,
      init=normal(self.std),
      name='patches',
    )(image)
    x = x.reshape(x.shape[0], -1, self.width)
    latents = self._table('latents', self.length)[None]
    x = self._run(x, latents, train)[:, -self.length :]
    x = _norm(name='norm_post')(x)
    out = self._linear(self.z_channels, ('embed', None), 'out')
    return out(self._arranged(x))[:, None]

  def _arranged(self, x):
    """Rows (b, length, d) as the last linear map is given them."""
    return x


class LegacyEncoder(Encoder):
  """The encoder of TiTok-L-32, B-64 and S-128.

  Its rows (length, d) are read as columns (d, length) of the same memory before
  the last linear map, which its weights depend on.
  """

  def _arranged(self, x):
    return x.reshape(len(x), self.width, self.length).swapaxes(1, 2)


class Decoder(_ViT):
  """Vectors as an image, patch by patch.

  Attributes:
    grid: (height, width) in patches.
    channels: of the image.
  """

  grid: tuple[Side, Side] = (16, 16)
  channels: Width = 3

  @nn.compact
  def __call__(self, z: jax.Array, train: bool = False) -> jax.Array:
    """(b, 1, length, c) -> (b, H, W, channels) float32."""
    return self._pixels(self._places(z, train), train)

  def _places(self, z, train):
    """(b, h, w, d) what the blocks say of every patch."""
    latents = self._linear(self.width, (None, 'embed'), 'embed')(z[:, 0])
    empty = self._table('mask', 1)[None]
    count = self.grid[0] * self.grid[1]
    places = jnp.broadcast_to(empty, (1, count, self.width))
    x = self._run(places, latents, train)[:, 1 : 1 + count]
    return _norm(name='norm_post')(x).reshape(len(z), *self.grid, self.width)

  def _pixels(self, x, train):
    p, (height, width) = self.patch, self.grid
    x = self._linear(p * p * self.channels, ('embed', None), 'pixels')(x)
    x = x.reshape(-1, height, width, p, p, self.channels).swapaxes(2, 3)
    x = x.reshape(-1, height * p, width * p, self.channels)
    return conv(self.channels, init=normal(self.std), name='conv_out')(x)


class CodesDecoder(Decoder):
  """Vectors as logits over the codes of another tokenizer, patch by patch.

  Attributes:
    codes: number of codes of the other tokenizer.
  """

  codes: Count = 1024

  def _pixels(self, x, train):
    """(b, h, w, d) -> (b, h, w, codes) float32."""
    x = self._linear(2 * self.width, ('embed', 'mlp'), 'ffn_in')(x)
    return self._linear(self.codes, ('mlp', None), 'ffn_out')(jnp.tanh(x))
