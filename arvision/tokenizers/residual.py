"""A pyramid whose every scale corrects the sum of the smaller ones (VAR)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from arvision.layers.conv import conv
from arvision.layers.resize import resize
from arvision.layouts.scales import Grids, as_grids
from arvision.quantizers.base import mean_losses, merged, straight_through
from arvision.random import Draw
from arvision.ranges import FewOr0, Share, Side
from arvision.structs import Reconstruction, Tokens
from arvision.tokenizers.autoencoder import Autoencoder, flat


class ResidualPyramid(Autoencoder, kw_only=True):
  """Residual quantisation over grids of growing size, one quantiser for all.

  The difference of the latent and the sum of the smaller scales is averaged down
  to the grid of a scale and quantised; its vectors are resampled up, passed
  through a blending convolution phi and added to the sum.

  Source: FoundationVision/VAR, quant.py (arXiv 2404.02905, algorithms 1, 2).

  Attributes:
    scales: sides or (height, width) of all grids, small to large; the last is
      the grid of the latent.
    phi_ratio: phi(x) = (1 - ratio) x + ratio conv(x); 0 for no convolutions.
    phi_share: number of phi convolutions that the scales share; 0 gives every
      scale its own.
  """

  scales: Grids
  quant_kernel: FewOr0 = 3
  phi_ratio: Share = 0.5
  phi_share: FewOr0 = 4
  grid: tuple[Side, Side] = (0, 0)  # of `Autoencoder`; the last scale says it

  @property
  def grids(self) -> tuple[tuple[int, int], ...]:
    return as_grids(self.scales)

  def setup(self):
    super().setup()
    count = self.phi_share or len(self.scales)
    self.phi = [
      conv(self.static.channels, name=f'phi_{i}')
      for i in range(count if self.phi_ratio else 0)
    ]

  def quantized(
    self, image: jax.Array, draw: Draw | None = None, train: bool = False
  ) -> tuple[jax.Array, Reconstruction]:
    moments = self.encode_moments(image, train)
    latent = self.quant.latent(moments, draw)
    values, sums, features = self.quantize(latent)
    # All partial sums are pulled towards their targets, so that each scale is
    # worth most.
    losses = [
      {**self.quant.pull(target, x), **self.quant.spread(z, draw)}
      for target, x, z in zip(self.targets(latent), sums, features)
    ]
    out = Reconstruction(
      image=image,
      losses={**self.quant.regularization(moments), **mean_losses(losses)},
      codes=jnp.concatenate(values, 1) if self.spec.codes else None,
      features=jnp.concatenate(features, axis=1),
      metrics=merged([self.quant.metrics(z) for z in features]),
    )
    return straight_through(latent, sums[-1]), out

  def quantize(
    self,
    latent: jax.Array,
    change: Callable[[jax.Array, int], jax.Array] = lambda values, s: values,
  ) -> tuple[list, list, list]:
    """The pyramid of a latent (b, h, w, c).

    Args:
      latent: what all scales sum up to.
      change: values of a scale, its number -> the values that enter the sum.

    Returns:
      per scale: values (b, e, ...); the sum up to and with this scale
      (b, h, w, c); and the vectors (b, e, c) that were quantised.
    """
    total, values, sums, features = self.canvas(len(latent)), [], [], []
    for s, target in enumerate(self.targets(latent)):
      rest = jax.lax.stop_gradient(target - total)
      z = resize(rest, self.places[s], 'area')
      values.append(self._joined(self.quant.quantize(z)))
      total = self.merge(total, change(values[-1], s), s)
      sums.append(total)
      features.append(flat([z]))
    return values, sums, features

  def targets(self, latent: jax.Array) -> list[jax.Array]:
    """What the sum up to and with each scale approximates: (b, h, w, c)."""
    return [latent] * len(self.scales)

  @property
  def places(self) -> tuple[tuple[int, int], ...]:
    """(height, width) of every scale in places of the latent."""
    return self.grids

  def _joined(self, values):
    """Values of places (b, h, w, ...) -> of tokens (b, e, ...)."""
    return flat([values])

  def _tokens(self, latent):
    return Tokens(jnp.concatenate(self.quantize(latent)[0], axis=1))

  def _latent(self, tokens):
    """The sum of all scales that the tokens hold: (b, h, w, c).

    Tokens may end after any scale; the sum is then the image as far as known.

    Raises:
      ValueError: the tokens end inside a scale.
    """
    values = jnp.asarray(tokens.values)
    canvas, start = self.canvas(values.shape[0]), 0
    for s, (height, width) in enumerate(self.grids):
      if start == values.shape[1]:
        break
      stop = start + height * width
      if stop > values.shape[1]:
        raise ValueError(
          f'{values.shape[1]} tokens end inside scale {s} '
          f'({height} x {width}) of {self.grids}'
        )
      canvas = self.merge(canvas, values[:, start:stop], s)
      start = stop
    return canvas

  def canvas(self, batch: int) -> jax.Array:
    return jnp.zeros((batch, *self.latent_grid, self.static.channels))

  def merge(self, canvas: jax.Array, values: jax.Array, s: int) -> jax.Array:
    h = self.embed(values)
    h = h.reshape(-1, *self.grids[s], h.shape[-1])
    h = resize(h, self.latent_grid, 'bicubic')
    if not self.phi_ratio:
      return canvas + h
    if self.is_initializing():  # released weights have unused ones too
      for phi in self.phi:
        phi(h)
    phi = self.phi[phi_index(s, len(self.scales), len(self.phi))]
    return canvas + (1 - self.phi_ratio) * h + self.phi_ratio * phi(h)

  def view(self, canvas: jax.Array, s: int) -> jax.Array:
    small = resize(canvas, self.grids[s], 'area')
    return small.reshape(canvas.shape[0], -1, canvas.shape[-1])


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
