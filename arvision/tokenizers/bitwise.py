"""A residual pyramid of bits, and self-correction of flipped ones (Infinity)."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from arvision.layers.resize import resize
from arvision.quantizers.base import mean_losses, merged
from arvision.random import Draw
from arvision.ranges import FewOr0, Share, Side
from arvision.structs import Array, Reconstruction, Tokens, TokenSpec
from arvision.tokenizers.autoencoder import flat, join, patched, places
from arvision.tokenizers.residual import ResidualPyramid


class BitwisePyramid(ResidualPyramid, kw_only=True):
  """Residual quantisation in which every scale is straight-through by itself.

  Vectors are resampled up bilinearly, without convolutions, and so is what the
  next scale is given of their sum.

  A generator trains on flipped bits (self-correction): some bits of a scale are
  flipped, the flipped scale enters the sum, and the next scale quantises what is
  then missing. So the targets correct the flips, and `Tokens.shown` has them.
  That needs the latent of an image, which is then stored.

  Source: arXiv 2412.04431; FoundationVision/Infinity, models/bsq_vae and
    models/bitwise_self_correction.py. Differs: the share of flipped bits is
    sampled for every image, not for every batch.

  Attributes:
    scales: sides or (height, width) of all grids of tokens, small to large.
    patch: side of a token in places of the latent (2 in the 8B model).
    flips: largest share of bits that are flipped at a scale, in whole percent;
      0 for no self-correction.
    flipped_scales: how many scales have flips, from the smallest on; None: all.
  """

  quant_kernel: FewOr0 = 0
  phi_ratio: Share = 0.0
  patch: Side = 1
  flips: Share = 0.0
  flipped_scales: FewOr0 | None = None

  kind: ClassVar[str] = 'bilinear'  # of resampling
  adjustable: ClassVar[tuple[str, ...]] = (
    'scales',
    'patch',
    'flips',
    'flipped_scales',
  )

  def setup(self):
    super().setup()
    if self.flips and set(self.static.radices) != {2}:
      raise ValueError(
        f'config.tokenizer.flips={self.flips}: the quantiser has ids of '
        f'{self.static.size} values, and only bits can be flipped; set it to 0'
      )

  @property
  def places(self) -> tuple[tuple[int, int], ...]:
    """(height, width) of every scale in places of the latent."""
    return tuple((h * self.patch, w * self.patch) for h, w in self.grids)

  @property
  def latent_grid(self) -> tuple[int, int]:
    return self.places[-1]

  @property
  def spec(self) -> TokenSpec:
    return patched(self.static.spec(self.grids), self.patch)

  # ---------------------------------------------------------------- training

  def quantized(
    self, image: jax.Array, draw: Draw | None = None, train: bool = False
  ) -> tuple[jax.Array, Reconstruction]:
    moments = self.encode_moments(image, train)
    latent = self.quant.latent(moments, draw)
    total, found = jnp.zeros_like(latent), []
    for s, grid in enumerate(self.places):
      rest = latent - jax.lax.stop_gradient(total)
      own = None if draw is None else draw.fold(s)
      found.append(self.quant(resize(rest, grid, 'area'), own))
      total += resize(found[-1].vectors, self.latent_grid, self.kind)
    out = Reconstruction(
      image=image,
      losses={
        **self.quant.regularization(moments),
        **mean_losses([x.losses for x in found]),
      },
      codes=self._codes([x.values for x in found]),
      features=flat([x.features for x in found]),
      metrics=merged([x.metrics for x in found]),
    )
    return total, out

  # ------------------------------------------------------------------- codec

  def merge(self, canvas: jax.Array, values: jax.Array, s: int) -> jax.Array:
    added = self.quant.embed(self._places(values, self.grids[s]))
    return canvas + resize(added, self.latent_grid, self.kind)

  def view(self, canvas: jax.Array, s: int) -> jax.Array:
    return join(resize(canvas, self.places[s], self.kind), self.patch)

  def embed(self, values: jax.Array) -> jax.Array:
    line = values.shape[1], 1
    return join(self.quant.embed(self._places(values, line)), self.patch)

  def digits(self, values: Array) -> Array:
    return flat([super().digits(self._places(values, (values.shape[1], 1)))])

  def _places(self, values, grid):
    """Values of tokens -> of the places of the latent."""
    return places(self.static, values, grid, self.patch)

  def _joined(self, values):
    values = values.reshape(*values.shape[:3], -1)  # ids have no axis of parts
    tokens = join(values, self.patch)
    return tokens[..., 0] if self.spec.codes else tokens

  # --------------------------------------------------------- self-correction

  def store(self, image: jax.Array) -> jax.Array:
    """The values of its tokens; with flips its moments (b, h * w, m c)."""
    if not self.flips:
      return super().store(image)
    return flat([self.encode_moments(image)])

  def visit(self, stored: jax.Array, draw: Draw) -> Tokens:
    """The tokens of one visit, with flips in training alone.

    Raises:
      ValueError: flips of tokens that were stored without their latents.
    """
    flipped = self.flips and draw.progress is not None
    if jnp.issubdtype(stored.dtype, jnp.integer):
      if flipped:
        raise ValueError(
          f'config.tokenizer.flips={self.flips}: flips need latents, and the '
          'stored tokens are ids; encode the images with a tokenizer whose '
          'config has flips, or set config.tokenizer.flips=0'
        )
      return super().visit(stored, draw)
    latent = self._on_grid(self.quant.latent(stored, draw))
    return self._corrected(latent, draw) if flipped else self.to_tokens(latent)

  def _corrected(self, latent, draw):
    """Tokens of a latent (b, h, w, c), of which flipped ones are shown."""
    count = len(self.scales)
    if self.flipped_scales is not None:
      count = min(count, self.flipped_scales)
    strengths = round(100 * self.flips) + 1
    share = draw.uniform('tokenizer/share', (count,))
    share = jnp.floor(share * strengths) / 100
    shown = []

    # Of an id.
    bits = self.static.channels // self.static.parts
    several = (bits,) * (bits > 1)

    def flip(values, s):
      if s < count:
        shape = (*values.shape[1:], *several)
        uniform = draw.uniform(f'tokenizer/flip_{s}', shape)
        most = jnp.expand_dims(share[:, s], range(1, uniform.ndim))
        flips = (uniform < most).reshape(*values.shape, bits)
        values = values ^ jnp.sum(flips << np.arange(bits)[::-1], -1)
      shown.append(values)
      return values

    values, _, _ = self.quantize(self.quant.scaled(latent), flip)
    return Tokens(*(jnp.concatenate(x, axis=1) for x in (values, shown)))
