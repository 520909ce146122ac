"""What a tokenizer is, and the codec that feeds may use."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.random import Draw
from arvision.structs import Array, Reconstruction, Tokens, TokenSpec


class Tokenizer(nn.Module):
  """Images <-> tokens. It knows nothing of the transformer.

  Besides training (`__call__`) and `encode`/`decode`, a tokenizer is the codec
  of a feed: `embed` gives the vectors that stand for tokens, and multi-scale
  tokenizers build the pyramid with `merge` and `view`.

  Attributes:
    adjustable: fields that change what tokens mean to a generator and no
      parameter, so that a generator's config may set them otherwise.
    before: tokens of a sequence that come before those of the image, which
      `encode` does not give.
    last_layer_path: where the last kernel of the decoder is among the
      parameters; an adaptive weight of a discriminator is measured there.
    weightless: whether it has no parameters, so that generators need no run of
      it.
  """

  adjustable: ClassVar[tuple[str, ...]] = ()
  last_layer_path: ClassVar[tuple[str, ...]] = ()
  weightless: ClassVar[bool] = False

  @property
  def before(self) -> int:
    return 0

  @property
  def codebook_path(self) -> tuple[str, ...]:
    """Where the table of codes is among the parameters; () for none."""
    return ()

  @property
  def spec(self) -> TokenSpec:
    raise AttributeError(f'{type(self).__name__} has no spec')

  @property
  def image_grids(self) -> tuple[tuple[int, ...], ...]:
    """The grids of the tokens that `encode` gives."""
    return self.spec.grids

  def __call__(
    self, image: jax.Array, draw: Draw | None = None, train: bool = False
  ) -> Reconstruction:
    """Encodes, quantises, decodes (b, H, W, C) in [-1, 1]; for training."""
    raise AttributeError(f'{type(self).__name__} cannot be trained')

  def encode(self, image: jax.Array) -> Tokens:
    """(b, H, W, C) float32 in [-1, 1] -> Tokens."""
    raise AttributeError(f'{type(self).__name__} cannot encode')

  def store(self, image: jax.Array) -> jax.Array:
    """What is stored of an image, for `visit` to make its tokens of."""
    return jnp.asarray(self.encode(image).values)

  def visit(self, stored: jax.Array, draw: Draw) -> Tokens:
    """The tokens of stored images, as one visit of training sees them."""
    del draw  # tokens that are not random are the same at every visit
    return Tokens(stored)

  def decode(
    self,
    tokens: Tokens,
    draw: Draw | None = None,
    inputs: dict | None = None,
  ) -> jax.Array:
    """Tokens -> (b, H, W, C) float32, clipped to [-1, 1].

    Args:
      tokens: of b images.
      draw: keys of the b examples, for decoders that sample; others ignore it.
      inputs: labels and the like, leading axis b, for decoders that have a
        condition; others ignore them.
    """
    raise AttributeError(f'{type(self).__name__} cannot decode')

  def of_grids(self, grids: tuple[tuple[int, int], ...]) -> 'Tokenizer':
    """The same tokenizer with other grids, see `samplers.base.Sampler`."""
    return self.clone(scales=grids)

  def blank(self, batch: int) -> dict:
    """The `inputs` that `decode` reads, as zeros; {} without a condition."""
    del batch
    return {}

  # What is counted of the usage of codes.

  @property
  def radices(self) -> tuple[int, ...]:
    """Values of every digit of a code: 2 for a bit; () if continuous."""
    spec = self.spec
    return (spec.size,) * spec.parts if spec.size else ()

  def digits(self, values: Array) -> Array:
    """Tokens of any one scale (b, e, ...) -> their codes (b, n, digits) int32.

    A token of several places has a code for each.
    """
    return values.reshape(*values.shape[:2], -1)

  # The codec protocol. `s` is a scale index (a Python int).

  def embed(self, values: jax.Array) -> jax.Array:
    """Tokens of any one scale (b, e, ...) -> (b, e, c); latents as they are."""
    raise AttributeError(f'{type(self).__name__} has no embed')

  def canvas(self, batch: int) -> jax.Array:
    """(b, h, w, c) zeros, to which `merge` adds scales."""
    raise AttributeError(f'{type(self).__name__} is not multi-scale')

  def merge(self, canvas: jax.Array, values: jax.Array, s: int) -> jax.Array:
    """Adds scale s, tokens (b, e, ...), to the canvas (b, h, w, c)."""
    raise AttributeError(f'{type(self).__name__} is not multi-scale')

  def view(self, canvas: jax.Array, s: int) -> jax.Array:
    """What scale s is given of the canvas: (b, h_s * w_s, c)."""
    raise AttributeError(f'{type(self).__name__} is not multi-scale')
