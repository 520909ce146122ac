"""TiTok whose decoder speaks the codes of another tokenizer (the first models).

Later models are `vq.VQ` with `layers.vit.Encoder` and `layers.vit.Decoder`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.layers.param import normal
from arvision.ranges import Width
from arvision.structs import Reconstruction, Template
from arvision.tokenizers.vq import VQ


class LegacyTiTok(VQ, kw_only=True):
  """1D codes, decoded to a mixture of a second codebook, decoded to pixels.

  The decoder gives logits over the codes of the second tokenizer for every
  patch; their mean code under the softmax goes through that tokenizer's decoder.

  Source: arXiv 2406.07550; bytedance/1d-tokenizer, modeling/titok.py.

  Attributes:
    pixel_decoder: template of the decoder of the second tokenizer.
    pixel_codes: number of its codes.
    pixel_channels: width of its codes.
  """

  pixel_decoder: Template
  pixel_codes: Width = 1024
  pixel_channels: Width = 256

  last_layer_path = ('pixel_dec', 'conv_out', 'kernel')

  def setup(self):
    super().setup()
    self.pixel_dec = self.pixel_decoder()
    init: Any = nn.with_logical_partitioning(normal(0.02), (None, None))
    shape = (self.pixel_codes, self.pixel_channels)
    self.pixel_codebook = self.param('pixel_codebook', init, shape)

  def decode_latents(self, latent: jax.Array, train: bool = False) -> jax.Array:
    share = jax.nn.softmax(self.pixel_logits(latent, train), axis=-1)
    mixed = jnp.einsum('bhwv,vc->bhwc', share, self.pixel_codebook)
    return self.brightened(self.pixel_dec(mixed, train))

  def pixel_logits(self, latent: jax.Array, train: bool = False) -> jax.Array:
    """(b, 1, length, c) -> (b, h, w, pixel_codes) float32."""
    return self.dec(latent, train).astype(jnp.float32)

  def proxy(
    self, image: jax.Array, train: bool = False
  ) -> tuple[jax.Array, Reconstruction]:
    """Logits (b, h, w, pixel_codes) of an image, and what quantising it cost."""
    latent, out = self.quantized(image, train)
    return self.pixel_logits(latent, train), out
