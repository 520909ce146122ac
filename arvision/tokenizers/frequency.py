"""A residual pyramid whose scales are frequency bands (NFIG)."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from arvision.ranges import AtLeast0
from arvision.tokenizers.residual import ResidualPyramid


class FrequencyPyramid(ResidualPyramid, kw_only=True):
  """Residual quantisation of frequency bands, from low to high (FR-VAE).

  The sum of the first scales approximates the latent below the cut-off of the
  last of them, so a scale adds the band between its cut-off and the one before,
  and corrects the errors of the smaller scales. The last scale has all
  frequencies. Masks of the 2D Fourier transform are radial; the latent is taken
  as periodic.

  Where every scale has all frequencies this is `ResidualPyramid`.

  Source: arXiv 2503.07076 (NFIG). Differs: the published cut-offs are not known
    here, the default is a rule of ours.

  Attributes:
    cutoffs: largest radial frequency of every scale but the last, as a share of
      the Nyquist frequency of the latent, half a cycle per place; in ascending
      order. (): the Nyquist frequency of each scale, of the coarser of its axes.
  """

  cutoffs: tuple[AtLeast0, ...] = ()

  adjustable: ClassVar[tuple[str, ...]] = ('cutoffs',)

  def setup(self):
    super().setup()
    given, wanted = self.cutoffs, len(self.scales) - 1
    if given and (len(given) != wanted or sorted(given) != list(given)):
      raise ValueError(
        f'config.tokenizer.cutoffs={given}: wanted {wanted} numbers in ascending '
        f'order, one for each of the scales {self.scales} but the last; or () for '
        'the Nyquist frequency of every scale'
      )

  @property
  def masks(self) -> list[np.ndarray]:
    """Per scale, (h, w // 2 + 1) bool: the frequencies up to its cut-off."""
    height, width = self.latent_grid
    cutoffs = self.cutoffs or [
      min(h / height, w / width) for h, w in self.grids[:-1]
    ]
    # Twice the cycles per place: 1 at the Nyquist frequency of an axis.
    radius = 2 * np.hypot(
      np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    )
    # Cut-offs may be rounded to some digits.
    return [radius <= x + 1e-6 for x in (*cutoffs, np.inf)]

  def targets(self, latent: jax.Array) -> list[jax.Array]:
    spectrum = jnp.fft.rfft2(latent, axes=(1, 2))

    def below(mask):
      if mask.all():
        return latent  # without the rounding of a transform
      kept = jnp.where(mask[..., None], spectrum, 0)
      return jnp.fft.irfft2(kept, s=self.latent_grid, axes=(1, 2))

    return [below(mask) for mask in self.masks]
