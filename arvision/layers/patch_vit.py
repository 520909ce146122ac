"""Vision transformers with a vector per patch, as encoder and decoder (BAR).

Source: arXiv 2602.09024 (BAR): the encoder is SigLIP 2's (arXiv 2502.14786),
the decoder that of CLIP's vision transformer with a last convolution.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.kernels.attention import AttentionMask
from arvision.layers.attention import BlockInputs
from arvision.layers.conv import conv
from arvision.layers.dense import Dense
from arvision.layers.param import normal, param
from arvision.layers.resize import resize
from arvision.layers.stack import Stack
from arvision.layouts import masks
from arvision.ranges import AtLeast0, Dtype, Few, Finite, Side, Width
from arvision.structs import Template


class _PatchViT(nn.Module):
  """Common base of encoder and decoder.

  Attributes:
    width: d.
    depth: number of layers.
    heads: attention heads.
    patch: side of the square patches, in pixels.
    block: template of a block.
    norm: template of the norms outside of the blocks.
    std: standard deviation of tables and of linear maps at the start.
    remat, unroll: see `layers.stack.Stack`.
    dtype: compute dtype of the blocks.
  """

  width: Width
  depth: Few
  heads: Few
  patch: Side
  block: Template
  norm: Template
  std: AtLeast0 = 0.02
  remat: str = 'none'
  unroll: Few = 1
  dtype: Dtype = jnp.float32

  def _stack(self):
    block = functools.partial(self.block, heads=self.heads, dtype=self.dtype)
    unroll = min(self.unroll, self.depth)
    return Stack(block, self.depth, remat=self.remat, unroll=unroll, keep=True)

  def _run(self, x, train):
    """x (b, n, d) after the blocks, and after each: (layers, b, n, d)."""
    every = masks.same(np.zeros(x.shape[1], np.int32))
    inputs = BlockInputs(mask=AttentionMask(every), train=train)
    x, (_, kept) = self.stack(x.astype(self.dtype), inputs)
    return x.astype(jnp.float32), kept

  def _table(self, name, rows):
    shape = (rows, self.width)
    return param(self, name, normal(self.std), (None, 'embed'), shape)

  def _linear(self, features, names):
    return Dense((features,), names, kernel_init=normal(self.std))


class PatchEncoder(_PatchViT):
  """An image as one vector per patch (the vision tower of SigLIP 2).

  Attributes:
    z_channels: width of a vector.
    positions: (height, width) of the table of positions, which is resized to
      the patches of an image.
    out_bias: of the last linear map at the start. Bits of `quantizers.fsq` change
      at -3.8: from 0, which is far away, small networks do not learn them.
  """

  z_channels: Width = 16
  positions: tuple[Side, Side] = (16, 16)
  out_bias: Finite = 0.0

  def setup(self):
    self.patches = conv(
      self.width,
      self.patch,
      stride=self.patch,
      padding=((0, 0),) * 2,
      init=normal(self.std),
      name='patches',
    )
    height, width = self.positions
    self.position = self._table('position', height * width)
    self.stack = self._stack()
    self.norm_post = self.norm()
    self.out = Dense(
      (self.z_channels,),
      ('embed', None),
      kernel_init=normal(self.std),
      bias_init=nn.initializers.constant(self.out_bias),
    )

  def __call__(self, image: jax.Array, train: bool = False) -> jax.Array:
    """(b, H, W, C) -> (b, h, w, z_channels) float32."""
    return self.out(self.features(image, train))

  def embed(self, image: jax.Array) -> jax.Array:
    """Patches with their positions: (b, H, W, C) -> (b, h, w, d) float32."""
    x = self.patches(image)
    table = jnp.asarray(self.position)
    table = table.reshape(1, *self.positions, self.width)
    return x + resize(table, x.shape[1:3], 'bilinear-antialias')

  def features(self, image: jax.Array, train: bool = False) -> jax.Array:
    """What the last linear map takes: (b, H, W, C) -> (b, h, w, d) float32."""
    x = self.embed(image)
    h, _ = self._run(x.reshape(len(x), -1, self.width), train)
    return self.norm_post(h).reshape(x.shape)


class PatchDecoder(_PatchViT):
  """One vector per patch as an image.

  A learned vector stands before the patches in all blocks (CLIP's class
  embedding) and is dropped afterwards.

  Attributes:
    grid: (height, width) in patches.
    channels: of the image.
  """

  grid: tuple[Side, Side] = (16, 16)
  channels: Width = 3

  def setup(self):
    places = self.grid[0] * self.grid[1]
    self.embed = self._linear(self.width, (None, 'embed'))
    self.class_embedding = self._table('class_embedding', 1)
    self.position = self._table('position', 1 + places)
    self.norm_pre, self.norm_post = self.norm(), self.norm()
    self.stack = self._stack()
    self.pixels = self._linear(self.patch**2 * self.channels, ('embed', None))
    self.conv_out = conv(self.channels, init=normal(self.std), name='conv_out')

  def __call__(self, z: jax.Array, train: bool = False) -> jax.Array:
    """(b, h, w, c) -> (b, H, W, channels) float32."""
    return self.with_layers(z, train)[0]

  def with_layers(
    self, z: jax.Array, train: bool = False
  ) -> tuple[jax.Array, jax.Array]:
    """The image, and the patches (layers, b, h w, d) after every block."""
    batch, (height, width), p = len(z), self.grid, self.patch
    if z.shape[1:3] != (height, width):
      raise ValueError(
        f'config.tokenizer.decoder.grid={self.grid} but the latent has '
        f'{z.shape[1]} x {z.shape[2]} places'
      )
    x = self.embed(z.reshape(batch, height * width, -1))
    own = jnp.broadcast_to(
      jnp.asarray(self.class_embedding), (batch, 1, self.width)
    )
    x = jnp.concatenate([own, x], 1) + jnp.asarray(self.position)
    x, kept = self._run(self.norm_pre(x), train)
    x = self.pixels(self.norm_post(x)[:, 1:])
    x = x.reshape(batch, height, width, p, p, self.channels).swapaxes(2, 3)
    x = x.reshape(batch, height * p, width * p, self.channels)
    return self.conv_out(x), kept[:, :, 1:]
