"""Codes of an image behind a full-view prompt (VFP)."""

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from arvision.random import Draw
from arvision.ranges import Side
from arvision.structs import Tokens, TokenSpec
from arvision.tokenizers.autoencoder import Autoencoder


class Prompted(Autoencoder, kw_only=True):
  """Codes of an image behind those of a full-view prompt (VFP).

  The tokens are those of a grid that has the rows of the prompt above the rows of
  the image. A generator is trained to predict both, so it samples a prompt before
  it samples the image. An image is encoded to its own codes; the prompt is added by
  `visit`, and `decode` leaves it out.

  Source: arXiv 2502.16965.

  Attributes:
    rows: of the prompt, at most those of the image.
    prompt: 'class' for codes of another image of the class, which come before
      those of the image in what is stored (config.data.companions=1), or 'uniform'
      for random codes. Fewer codes than an image has are spread evenly over it.
  """

  rows: Side
  prompt: Literal['class', 'uniform'] = 'class'

  adjustable: ClassVar[tuple[str, ...]] = ('type', 'rows', 'prompt')

  @property
  def images(self) -> int:
    """Images that a row of a batch has to have."""
    return 2 if self.prompt == 'class' else 1

  @property
  def before(self) -> int:
    return self.rows * self.latent_grid[1]

  @property
  def spec(self) -> TokenSpec:
    height, width = self.latent_grid
    if self.rows > height:
      raise ValueError(
        f'config.tokenizer.rows={self.rows}: wanted at most the {height} rows of '
        'an image'
      )
    found = self.static.spec(((self.rows + height, width),))
    if not found.codes:
      raise ValueError(
        'config.tokenizer.quantizer: a prompt is one of codes, wanted a '
        'quantizer with one id per token, quantizers.lookup'
      )
    return found

  @property
  def image_grids(self) -> tuple[tuple[int, int], ...]:
    return self.grids

  def visit(self, stored: jax.Array, draw: Draw) -> Tokens:
    length = int(np.prod(self.latent_grid))
    if self.prompt == 'class':
      at = np.arange(self.before) * length // self.before
      prompt = stored[:, :length][:, at]
    else:
      size = self.static.size
      share = draw.uniform('tokenizer/prompt', (self.before,))
      prompt = jnp.minimum((share * size).astype(jnp.int32), size - 1)
    return Tokens(jnp.concatenate([prompt, stored[:, -length:]], 1))

  def _latent(self, tokens):
    # What `encode` gives has no prompt.
    own = tokens.values[:, -int(np.prod(self.latent_grid)) :]
    return super()._latent(Tokens(own))
