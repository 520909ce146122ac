"""What tokenizers with a codebook and a convolutional autoencoder share."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.layers.conv import conv
from arvision.ranges import AtLeast0, Count, FewOr0, Width
from arvision.structs import Template
from arvision.tokenizers.base import Tokenizer
from arvision.tokenizers.quantizers import nearest, normalized


class Codebook(Tokenizer, kw_only=True):
  """Encoder, codebook and decoder; subclasses say how codes make a latent.

  Attributes:
    encoder: template of `layers.conv.Encoder` or its like.
    decoder: template of `layers.conv.Decoder` or its like; its `channels` are
      the image's.
    vocab_size: number of codes.
    channels: width of a code.
    commitment: weight of the pull on the encoder towards its codes; the pull
      on the codes weighs 1.
    normalize: compare directions instead of vectors.
    quant_kernel: side of the convolutions before and behind the codes; 0 for
      none.
    darkest: what black is to the networks, -1, or 0 (MaskGIT); white is 1.
    codebook_std: codes start as normal numbers; None: uniform within
      1 / vocab_size, as published.
  """

  encoder: Template
  decoder: Template
  vocab_size: Count
  channels: Width
  commitment: AtLeast0 = 0.25
  normalize: bool = False
  quant_kernel: FewOr0 = 1
  darkest: float = -1.0
  codebook_std: AtLeast0 | None = None

  # Where a task finds the rows to restart and the last layer of the decoder.
  codebook_path = ('codebook',)
  last_layer_path = ('dec', 'conv_out', 'kernel')

  def setup(self):
    self.enc = self.encoder()
    self.dec = self.decoder()
    if kernel := self.quant_kernel:
      self.quant_conv = conv(self.channels, kernel, name='quant_conv')
      self.post_quant_conv = conv(
        self.enc.z_channels, kernel, name='post_quant_conv'
      )
    elif self.enc.z_channels != self.channels:
      raise ValueError(
        f'config.tokenizer.channels={self.channels}: without quant_kernel it '
        f'must be encoder.z_channels={self.enc.z_channels}'
      )
    # Every device holds all codes: a lookup reads all of them.
    init: Any = nn.with_logical_partitioning(self._init_codes, (None, None))
    shape = (self.vocab_size, self.channels)
    self.codebook = self.param('codebook', init, shape)

  def _init_codes(self, key, shape, dtype=jnp.float32):
    if self.codebook_std is not None:
      return self.codebook_std * jax.random.normal(key, shape, dtype)
    edge = 1 / shape[0]
    return jax.random.uniform(key, shape, dtype, -edge, edge)

  def encode_latents(self, image: jax.Array, train: bool = False) -> jax.Array:
    """Image (b, H, W, C) -> latent before quantisation (b, h, w, c) float32.

    Raises:
      ValueError: the latent's grid is not the last one of `spec.grids`.
    """
    if self.darkest != -1:
      image = self.darkest + (1 - self.darkest) * (image + 1) / 2
    latent = self.enc(image, train).astype(jnp.float32)
    if self.quant_kernel:
      latent = self.quant_conv(latent)
    grid = self.spec.grids[-1]
    if latent.shape[1:3] != grid:
      raise ValueError(
        f'images of {image.shape[1:3]} become a latent of {latent.shape[1:3]} '
        f'but the tokenizer is made for {grid}; change config.data.size, '
        'config.tokenizer.encoder, or config.tokenizer.grid (.scales)'
      )
    return latent

  def decode_latents(self, latent: jax.Array, train: bool = False) -> jax.Array:
    """Quantised latent (b, h, w, c) -> image (b, H, W, C), not clipped."""
    if self.quant_kernel:
      latent = self.post_quant_conv(latent)
    return self.brightened(self.dec(latent, train))

  def brightened(self, image: jax.Array) -> jax.Array:
    """What a decoder gives, in [`darkest`, 1], as float32 in [-1, 1]."""
    image = image.astype(jnp.float32)
    if self.darkest != -1:
      image = 2 * (image - self.darkest) / (1 - self.darkest) - 1
    return image

  def nearest(self, z: jax.Array) -> jax.Array:
    """(..., c) vectors -> (...) int32 codes."""
    if self.normalize:
      return nearest(normalized(z), normalized(self.codebook))
    return nearest(z, self.codebook)

  def embed(self, values: jax.Array) -> jax.Array:
    return jnp.asarray(self.codebook)[values]
