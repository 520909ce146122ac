"""Tokens of several images in a row."""

from typing import ClassVar

from arvision.ranges import Few
from arvision.structs import Tokens
from arvision.tokenizers.autoencoder import Patched


class Images(Patched, kw_only=True):
  """Sequences of images; every image is encoded by itself (ARFlow).

  An image is encoded to its own tokens, and what is stored of several images is
  concatenated for `visit`. Of the tokens of a sequence the last image is decoded.

  Attributes:
    images: of a sequence.
    patch: see `Patched`.
  """

  images: Few = 1

  adjustable: ClassVar[tuple[str, ...]] = ('type', 'patch', 'images')

  @property
  def grids(self) -> tuple[tuple[int, int], ...]:
    return super().grids * self.images

  def of_grids(self, grids):
    return self.clone(images=len(grids))

  def _on_grid(self, vectors):
    """(b, s * h * w, ...) of s images -> (b, s * h, w, ...)."""
    width = self.latent_grid[1]
    return vectors.reshape(len(vectors), -1, width, *vectors.shape[2:])

  def _latent(self, tokens):
    height, width = self.grids[0]
    return super()._latent(Tokens(tokens.values[:, -height * width :]))
