"""Pyramids of frequency bands (NFIG)."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

from arvision.quantizers.bsq import BSQ
from arvision.quantizers.lookup import Lookup
from arvision.tokenizers.frequency import FrequencyPyramid
from arvision.tokenizers.residual import ResidualPyramid

SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)  # as published
RECTANGLES = ((1, 1), (2, 2), (4, 3), (7, 5))
CODES = functools.partial(Lookup, vocab_size=16, channels=4, std=1.0)


class Same(nn.Module):
  """An encoder or a decoder that returns what it is given."""

  z_channels: int = 4

  def __call__(self, x, train=False):
    return x


def pyramid(kind=FrequencyPyramid, quantizer=CODES, **fields):
  fields = {'scales': RECTANGLES, 'quant_kernel': 0, 'phi_ratio': 0.0} | fields
  return kind(encoder=Same, decoder=Same, quantizer=quantizer, **fields)


def latents(height=7, width=5):
  rng = np.random.default_rng(0)
  return rng.normal(size=(2, height, width, 4)).astype(np.float32)


# Those of all pyramids here: they do not depend on the cut-offs.
VARIABLES = {
  'params': {'quant': {'codebook': np.random.RandomState(0).randn(16, 4)}}
}


def below(latent, cutoff):
  """The latent without the waves above a cut-off, wave by wave in float64."""
  _, height, width, _ = latent.shape
  spectrum = np.fft.fft2(latent.astype(np.float64), axes=(1, 2))
  for y in range(height):
    for x in range(width):
      # Cycles per image are those of either sign with fewer of them.
      cycles = min(y, height - y) / height, min(x, width - x) / width
      if np.hypot(*cycles) > cutoff / 2:
        spectrum[:, y, x] = 0
  return np.fft.ifft2(spectrum, axes=(1, 2)).real


@pytest.mark.parametrize(
  ('scales', 'nyquist'),
  [
    (SCALES, [side / 16 for side in SCALES[:-1]]),
    (RECTANGLES, [1 / 7, 2 / 7, 4 / 7]),
  ],
)
def test_a_scale_aims_at_all_below_its_nyquist_frequency(scales, nyquist):
  latent = latents(*pyramid(scales=scales).latent_grid)
  targets = pyramid(scales=scales).targets(latent)
  for target, cutoff in zip(targets[:-1], nyquist, strict=True):
    np.testing.assert_allclose(target, below(latent, cutoff), atol=1e-5)


@pytest.mark.parametrize('scales', [SCALES, RECTANGLES])
def test_bands_are_orthogonal_and_the_last_completes_the_latent(scales):
  module = pyramid(scales=scales)
  latent = latents(*module.latent_grid)
  targets = np.stack(module.targets(latent))
  np.testing.assert_array_equal(targets[-1], latent)
  bands = np.diff(targets, axis=0, prepend=0).reshape(len(scales), -1)
  products = bands @ bands.T
  energy = np.diag(products)
  np.testing.assert_allclose(products, np.diag(energy), atol=1e-3)
  np.testing.assert_allclose(energy.sum(), (latent**2).sum(), rtol=1e-5)
  assert energy.min() > 0  # no scale of these is left without a band


def test_tokens_do_not_change_with_detail_above_their_cutoff():
  module, latent = pyramid(cutoffs=(0.0, 0.3, 0.7)), latents()
  other = latents()[::-1]
  details = [other - below(other, cutoff) for cutoff in module.cutoffs]
  changed = [np.float32(latent + 3 * detail) for detail in details]
  values, _, _ = jax.jit(
    lambda x: module.apply(VARIABLES, x, method='quantize')
  )(np.concatenate([latent, *changed]))
  for s in range(len(module.cutoffs)):
    same = [
      (np.asarray(x[:2]) == x[2 * s + 2 : 2 * s + 4]).all() for x in values
    ]
    assert same[: s + 1] == [True] * (s + 1) and not same[-1]


@pytest.mark.parametrize(
  'quantizer', [CODES, functools.partial(BSQ, channels=4)]
)
def test_with_all_frequencies_it_is_the_residual_pyramid(quantizer):
  plain = pyramid(ResidualPyramid, quantizer)
  module = pyramid(quantizer=quantizer, cutoffs=(2.0, 2.0, 2.0))
  both = jax.jit(lambda x: [m.apply(VARIABLES, x) for m in (module, plain)])
  jax.tree.map(np.testing.assert_array_equal, *both(latents()))


def test_sums_are_pulled_to_what_their_scales_aim_at():
  module, latent = pyramid(), latents()

  @jax.jit
  @functools.partial(jax.grad, has_aux=True)
  def seen(x):
    out = module.apply(VARIABLES, x)
    _, sums, _ = module.apply(VARIABLES, x, method='quantize')
    return out.losses['commitment'], (out, sums, module.targets(x))

  gradient, (out, sums, targets) = seen(latent)
  assert np.isfinite(gradient).all() and np.asarray(gradient).any()
  far = [np.mean((a - b) ** 2) for a, b in zip(sums, targets)]
  np.testing.assert_allclose(out.losses['codebook'], np.mean(far), rtol=1e-5)
  np.testing.assert_allclose(out.image, sums[-1], atol=1e-5)


@pytest.mark.parametrize('cutoffs', [(0.5,), (0.5, 0.2, 1.0), (0, 0, 0, 0)])
def test_other_cutoffs_than_one_of_every_scale_are_refused(cutoffs):
  with pytest.raises(ValueError, match=r'cutoffs=\(.*wanted 3 numbers'):
    jax.eval_shape(pyramid(cutoffs=cutoffs).init, jax.random.key(0), latents())
