"""One grid of codes (VQGAN, LlamaGen)."""

import jax
import jax.numpy as jnp

from arvision.random import Draw
from arvision.ranges import AtLeast0, Side
from arvision.structs import Array, Reconstruction, Tokens, TokenSpec
from arvision.tokenizers.codebook import Codebook
from arvision.tokenizers.quantizers import (
  distances,
  entropy_loss,
  normalized,
  straight_through,
)


class VQ(Codebook, kw_only=True):
  """Every place of the latent becomes its nearest code.

  With `normalize` latent and codes are projected onto the unit sphere at every
  use; the stored codes are not unit vectors.

  Source: FoundationVision/LlamaGen, vq_model.py (arXiv 2406.06525).

  Attributes:
    grid: (height, width) of the latent.
    entropy: weight of `quantizers.entropy_loss`, 0 as published.
  """

  grid: tuple[Side, Side]
  normalize: bool = True
  entropy: AtLeast0 = 0.0

  @property
  def spec(self) -> TokenSpec:
    grid = (int(self.grid[0]), int(self.grid[1]))
    return TokenSpec(self.vocab_size, 1, self.channels, (grid,))

  def __call__(
    self, image: jax.Array, draw: Draw | None = None, train: bool = False
  ) -> Reconstruction:
    latent, out = self.quantized(image, train)
    return out.replace(image=self.decode_latents(latent, train))

  def quantized(
    self, image: jax.Array, train: bool = False
  ) -> tuple[jax.Array, Reconstruction]:
    """The latent (b, h, w, c) made of codes, and all but the decoded image."""
    z = self.encode_latents(image, train)
    z = normalized(z) if self.normalize else z
    codes = self.nearest(z)
    quantized = self.embed(codes)
    sg = jax.lax.stop_gradient
    losses: dict[str, Array] = {
      'codebook': jnp.mean((quantized - sg(z)) ** 2),
      'commitment': self.commitment * jnp.mean((sg(quantized) - z) ** 2),
    }
    if self.entropy:
      far = distances(z.reshape(-1, self.channels), self._codes())
      losses['entropy'] = self.entropy * entropy_loss(far)
    out = Reconstruction(
      image=image,
      losses=losses,
      codes=codes.reshape(codes.shape[0], -1),
      features=z,
    )
    return straight_through(z, quantized), out

  def encode(self, image: jax.Array) -> Tokens:
    codes = self.nearest(self.encode_latents(image))
    return Tokens(codes.reshape(codes.shape[0], -1))

  def decode(self, tokens: Tokens) -> jax.Array:
    latent = self.embed(jnp.asarray(tokens.values))
    latent = latent.reshape(-1, *self.spec.grids[0], self.channels)
    return jnp.clip(self.decode_latents(latent), -1, 1)

  def embed(self, values: jax.Array) -> jax.Array:
    return jnp.asarray(self._codes())[values]

  def _codes(self):
    return normalized(self.codebook) if self.normalize else self.codebook
