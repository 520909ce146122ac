"""Pyramids: tokens of the latent at several sizes, small to large."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.layers.resize import resize
from arvision.layouts.scales import Grids, as_grids
from arvision.quantizers.base import mean_losses, merged
from arvision.random import Draw
from arvision.ranges import AtLeast0, Side
from arvision.structs import Reconstruction, Tokens
from arvision.tokenizers.autoencoder import Autoencoder, flat


class Pyramid(Autoencoder, kw_only=True):
  """The latent resampled to every grid, each quantised without the others.

  Images are decoded from the last scale alone. FlexVAR's has codes, those of
  FlowAR and of xAR's scales are continuous.

  Source: arXiv 2502.20313; jiaosiyu1999/FlexVAR, models/vq_llama.py, which has no
  training code; arXiv 2412.15205 (FlowAR); arXiv 2502.20388 (xAR).

  Attributes:
    scales: sides or (height, width) of all grids, small to large; the last is
      the grid of the latent.
    kind: how the latent is resampled, see `layers.resize`.
    smaller: weight of a squared difference: at every training step a smaller
      scale is drawn and decoded, to be like the image averaged down.
  """

  scales: Grids
  kind: str = 'area'
  smaller: AtLeast0 = 0.0
  grid: tuple[Side, Side] = (0, 0)  # of `Autoencoder`; the last scale says it

  # The parameters of an `Autoencoder` serve at every scale.
  adjustable: ClassVar[tuple[str, ...]] = (
    'type',
    'grid',
    'scales',
    'kind',
    'smaller',
  )

  @property
  def grids(self) -> tuple[tuple[int, int], ...]:
    return as_grids(self.scales)

  def quantized(
    self, image: jax.Array, draw: Draw | None = None, train: bool = False
  ) -> tuple[jax.Array, Reconstruction]:
    moments = self.encode_moments(image, train)
    latent = self.quant.latent(moments, draw)
    found = [self.quant(z, draw) for z in self._resized(latent)]
    losses = mean_losses([x.losses for x in found])
    losses |= self.quant.regularization(moments)
    if self.smaller and len(found) > 1 and train:
      s = jnp.int32(0)
      if draw is not None:
        key = draw.key('tokenizer/scale')
        s = jax.random.randint(key, (), 0, len(found) - 1)
      vectors = [x.vectors for x in found]
      losses['smaller'] = self.smaller * self._smaller(s, image, vectors, train)
    out = Reconstruction(
      image=image,
      losses=losses,
      codes=self._codes([x.values for x in found]),
      features=flat([x.features for x in found]),
      metrics=merged([x.metrics for x in found]),
    )
    return found[-1].vectors, out

  def _smaller(self, s, image, latents, train):
    """Mean squared difference of the image that scale s is decoded to."""

    def branch(i):
      def difference(self, latents):
        small = self.decode_latents(latents[i], train)
        return jnp.mean((small - resize(image, small.shape[1:3], 'area')) ** 2)

      return difference

    branches = [branch(i) for i in range(len(latents) - 1)]
    return nn.switch(s, branches, self, latents)

  def _resized(self, latent):
    """(b, h, w, c) -> the same at every grid."""
    return [resize(latent, grid, self.kind) for grid in self.grids]

  def _tokens(self, latent):
    return Tokens(flat([self.quant.quantize(z) for z in self._resized(latent)]))

  def _latent(self, tokens):
    height, width = self.latent_grid
    return super()._latent(Tokens(tokens.values[:, -height * width :]))


class ImagePyramid(Autoencoder, kw_only=True):
  """The image shrunk to several sizes, each encoded by itself (Hi-MAR).

  Images are decoded from the last scale alone. Any trained `Autoencoder` serves: a
  generator's config changes its type.

  Source: arXiv 2505.20288; HiDream-ai/himar, engine_mar.py.

  Attributes:
    scales: sides or (height, width) of all grids, small to large; the last is the
      grid of the latent.
    kind: how the image is shrunk, see `layers.resize`.
  """

  scales: Grids
  kind: str = 'bicubic'
  grid: tuple[Side, Side] = (0, 0)  # of `Autoencoder`; the last scale says it

  adjustable: ClassVar[tuple[str, ...]] = ('type', 'grid', 'scales', 'kind')

  @property
  def grids(self) -> tuple[tuple[int, int], ...]:
    return as_grids(self.scales)

  def encode(self, image: jax.Array) -> Tokens:
    maps = [self.quant.latent(x) for x in self._moments(image)]
    scaled = [self.quant.quantize(self.quant.scaled(x)) for x in maps]
    return Tokens(flat(scaled))

  def store(self, image: jax.Array) -> jax.Array:
    if not self.static.stochastic:
      return super().store(image)
    return flat(self._moments(image))

  def visit(self, stored: jax.Array, draw: Draw) -> Tokens:
    if not self.static.stochastic:
      return super().visit(stored, draw)
    latent = self.quant.scaled(self.quant.latent(stored, draw))
    return Tokens(self.quant.quantize(latent))

  def _moments(self, image):
    """Of the image at every size, (b, h, w, m c)."""
    found, whole = [], self.latent_grid
    for grid in self.grids:
      sides = zip(image.shape[1:3], grid, whole)
      small = resize(image, tuple(a * b // c for a, b, c in sides), self.kind)
      found.append(self.encode_moments(small, grid=grid))
    return found

  def _latent(self, tokens):
    height, width = self.latent_grid
    return super()._latent(Tokens(tokens.values[:, -height * width :]))
