"""TiTok whose decoder predicts the codes of another tokenizer (the first models).

Later models are `autoencoder.Autoencoder` with `layers.vit.Encoder` and
`layers.vit.Decoder`.
"""

from typing import ClassVar

import jax

from arvision.random import Draw
from arvision.structs import Reconstruction, Template
from arvision.tokenizers.autoencoder import Autoencoder


class LegacyTiTok(Autoencoder, kw_only=True):
  """A line of tokens, decoded to mixtures of the codes of a second tokenizer.

  The decoder gives logits over those codes for every patch; their mean code under
  the softmax goes through the decoder of the second tokenizer.

  Source: arXiv 2406.07550; bytedance/1d-tokenizer, modeling/titok.py.

  Attributes:
    pixel_quantizer: template of the `quantizers.lookup.Lookup` of the second
      tokenizer.
    pixel_decoder: template of its decoder.
  """

  pixel_quantizer: Template
  pixel_decoder: Template

  last_layer_path: ClassVar[tuple[str, ...]] = (
    'pixel_dec',
    'conv_out',
    'kernel',
  )

  def setup(self):
    super().setup()
    self.pixel_dec = self.pixel_decoder()
    self.pixel_quant = self.pixel_quantizer()

  def decode_latents(self, latent: jax.Array, train: bool = False) -> jax.Array:
    share = jax.nn.softmax(self.pixel_logits(latent, train), axis=-1)
    return self.brightened(self.pixel_dec(self.pixel_quant.mix(share), train))

  def pixel_logits(self, latent: jax.Array, train: bool = False) -> jax.Array:
    """(b, 1, length, c) -> logits (b, h, w, v) float32 of the second's codes."""
    return self.dec(latent, train).astype('float32')

  def proxy(
    self, image: jax.Array, draw: Draw | None = None, train: bool = False
  ) -> tuple[jax.Array, Reconstruction]:
    """`pixel_logits` of an image, and all but the decoded image."""
    latent, out = self.quantized(image, draw, train)
    return self.pixel_logits(latent, train), out
