"""Tokens of bits of patches, aligned with a frozen image encoder (BAR)."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.layers.dense import Dense
from arvision.layers.param import normal
from arvision.random import Draw
from arvision.ranges import AtLeast0, Natural, Side, Width
from arvision.structs import Reconstruction, Template
from arvision.tokenizers.autoencoder import Patched


class Alignment(nn.Module):
  """Squared difference of a projection of the decoder and a frozen encoder.

  Source: arXiv 2602.09024 (BAR), whose frozen encoder is SigLIP 2.

  Attributes:
    encoder: template of a `layers.patch_vit.PatchEncoder`. Its parameters stand
      under `align/encoder`; training leaves them out
      (`config.optim.trained.without`).
    hidden: width of the two inner layers of the projection.
    layer: block of the decoder whose output is projected, counted from 0.
    weight: of the loss.
  """

  encoder: Template
  hidden: Width = 2048
  layer: Natural = 2
  weight: AtLeast0 = 0.7

  def setup(self):
    self.frozen = self.encoder(name='encoder')
    widths = (self.hidden, self.hidden, self.frozen.width)
    self.maps = [
      Dense(
        (width,),
        ('embed', 'mlp'),
        kernel_init=normal(0.02),
        name=f'projection_{i}',
      )
      for i, width in enumerate(widths)
    ]

  def __call__(self, image: jax.Array, layers: jax.Array) -> jax.Array:
    """() float32 weighted loss.

    Args:
      image: (b, H, W, C).
      layers: (layers, b, t, d), see `PatchDecoder.with_layers`.
    """
    wanted = jax.lax.stop_gradient(self.wanted(image))
    return self.weight * jnp.mean((self.project(layers) - wanted) ** 2)

  def wanted(self, image: jax.Array) -> jax.Array:
    """(b, H, W, C) -> (b, t, c) float32 features of the frozen encoder."""
    x = self.frozen.features(image)
    return x.reshape(len(x), -1, x.shape[-1])

  def project(self, layers: jax.Array) -> jax.Array:
    """(layers, b, t, d) of the decoder -> (b, t, c) float32."""
    if self.layer >= len(layers):
      raise ValueError(
        f'config.tokenizer.align.layer={self.layer}: the decoder has blocks 0 '
        f'to {len(layers) - 1}'
      )
    x = layers[self.layer].astype(jnp.float32)
    for i, linear in enumerate(self.maps):
      x = linear(jax.nn.silu(x) if i else x)
    return x


class AlignedPatches(Patched, kw_only=True):
  """Tokens of patch × patch places; a part is next to those of its place.

  Source: arXiv 2602.09024 (BAR).

  Attributes:
    align: template of an `Alignment`, a loss of training; None: there is none.
  """

  patch: Side = 1
  align: Template | None = None

  by_place: ClassVar[bool] = True

  def setup(self):
    super().setup()
    if self.align is not None:
      self.alignment = self.align(name='align')

  def __call__(
    self, image: jax.Array, draw: Draw | None = None, train: bool = False
  ) -> Reconstruction:
    if self.align is None:
      return super().__call__(image, draw, train)
    vectors, out = self.quantized(image, draw, train)
    decoded, layers = self.dec.with_layers(vectors, train)
    losses: dict[str, Any] = {
      **out.losses,
      'align': self.alignment(image, layers),
    }
    return out.replace(image=self.brightened(decoded), losses=losses)
