"""Pixels as tokens: every grey level of every channel is an id."""

from typing import ClassVar

import jax
import jax.numpy as jnp

from arvision.random import Draw
from arvision.ranges import Count, Few, Side
from arvision.structs import Array, Reconstruction, Tokens, TokenSpec
from arvision.tokenizers.base import Tokenizer


class Pixels(Tokenizer, kw_only=True):
  """A token per pixel and channel, all of a channel before the next.

  It has no parameters, so that there is nothing to train or to freeze. The
  likelihood of its tokens is that of the pixels, in their levels.

  Attributes:
    grid: (height, width) of the images.
    channels: of the images.
    levels: values of a pixel: 256 keep every one of 8 bits, and 17 those of
      scikit-learn's digits.
  """

  grid: tuple[Side, Side]
  channels: Few = 1
  levels: Count = 256

  weightless: ClassVar[bool] = True

  @property
  def grids(self) -> tuple[tuple[int, int], ...]:
    """(height, width) of every channel."""
    return ((int(self.grid[0]), int(self.grid[1])),) * self.channels

  @property
  def spec(self) -> TokenSpec:
    return TokenSpec(self.levels, 1, 1, self.grids)

  def __call__(
    self, image: jax.Array, draw: Draw | None = None, train: bool = False
  ) -> Reconstruction:
    del draw, train
    tokens = self.encode(image)
    codes = jnp.asarray(tokens.values)
    return Reconstruction(self.decode(tokens), {}, codes)

  def encode(self, image: jax.Array) -> Tokens:
    """(b, H, W, C) float32 in [-1, 1] -> the nearest levels.

    Raises:
      ValueError: images of another size.
    """
    wanted = (*self.grids[0], self.channels)
    if image.shape[1:] != wanted:
      raise ValueError(
        f'images of {image.shape[1:]} (height, width, channels), but '
        f'config.tokenizer.grid and .channels are those of {wanted}'
      )
    share = (image.astype(jnp.float32) + 1) / 2
    level = jnp.rint(share * (self.levels - 1)).clip(0, self.levels - 1)
    level = jnp.moveaxis(level, -1, 1).astype(jnp.int32)
    return Tokens(level.reshape(len(image), -1))

  def decode(
    self,
    tokens: Tokens,
    draw: Draw | None = None,
    inputs: dict | None = None,
  ) -> jax.Array:
    del draw, inputs
    values = jnp.asarray(tokens.values)
    shape = len(values), self.channels, *self.grids[0]
    return jnp.moveaxis(self._brightness(values).reshape(shape), 1, -1)

  def embed(self, values: Array) -> jax.Array:
    return self._brightness(values)[..., None]

  def _brightness(self, values):
    """Levels -> float32 in [-1, 1]."""
    return jnp.asarray(values, jnp.float32) * 2 / (self.levels - 1) - 1
