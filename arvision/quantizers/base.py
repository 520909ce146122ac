"""What a quantiser is: from latents to the values of tokens, and back."""

from typing import TYPE_CHECKING, ClassVar

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from arvision.metrics import Mean
from arvision.random import Draw
from arvision.structs import Array, TokenSpec

Losses = dict[str, Array]


@flax.struct.dataclass
class Quantized:
  """What a quantiser's training pass returns.

  Attributes:
    values: (...) int32 ids, (..., parts) int32 ids of every part, or
      (..., parts) float32: the tokens.
    vectors: (..., c) what the decoder is given, with the gradient of the latent
      (straight through).
    losses: name -> scalar, already weighted.
    features: (..., c) what was quantised; dead codes restart from it.
    metrics: name -> mean.
  """

  values: Array
  vectors: Array
  losses: Losses
  features: Array
  metrics: dict[str, Mean] = flax.struct.field(default_factory=dict)


class Quantizer(nn.Module):
  """Latents <-> values of tokens, place by place, on a grid of any rank.

  The stages of encoding and of decoding:

      moments -latent→ latent -scaled→ ... -quantize→ values
      values -embed→ vectors -unscaled→ latent

  A tokenizer arranges the places in between: it flattens one grid, resamples the
  latent to the grids of a pyramid, or takes residuals of the sums of `vectors`.
  Training (`__call__`) leaves scaling out, which is for generators alone.

  A subclass states `channels` (c, a field or a property), `size`, `quantize` and
  `embed`; everything else has a default.

  Attributes:
    moments: numbers that the encoder gives for every channel of the latent.
    stochastic: whether `latent` samples, so that an image has other tokens at
      every visit; its moments are then stored instead of its tokens.
    codebook_path: where the table of codes is among the parameters, for dead
      codes to be restarted; () for none.
    adjustable: see `tokenizers.base.Tokenizer`.
  """

  moments: ClassVar[int] = 1
  stochastic: ClassVar[bool] = False
  codebook_path: ClassVar[tuple[str, ...]] = ()
  adjustable: ClassVar[tuple[str, ...]] = ()

  if TYPE_CHECKING:

    @property
    def channels(self) -> int: ...

  @property
  def size(self) -> int:
    """Ids that a part of a token can be; 0 for continuous tokens."""
    raise NotImplementedError

  @property
  def parts(self) -> int:
    """Ids or numbers of a token."""
    return 1

  @property
  def radices(self) -> tuple[int, ...]:
    """Values of every digit of a code: 2 for a bit; () if continuous.

    The digits of an id are a mixed-radix number, the lowest first.
    """
    return (self.size,) * self.parts if self.size else ()

  def digits(self, values: Array) -> Array:
    """Values of tokens -> (..., digits) int32, see `radices`."""
    values = values if self.parts > 1 else values[..., None]
    groups = np.array(self.radices, np.int32).reshape(self.parts, -1)
    ones = np.ones_like(groups[:, :1])
    basis = np.cumprod(np.hstack([ones, groups[:, :-1]]), -1, np.int32)
    digits = values[..., None] // basis % groups
    return digits.reshape(*values.shape[:-1], -1)

  def spec(self, grids: tuple[tuple[int, ...], ...]) -> TokenSpec:
    """The tokens of some grids."""
    return TokenSpec(self.size, self.parts, self.channels, grids)

  def __call__(self, latent: jax.Array, draw: Draw | None = None) -> Quantized:
    """Quantises latents (..., c); for training.

    Args:
      latent: float32, not scaled.
      draw: keys of the b examples, for quantisers that sample; None: the most
        likely values.
    """
    values = self.quantize(latent)
    vectors = self.embed(values)
    return Quantized(
      values,
      straight_through(latent, vectors),
      {**self.pull(latent, vectors), **self.spread(latent, draw)},
      latent,
      self.metrics(latent),
    )

  # Losses, by name and already weighted; none by default.

  def regularization(self, moments: jax.Array) -> Losses:
    """Losses of the moments (b, ..., m c) of whole images."""
    del moments
    return {}

  def pull(self, latent: jax.Array, vectors: jax.Array) -> Losses:
    """Losses that move latents (..., c) and their vectors towards each other."""
    del latent, vectors
    return {}

  def spread(self, latent: jax.Array, draw: Draw | None = None) -> Losses:
    """Losses that make all values of latents (..., c) equally frequent.

    Args:
      latent: float32, not scaled.
      draw: its `progress` is for weights that change during training.
    """
    del latent, draw
    return {}

  def metrics(self, latent: jax.Array) -> dict[str, Mean]:
    """What else to report of latents (..., c) in training."""
    del latent
    return {}

  # The stages.

  def latent(self, moments: jax.Array, draw: Draw | None = None) -> jax.Array:
    """(..., m c) of an encoder -> (..., c); without `draw` the most likely."""
    del draw
    return moments

  def scaled(self, latent: jax.Array) -> jax.Array:
    """(..., c) as the decoder takes it -> as a generator does."""
    return latent

  def unscaled(self, latent: jax.Array) -> jax.Array:
    """(..., c) as a generator takes it -> as the decoder does."""
    return latent

  def quantize(self, latent: jax.Array) -> jax.Array:
    """(..., c) scaled latents -> values of tokens. No gradient passes."""
    raise NotImplementedError

  def embed(self, values: jax.Array) -> jax.Array:
    """Values of tokens -> (..., c) vectors that stand for them."""
    raise NotImplementedError


def straight_through(z: jax.Array, quantized: jax.Array) -> jax.Array:
  """The value of `quantized` with the gradient of `z`."""
  return z + jax.lax.stop_gradient(quantized - z)


def merged(metrics: list[dict[str, Mean]]) -> dict[str, Mean]:
  """Every metric over the scales of a pyramid."""
  return jax.tree.map(lambda *x: sum(x), *metrics)


def mean_losses(losses: list[Losses]) -> Losses:
  """The mean of every loss over the scales of a pyramid."""
  return {k: jnp.mean(jnp.stack([x[k] for x in losses])) for k in losses[0]}
