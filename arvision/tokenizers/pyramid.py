"""A pyramid of codes, every scale a whole picture by itself (FlexVAR)."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.layers.resize import resize
from arvision.layouts.scales import as_grids
from arvision.random import Draw
from arvision.ranges import AtLeast0, Side
from arvision.structs import Array, Reconstruction, Tokens, TokenSpec
from arvision.tokenizers.quantizers import normalized, straight_through
from arvision.tokenizers.vq import VQ


class PyramidVQ(VQ, kw_only=True):
  """The latent averaged down to every grid, each quantised without the others.

  Images are decoded from the last scale alone. In training one smaller scale is
  drawn at every step and decoded too, to be like the image averaged down.

  Source: arXiv 2502.20313; jiaosiyu1999/FlexVAR, models/vq_llama.py, which has no
  training code.

  Attributes:
    scales: sides or (height, width) of all grids, small to large; the last is
      the grid of the latent.
    smaller: weight of the squared difference at the smaller scale.
  """

  scales: tuple[Side | tuple[Side, Side], ...]
  smaller: AtLeast0 = 1.0
  grid: tuple[Side, Side] = (0, 0)  # of `VQ`; the last scale says it

  # The codes of a `VQ` serve at every scale.
  adjustable: ClassVar[tuple[str, ...]] = ('type', 'grid', 'scales', 'smaller')

  @property
  def spec(self) -> TokenSpec:
    grids = as_grids(self.scales)
    return TokenSpec(self.vocab_size, 1, self.channels, grids)

  def __call__(
    self, image: jax.Array, draw: Draw | None = None, train: bool = False
  ) -> Reconstruction:
    latent = self.encode_latents(image, train)
    zs = [normalized(z) if self.normalize else z for z in self.pyramid(latent)]
    codes = [self.nearest(z) for z in zs]
    found = [self.embed(c) for c in codes]
    through = [straight_through(z, q) for z, q in zip(zs, found)]
    sg = jax.lax.stop_gradient
    mean = lambda parts: jnp.mean(jnp.stack([jnp.mean(x**2) for x in parts]))
    losses: dict[str, Array] = {
      'codebook': mean([q - sg(z) for z, q in zip(zs, found)]),
      'commitment': self.commitment
      * mean([sg(q) - z for z, q in zip(zs, found)]),
    }
    if len(zs) > 1 and train:
      s = jnp.int32(0)
      if draw is not None:
        s = jax.random.randint(draw.key('tokenizer/scale'), (), 0, len(zs) - 1)
      losses['smaller'] = self.smaller * self._smaller(s, image, through, train)
    return Reconstruction(
      image=self.decode_latents(through[-1], train),
      losses=losses,
      codes=_flat(codes),
      features=_flat(zs),
    )

  def _smaller(self, s, image, latents, train):
    """Mean squared difference of the image that scale s is decoded to."""

    def branch(i):
      def difference(self, latents):
        small = self.decode_latents(latents[i], train)
        return jnp.mean((small - resize(image, small.shape[1:3], 'area')) ** 2)

      return difference

    branches = [branch(i) for i in range(len(latents) - 1)]
    return nn.switch(s, branches, self, latents)

  def pyramid(self, latent: jax.Array) -> list[jax.Array]:
    """(b, h, w, c) -> the same averaged down to every grid."""
    return [resize(latent, grid, 'area') for grid in self.spec.grids]

  def encode(self, image: jax.Array) -> Tokens:
    zs = self.pyramid(self.encode_latents(image))
    return Tokens(_flat([self.nearest(z) for z in zs]))

  def decode(self, tokens: Tokens) -> jax.Array:
    height, width = self.spec.grids[-1]
    last = jnp.asarray(tokens.values)[:, -height * width :]
    latent = self.embed(last).reshape(-1, height, width, self.channels)
    return jnp.clip(self.decode_latents(latent), -1, 1)


def _flat(maps):
  """(b, h, w, ...) of all scales -> (b, t, ...)."""
  return jnp.concatenate(
    [x.reshape(x.shape[0], -1, *x.shape[3:]) for x in maps], axis=1
  )
