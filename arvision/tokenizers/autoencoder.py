"""Encoder, quantiser and decoder: tokens on one grid.

What the quantiser is makes it a VQGAN (`quantizers.lookup`) or the autoencoder of
latent diffusion (`quantizers.kl`). Subclasses arrange the latent in other ways.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp

from arvision.layers.conv import conv
from arvision.quantizers.base import Quantizer
from arvision.random import Draw
from arvision.ranges import FewOr0, Side
from arvision.structs import Array, Reconstruction, Template, Tokens, TokenSpec
from arvision.tokenizers.base import Tokenizer


class Autoencoder(Tokenizer, kw_only=True):
  """One grid of tokens; a line of tokens is a grid of one row.

  Attributes:
    encoder: template of a module (b, H, W, C) -> (b, h, w, z_channels), with a
      field `z_channels`: `layers.conv.Encoder` or its like.
    quantizer: template of a `quantizers.base.Quantizer`.
    decoder: template of a module (b, h, w, z_channels) -> (b, H, W, C):
      `layers.conv.Decoder` or its like.
    grid: (height, width) of the latent.
    quant_kernel: side of the convolutions before and after the quantiser; 0 for
      none.
    post_bias: whether the one after the quantiser has a bias.
    darkest: what black is to the networks, -1, or 0 (MaskGIT); white is 1.
  """

  encoder: Template
  quantizer: Template
  decoder: Template
  grid: tuple[Side, Side]
  quant_kernel: FewOr0 = 1
  post_bias: bool = True
  darkest: float = -1.0

  # Where a task finds the last layer of the decoder.
  last_layer_path: ClassVar[tuple[str, ...]] = ('dec', 'conv_out', 'kernel')

  def setup(self):
    self.enc = self.encoder()
    self.dec = self.decoder()
    self.quant = self.quantizer()
    moments, channels = self.quant.moments, self.quant.channels
    given, wanted = self.enc.z_channels, moments * channels
    width, rest = divmod(given, moments)
    if rest or not self.quant_kernel and given != wanted:
      numbers = f'{moments} for each of {channels} channels, {wanted}'
      if self.quant_kernel:
        numbers = f'a multiple of {moments}, so many for every channel'
      raise ValueError(
        f'config.tokenizer.encoder.z_channels={given}: wanted {numbers} '
        f'(config.tokenizer.quantizer, {type(self.quant).__name__})'
      )
    if kernel := self.quant_kernel:
      self.quant_conv = conv(wanted, kernel, name='quant_conv')
      self.post_quant_conv = conv(
        width, kernel, bias=self.post_bias, name='post_quant_conv'
      )

  @property
  def static(self):
    """The quantiser without its parameters, for what no parameter changes."""
    return self.quantizer(parent=None)

  @property
  def grids(self) -> tuple[tuple[int, int], ...]:
    """(height, width) of every scale of tokens, small to large."""
    return ((int(self.grid[0]), int(self.grid[1])),)

  @property
  def latent_grid(self) -> tuple[int, int]:
    """(height, width) of the latent."""
    return self.grids[-1]

  @property
  def spec(self) -> TokenSpec:
    return self.static.spec(self.grids)

  @property
  def codebook_path(self) -> tuple[str, ...]:
    path = self.static.codebook_path
    return ('quant', *path) if path else ()

  # ---------------------------------------------------------------- training

  def __call__(
    self, image: jax.Array, draw: Draw | None = None, train: bool = False
  ) -> Reconstruction:
    vectors, out = self.quantized(image, draw, train)
    return out.replace(image=self.decode_latents(vectors, train))

  def quantized(
    self, image: jax.Array, draw: Draw | None = None, train: bool = False
  ) -> tuple[jax.Array, Reconstruction]:
    """What the decoder takes (b, h, w, c), and all but the decoded image."""
    moments = self.encode_moments(image, train)
    latent = self.quant.latent(moments, draw)
    found = self.quant(latent, draw)
    out = Reconstruction(
      image=image,
      losses={**self.quant.regularization(moments), **found.losses},
      codes=self._codes([found.values]),
      features=found.features,
      metrics=found.metrics,
    )
    return found.vectors, out

  def _codes(self, values):
    """(b, t) ids of all scales, None where a token is not one id."""
    return flat(values) if self.spec.codes else None

  # ------------------------------------------------------------------ stages

  def encode_moments(
    self,
    image: jax.Array,
    train: bool = False,
    grid: tuple[int, int] | None = None,
  ) -> jax.Array:
    """Image (b, H, W, C) -> what the quantiser takes, (b, h, w, m c) float32.

    Raises:
      ValueError: the latent's grid is not `grid`, or that of the tokenizer.
    """
    grid = grid or self.latent_grid
    if self.darkest != -1:
      image = self.darkest + (1 - self.darkest) * (image + 1) / 2
    moments = self.enc(image, train).astype(jnp.float32)
    if self.quant_kernel:
      moments = self.quant_conv(moments)
    if moments.shape[1:3] != grid:
      raise ValueError(
        f'images of {image.shape[1:3]} become a latent of {moments.shape[1:3]} '
        f'but the tokenizer is made for {grid}; change config.data.size, or patch '
        'in config.tokenizer.encoder and .decoder, or config.tokenizer.grid '
        '(.scales) and config.layout'
      )
    return moments

  def encode_latents(self, image: jax.Array) -> jax.Array:
    """Image (b, H, W, C) -> latent before quantisation (b, h, w, c) float32."""
    return self.quant.latent(self.encode_moments(image))

  def decode_latents(self, latent: jax.Array, train: bool = False) -> jax.Array:
    """Latent (b, h, w, c), not scaled -> image (b, H, W, C), not clipped."""
    if self.quant_kernel:
      latent = self.post_quant_conv(latent)
    return self.brightened(self.dec(latent, train))

  def brightened(self, image: jax.Array) -> jax.Array:
    """What a decoder gives, in [`darkest`, 1], as float32 in [-1, 1]."""
    image = image.astype(jnp.float32)
    if self.darkest != -1:
      image = 2 * (image - self.darkest) / (1 - self.darkest) - 1
    return image

  def to_tokens(self, latent: jax.Array) -> Tokens:
    """Latent (b, h, w, c) as the decoder takes it -> tokens."""
    return self._tokens(self.quant.scaled(latent))

  def to_latent(self, tokens: Tokens) -> jax.Array:
    """Tokens -> latent (b, h, w, c) as the decoder takes it."""
    return self.quant.unscaled(self._latent(tokens))

  # What subclasses replace: the arrangement of scaled latents.

  def _tokens(self, latent):
    return Tokens(flat([self.quant.quantize(latent)]))

  def _latent(self, tokens):
    return self._on_grid(self.embed(jnp.asarray(tokens.values)))

  def _on_grid(self, vectors):
    """(b, h * w, ...) -> (b, h, w, ...)."""
    return vectors.reshape(
      vectors.shape[0], *self.latent_grid, *vectors.shape[2:]
    )

  # ------------------------------------------------------------- image <-> tokens

  def encode(self, image: jax.Array) -> Tokens:
    return self.to_tokens(self.encode_latents(image))

  def store(self, image: jax.Array) -> jax.Array:
    """The values of its tokens, or (b, h * w, m c) float32 moments.

    Moments are stored where the quantiser samples a new latent at every visit.
    """
    if not self.static.stochastic:
      return super().store(image)
    return flat([self.encode_moments(image)])

  def visit(self, stored: jax.Array, draw: Draw) -> Tokens:
    if not self.static.stochastic:
      return super().visit(stored, draw)
    return self.to_tokens(self._on_grid(self.quant.latent(stored, draw)))

  def decode(
    self,
    tokens: Tokens,
    draw: Draw | None = None,
    inputs: dict | None = None,
  ) -> jax.Array:
    del draw, inputs  # a decoder that samples has a tokenizer of its own
    return jnp.clip(self.decode_latents(self.to_latent(tokens)), -1, 1)

  def embed(self, values: jax.Array) -> jax.Array:
    return self.quant.embed(values)

  @property
  def radices(self) -> tuple[int, ...]:
    return self.static.radices

  def digits(self, values: Array) -> Array:
    return self.static.digits(values)


class Patched(Autoencoder, kw_only=True):
  """Tokens of patch × patch places of the latent (MAR over KL-8).

  The parts of a token go through its places in raster order, all of one channel
  before the next.

  Source: LTH14/mar, patchify in models/mar.py.

  Attributes:
    patch: side of a token in places; it divides the grid.
  """

  patch: Side = 2

  adjustable: ClassVar[tuple[str, ...]] = ('type', 'patch')
  # Whether all channels of a place come before the next place.
  by_place: ClassVar[bool] = False

  @property
  def latent_grid(self) -> tuple[int, int]:
    return int(self.grid[0]), int(self.grid[1])

  @property
  def grids(self) -> tuple[tuple[int, int], ...]:
    height, width = self.latent_grid
    if height % self.patch or width % self.patch:
      raise ValueError(
        f'config.tokenizer.patch={self.patch} does not divide the latent of '
        f'{height} x {width}'
      )
    return ((height // self.patch, width // self.patch),)

  @property
  def spec(self) -> TokenSpec:
    return patched(self.static.spec(self.grids), self.patch)

  def _tokens(self, latent):
    values = self.quant.quantize(latent)
    values = values.reshape(*latent.shape[:3], -1)  # ids have no axis of parts
    return Tokens(join(values, self.patch, self.by_place))

  def _latent(self, tokens):
    values = jnp.asarray(tokens.values)
    return self._vectors(values, self.grids[0])

  def embed(self, values: jax.Array) -> jax.Array:
    line = values.shape[1], 1
    return join(self._vectors(values, line), self.patch, self.by_place)

  def digits(self, values: Array) -> Array:
    return flat([super().digits(self._places(values, (values.shape[1], 1)))])

  def _vectors(self, values, grid):
    return self.quant.embed(self._places(values, grid))

  def _places(self, values, grid):
    """Values of tokens -> of the places of the latent."""
    return places(self.static, values, grid, self.patch, self.by_place)


class Unrolled(Autoencoder, kw_only=True):
  """Every id is one token (ELM's masked models).

  The ids of a place stand next to one another in its row.
  """

  adjustable: ClassVar[tuple[str, ...]] = ('type',)

  @property
  def latent_grid(self) -> tuple[int, int]:
    return int(self.grid[0]), int(self.grid[1])

  @property
  def grids(self) -> tuple[tuple[int, int], ...]:
    height, width = self.latent_grid
    return ((height, width * self.static.parts),)

  @property
  def spec(self) -> TokenSpec:
    size, parts = self.static.size, self.static.parts
    if not size:
      raise ValueError(
        "config.tokenizer.type='tokenizers.autoencoder.Unrolled': wanted a "
        f'quantizer with ids, got {type(self.static).__name__}'
      )
    return TokenSpec(size, 1, self.static.channels // parts, self.grids)

  def _tokens(self, latent):
    values = self.quant.quantize(latent)
    return Tokens(values.reshape(len(values), -1))

  def _latent(self, tokens):
    return self._on_grid(self.quant.embed(self._of_places(tokens.values)))

  def embed(self, values: jax.Array) -> jax.Array:
    vectors = self.quant.embed(self._of_places(values))
    return vectors.reshape(*values.shape, -1)

  def digits(self, values: Array) -> Array:
    return super().digits(self._of_places(values))

  def _of_places(self, values):
    """(b, t) -> the ids of every place, (b, t / parts, parts) or (b, t)."""
    parts = self.static.parts
    return values.reshape(len(values), -1, parts) if parts > 1 else values


def flat(maps: list) -> jax.Array:
  """(b, h, w, ...) of all scales -> (b, t, ...)."""
  return jnp.concatenate(
    [x.reshape(x.shape[0], -1, *x.shape[3:]) for x in maps], axis=1
  )


def patched(spec: TokenSpec, patch: int) -> TokenSpec:
  """The spec of places -> that of tokens of patch × patch places."""
  cells = patch**2
  return TokenSpec(
    spec.size, cells * spec.parts, cells * spec.channels, spec.grids
  )


def join(places: jax.Array, patch: int, by_place: bool = False) -> jax.Array:
  """Joins patch × patch places to a token.

  Args:
    places: (b, h * patch, w * patch, n).
    patch: side of a token.
    by_place: order of a token's numbers, with places in raster order: all of a
      place before the next, or all of a channel before the next.

  Returns:
    (b, h * w, n * patch²).
  """
  b, height, width, n = places.shape
  h, w = height // patch, width // patch
  cells = places.reshape(b, h, patch, w, patch, n).swapaxes(2, 3)
  if not by_place:
    cells = jnp.moveaxis(cells, -1, 3)
  return cells.reshape(b, h * w, n * patch**2)


def split(
  tokens: jax.Array, grid: tuple[int, int], patch: int, by_place: bool = False
) -> jax.Array:
  """The inverse of `join`, for tokens on a grid (h, w)."""
  (h, w), b = grid, tokens.shape[0]
  if by_place:
    cells = tokens.reshape(b, h, w, patch, patch, -1)
  else:
    cells = jnp.moveaxis(tokens.reshape(b, h, w, -1, patch, patch), 3, -1)
  return cells.swapaxes(2, 3).reshape(b, h * patch, w * patch, -1)


def places(
  quantizer: Quantizer,
  tokens: jax.Array,
  grid: tuple[int, int],
  patch: int,
  by_place: bool = False,
) -> jax.Array:
  """Tokens (b, t, ...) on a grid (h, w) -> (b, h * patch, w * patch, ...)."""
  values = split(tokens, grid, patch, by_place)
  ids = quantizer.size and quantizer.parts == 1
  return values[..., 0] if ids else values
