"""A pyramid of codes, every scale a correction of the smaller ones (VAR)."""

import jax
import jax.numpy as jnp
import numpy as np

from arvision.layers.conv import conv
from arvision.layers.resize import resize
from arvision.random import Draw
from arvision.ranges import FewOr0, Share, Side
from arvision.structs import Reconstruction, Tokens, TokenSpec
from arvision.tokenizers.codebook import Codebook
from arvision.tokenizers.quantizers import straight_through


class MultiScaleVQ(Codebook, kw_only=True):
  """Residual quantisation over grids of growing size, one codebook for all.

  What the smaller scales left over is averaged down to the grid of a scale,
  every place becomes its nearest code, and the codes are resampled up, passed
  through a blending convolution phi and added to the sum.

  Source: FoundationVision/VAR, quant.py (arXiv 2404.02905, algorithms 1, 2).
  `normalize` is its `using_znorm`: only the lookup compares directions.

  Attributes:
    scales: sides or (height, width) of all grids, small to large; the last is
      the grid of the latent.
    phi_ratio: phi(x) = (1 - ratio) x + ratio conv(x); 0 for no convolutions.
    phi_share: number of phi convolutions that the scales share; 0 gives every
      scale its own.
  """

  scales: tuple[Side | tuple[Side, Side], ...]
  quant_kernel: FewOr0 = 3
  phi_ratio: Share = 0.5
  phi_share: FewOr0 = 4

  @property
  def spec(self) -> TokenSpec:
    grids = tuple(
      (s, s) if isinstance(s, int) else (int(s[0]), int(s[1]))
      for s in self.scales
    )
    return TokenSpec(self.vocab_size, 1, self.channels, grids)

  def setup(self):
    super().setup()
    count = self.phi_share or len(self.scales)
    self.phi = [
      conv(self.channels, name=f'phi_{i}')
      for i in range(count if self.phi_ratio else 0)
    ]

  def __call__(
    self, image: jax.Array, draw: Draw | None = None, train: bool = False
  ) -> Reconstruction:
    f = self.encode_latents(image, train)
    codes, sums, features = self.quantize(f)
    sg = jax.lax.stop_gradient
    # All partial sums are pulled towards f, so that each scale is worth most.
    squares = jnp.stack([jnp.mean((x - sg(f)) ** 2) for x in sums])
    pulls = jnp.stack([jnp.mean((sg(x) - f) ** 2) for x in sums])
    return Reconstruction(
      image=self.decode_latents(straight_through(f, sums[-1]), train),
      losses={
        'codebook': jnp.mean(squares),
        'commitment': self.commitment * jnp.mean(pulls),
      },
      codes=jnp.concatenate(codes, axis=1),
      features=jnp.concatenate(features, axis=1),
    )

  def quantize(self, f: jax.Array) -> tuple[list, list, list]:
    """The pyramid of a latent (b, h, w, c).

    Returns:
      per scale: codes (b, e) int32; the sum up to and with this scale
      (b, h, w, c); and the vectors (b, e, c) that were quantised.
    """
    total, codes, sums, features = self.canvas(f.shape[0]), [], [], []
    for s, grid in enumerate(self.spec.grids):
      rest = jax.lax.stop_gradient(f - total)
      z = resize(rest, grid, 'area').reshape(f.shape[0], -1, self.channels)
      codes.append(self.nearest(z))
      total = self.merge(total, codes[-1], s)
      sums.append(total)
      features.append(z)
    return codes, sums, features

  def encode(self, image: jax.Array) -> Tokens:
    codes, _, _ = self.quantize(self.encode_latents(image))
    return Tokens(jnp.concatenate(codes, axis=1))

  def decode(self, tokens: Tokens) -> jax.Array:
    return jnp.clip(self.decode_latents(self.total(tokens)), -1, 1)

  def total(self, tokens: Tokens) -> jax.Array:
    """The sum of all scales that the tokens hold: (b, h, w, c).

    Tokens may end after any scale; the sum is then the image as far as known.

    Raises:
      ValueError: the tokens end inside a scale.
    """
    values = jnp.asarray(tokens.values)
    canvas, start = self.canvas(values.shape[0]), 0
    for s, (height, width) in enumerate(self.spec.grids):
      if start == values.shape[1]:
        break
      stop = start + height * width
      if stop > values.shape[1]:
        raise ValueError(
          f'{values.shape[1]} tokens end inside scale {s} '
          f'({height} x {width}) of {self.spec.grids}'
        )
      canvas = self.merge(canvas, values[:, start:stop], s)
      start = stop
    return canvas

  def canvas(self, batch: int) -> jax.Array:
    return jnp.zeros((batch, *self.spec.grids[-1], self.channels), jnp.float32)

  def merge(self, canvas: jax.Array, values: jax.Array, s: int) -> jax.Array:
    h = self.embed(values).reshape(-1, *self.spec.grids[s], self.channels)
    h = resize(h, self.spec.grids[-1], 'bicubic')
    if not self.phi_ratio:
      return canvas + h
    phi = self.phi[phi_index(s, len(self.scales), len(self.phi))]
    return canvas + (1 - self.phi_ratio) * h + self.phi_ratio * phi(h)

  def view(self, canvas: jax.Array, s: int) -> jax.Array:
    small = resize(canvas, self.spec.grids[s], 'area')
    return small.reshape(canvas.shape[0], -1, self.channels)


def phi_index(s: int, scales: int, convs: int) -> int:
  """Which of the phi convolutions scale s uses.

  Each convolution sits at a tick in (0, 1), each scale at s / (scales - 1);
  the nearest tick is taken, the first of equals.

  Source: FoundationVision/VAR, quant.py; its ticks start at 1 / 3 / K for
  K = 4 and at 1 / 2 / K otherwise.
  """
  edge = 1 / 3 / convs if convs == 4 else 1 / 2 / convs
  ticks = np.linspace(edge, 1 - edge, convs)
  return int(np.argmin(np.abs(ticks - s / max(scales - 1, 1))))
