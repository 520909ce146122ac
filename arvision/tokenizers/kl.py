"""Continuous tokens: a grid of latents with a Gaussian prior (LDM, MAR)."""

from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from arvision.layers.conv import conv
from arvision.layers.resize import resize
from arvision.layouts.scales import Grids, as_grids
from arvision.random import Draw
from arvision.ranges import AtLeast0, Positive, Side, Width
from arvision.structs import Reconstruction, Template, Tokens, TokenSpec
from arvision.tokenizers.base import Tokenizer


@flax.struct.dataclass
class Gaussian:
  """A diagonal Gaussian for every place.

  Attributes:
    mean, log_variance: (..., c) float32.
  """

  mean: jax.Array
  log_variance: jax.Array

  @classmethod
  def of(cls, moments: jax.Array) -> 'Gaussian':
    """Moments (..., 2 c): means, then logs of variances, cut to [-30, 20]."""
    mean, log_variance = jnp.split(moments.astype(jnp.float32), 2, -1)
    return cls(mean, jnp.clip(log_variance, -30, 20))

  @property
  def std(self) -> jax.Array:
    return jnp.exp(0.5 * self.log_variance)

  def kl(self) -> jax.Array:
    """(...,) nats to the standard Gaussian, summed over the last axis."""
    square = self.mean**2 + jnp.exp(self.log_variance)
    return 0.5 * jnp.sum(square - 1 - self.log_variance, -1)

  def sample(self, draw: Draw) -> jax.Array:
    """(b, ...) a draw, named 'tokenizer/posterior'."""
    return self.mean + self.std * draw.normal(
      'tokenizer/posterior', self.mean.shape[1:]
    )


class KL(Tokenizer, kw_only=True):
  """Image -> a Gaussian for every place of a grid -> latents -> image.

  Generators see (latent - shift) * scale. What is stored of an image are the
  moments before that, so that a new latent is drawn at every visit.

  Source: arXiv 2112.10752 (kl-f16); LTH14/mar, models/vae.py, whose latents are
    scaled by 0.2325, one over their standard deviation on ImageNet.

  Attributes:
    encoder: template of `layers.conv.Encoder`; its z_channels are 2 * channels.
    decoder: template of `layers.conv.Decoder`.
    grid: (height, width) of the latent.
    channels: of the latent.
    kl: weight of the mean KL divergence of an image, in nats.
    scale: what latents are multiplied by, 1 / their standard deviation; measure
      it with `arvision latents`.
    shift: what is taken from them before, one number or one per channel.
  """

  encoder: Template
  decoder: Template
  grid: tuple[Side, Side]
  channels: Width
  kl: AtLeast0 = 1e-6
  scale: Positive = 1.0
  shift: float | tuple[float, ...] = 0.0

  adjustable: ClassVar[tuple[str, ...]] = ('scale', 'shift')
  last_layer_path = ('dec', 'conv_out', 'kernel')

  def setup(self):
    self.enc = self.encoder()
    self.dec = self.decoder()
    if self.enc.z_channels != 2 * self.channels:
      raise ValueError(
        f'config.tokenizer.encoder.z_channels={self.enc.z_channels}: wanted '
        f'a mean and a variance for each of {self.channels} channels, '
        f'{2 * self.channels}'
      )
    self.quant_conv = conv(2 * self.channels, 1, name='quant_conv')
    self.post_quant_conv = conv(self.channels, 1, name='post_quant_conv')

  @property
  def spec(self) -> TokenSpec:
    grid = (int(self.grid[0]), int(self.grid[1]))
    return TokenSpec(0, self.channels, self.channels, (grid,))

  @property
  def latent_grid(self) -> tuple[int, int]:
    """(height, width) of what the decoder takes."""
    height, width = self.spec.grids[-1]
    return height, width

  def __call__(
    self, image: jax.Array, draw: Draw | None = None, train: bool = False
  ) -> Reconstruction:
    posterior = self.posterior(image, train)
    latent = posterior.sample(draw) if draw is not None else posterior.mean
    nats = jnp.mean(jnp.sum(posterior.kl(), (1, 2)))
    return Reconstruction(
      image=self.decode_latents(latent, train), losses={'kl': self.kl * nats}
    )

  def posterior(self, image: jax.Array, train: bool = False) -> Gaussian:
    """(b, H, W, C) -> Gaussians of (b, h, w, c).

    Raises:
      ValueError: the latent's grid is not that of the tokenizer.
    """
    moments = self.quant_conv(self.enc(image, train).astype(jnp.float32))
    grid = self.latent_grid
    if moments.shape[1:3] != grid:
      raise ValueError(
        f'images of {image.shape[1:3]} become a latent of {moments.shape[1:3]} '
        f'but the tokenizer is made for {grid}; change config.data.size, '
        'config.tokenizer.encoder, or config.tokenizer.grid (.scales)'
      )
    return Gaussian.of(moments)

  def decode_latents(self, latent: jax.Array, train: bool = False) -> jax.Array:
    """Latent (b, h, w, c), not scaled -> image (b, H, W, C), not clipped."""
    return self.dec(self.post_quant_conv(latent), train).astype(jnp.float32)

  def store(self, image: jax.Array) -> jax.Array:
    """(b, h * w, 2 c) float32 moments."""
    found = self.posterior(image)
    moments = jnp.concatenate([found.mean, found.log_variance], -1)
    return moments.reshape(len(image), -1, 2 * self.channels)

  def visit(self, stored: jax.Array, draw: Draw) -> Tokens:
    return Tokens(self.scaled(Gaussian.of(stored).sample(draw)))

  def encode(self, image: jax.Array) -> Tokens:
    """The means, scaled: what is decoded best."""
    return Tokens(self.scaled(Gaussian.of(self.store(image)).mean))

  def decode(self, tokens: Tokens) -> jax.Array:
    return jnp.clip(self.decode_latents(self.latent(tokens)), -1, 1)

  def latent(self, tokens: Tokens) -> jax.Array:
    """Tokens (b, t, c) -> what the decoder takes, (b, h, w, c)."""
    latent = jnp.asarray(tokens.values) / self.scale + jnp.asarray(self.shift)
    return latent.reshape(len(latent), *self.latent_grid, self.channels)

  def scaled(self, latent: jax.Array) -> jax.Array:
    """(b, t, c) as the decoder takes it -> as a generator does."""
    return (latent - jnp.asarray(self.shift)) * self.scale

  def embed(self, values: jax.Array) -> jax.Array:
    return values


class PyramidKL(KL, kw_only=True):
  """The same latent at several sizes, small to large (FlowAR, xAR's scales).

  Every scale is the latent resampled; images are decoded from the last alone.

  Source: arXiv 2412.15205 (FlowAR), arXiv 2502.20388 (xAR).

  Attributes:
    scales: sides or (height, width) of all grids; the last is that of the latent.
    kind: how the latent is resampled, see `layers.resize`.
  """

  scales: Grids
  kind: str = 'area'
  grid: tuple[Side, Side] = (0, 0)  # of `KL`; the last scale says it

  adjustable: ClassVar[tuple[str, ...]] = (
    'type',
    'scale',
    'shift',
    'grid',
    'scales',
    'kind',
  )

  @property
  def spec(self) -> TokenSpec:
    grids = as_grids(self.scales)
    return TokenSpec(0, self.channels, self.channels, grids)

  def scaled(self, latent: jax.Array) -> jax.Array:
    """(b, h * w, c) -> (b, t, c) of all scales."""
    latent = super().scaled(latent)
    batch, _, channels = latent.shape
    whole = latent.reshape(batch, *self.spec.grids[-1], channels)
    scales: list[Any] = [
      resize(whole, grid, self.kind).reshape(batch, -1, channels)
      for grid in self.spec.grids
    ]
    return jnp.concatenate(scales, 1)

  def latent(self, tokens: Tokens) -> jax.Array:
    height, width = self.spec.grids[-1]
    return super().latent(Tokens(tokens.values[:, -height * width :]))


class PatchedKL(KL, kw_only=True):
  """Tokens of patch × patch places of the latent (MAR over KL-8).

  The numbers of a token go through its places in raster order, all of one channel
  before the next.

  Source: LTH14/mar, patchify in models/mar.py.

  Attributes:
    patch: side of a token in places; it divides the grid.
  """

  patch: Side = 2

  adjustable: ClassVar[tuple[str, ...]] = ('type', 'scale', 'shift', 'patch')

  @property
  def latent_grid(self) -> tuple[int, int]:
    return int(self.grid[0]), int(self.grid[1])

  @property
  def spec(self) -> TokenSpec:
    height, width = self.latent_grid
    if height % self.patch or width % self.patch:
      raise ValueError(
        f'config.tokenizer.patch={self.patch} does not divide the latent of '
        f'{height} x {width}'
      )
    grid = height // self.patch, width // self.patch
    size = self.channels * self.patch**2
    return TokenSpec(0, size, size, (grid,))

  def scaled(self, latent: jax.Array) -> jax.Array:
    """(b, h * w, c) -> (b, t, patch² c)."""
    latent = super().scaled(latent)
    (h, w), p = self.spec.grids[0], self.patch
    cells = latent.reshape(-1, h, p, w, p, self.channels)
    return cells.transpose(0, 1, 3, 5, 2, 4).reshape(len(latent), h * w, -1)

  def latent(self, tokens: Tokens) -> jax.Array:
    (h, w), p = self.spec.grids[0], self.patch
    cells = jnp.asarray(tokens.values).reshape(-1, h, w, self.channels, p, p)
    cells = cells.transpose(0, 1, 4, 2, 5, 3)
    places = cells.reshape(len(cells), h * p * w * p, self.channels)
    return super().latent(Tokens(places))
