"""Evaluates a tokenizer: quality of reconstructions, and usage of codes."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

import jax
import numpy as np

from arvision.data.transforms import to_uint8
from arvision.errors import DataError
from arvision.evals.base import Run
from arvision.evals.features import Extractor
from arvision.evals.frechet import Moments, frechet_distance
from arvision.evals.image import (
  ms_ssim,
  psnr,
  scales,
  squared_error,
  ssim,
  window_size,
)
from arvision.evals.lpips import Lpips
from arvision.evals.protocol import Protocol, size_name
from arvision.evals.usage import Usage
from arvision.parallel import host
from arvision.ranges import Count


@dataclasses.dataclass(frozen=True)
class Reconstruction:
  """PSNR, SSIM, LPIPS, rFID and usage of codes over the held-out split.

  Attributes:
    batch_size: images per call.
    lpips: with the files of its weights; None: LPIPS is not available.
    extractor: network of rFID; None: rFID is not available.
    every: see `Evaluator`.
  """

  batch_size: Count = 100
  lpips: Lpips | None = None
  extractor: Extractor | None = None
  every: Mapping[str, float] | None = None
  needs: ClassVar[tuple[str, ...]] = ()

  def __call__(self, run: Run) -> Iterator[tuple[str, float]]:
    """Encodes and decodes every held-out image once.

    Yields:
      `psnr_db`: mean PSNR of the images, in dB.
      `psnr_of_mean_db`: PSNR of the mean squared error of all images, in dB; at
        most `psnr_db`.
      `ssim`: mean over images; the name states the window.
      `ms_ssim`: the same at several scales; the name states how many. Images
        under 22 px have one scale only, and none of this.
      `lpips`: mean over images; the name states the network and its weights.
      `rfid`: Fréchet distance between the reconstructions and the held-out
        images themselves, with the same crop.
      Figures of `usage.Usage` of every scale, and of `all` scales, for tokens
        that are not continuous.

    Raises:
      DataError: the data has no held-out split.
    """
    data = run.data
    if not data.held_out_examples:
      raise DataError(
        'reconstruction is measured on held-out images, and there are none: '
        'set config.data.held_out_share'
      )
    if self.lpips is not None:
      self.lpips.check(data.shape, 'config.evals.*.lpips')
    extractor = self._available(run)
    run.say(f'reconstruction of {data.held_out_examples} held-out images')
    measures = self._measures(data.shape)
    usage = None
    if run.radices:
      usage = Usage(run.spec.grids, run.radices, run.digits)
    found: dict[str, list[np.ndarray]] = {}
    moments: list[Moments] = []
    for batch in host.own_pass(data.held_out, self.batch_size):
      values = run.encode(batch['image'])
      pair = batch['image'], run.decode(values)
      own = {name: measure(*pair) for name, measure in measures.items()}
      pools = [_pool(extractor, x) for x in pair] if extractor else []
      own, pools, values, weight = host.gather(
        (own, pools, values, batch['weight'])
      )
      real = weight > 0
      for name, value in own.items():
        found.setdefault(name, []).append(value[real].astype(np.float64))
      pools = [x[real] for x in pools]
      moments = (
        [m.add(x) for m, x in zip(moments, pools)]
        if moments
        else [Moments.of(x) for x in pools]
      )
      if usage:
        usage.add(values[real])
    all_of = {name: np.concatenate(parts) for name, parts in found.items()}
    error = all_of.pop('error')
    if not error.size:
      raise DataError(
        f'none of {data.held_out_examples} held-out images can be used: all are '
        'broken or lack caption features (config.data.text)'
      )
    facts = Protocol(
      extractor='pixels',
      reference=f'held-out-{run.name}-{size_name(data.shape)}',
      reference_digest=data.digest,
      split='held-out',
      images=len(error),
      reference_images=len(error),
      order='',
      rounding='none',
    )
    place = facts.reference
    run.note(place, facts.facts())
    yield f'psnr_db/{place}', float(np.mean(psnr(error)))
    yield f'psnr_of_mean_db/{place}', float(psnr(np.mean(error)))
    for name, value in all_of.items():
      figure, _, method = name.partition('/')
      weights = self.lpips.weights if self.lpips and figure == 'lpips' else ''
      stated = dataclasses.replace(facts, method=method, weights=weights)
      run.note(f'{place}-{method}', stated.facts())
      yield f'{figure}/{place}-{method}', float(np.mean(value))
    if extractor and moments:
      stated = dataclasses.replace(
        facts,
        extractor=extractor.name,
        weights=extractor.weights,
        resize=extractor.resize,
        rounding='round',
      )
      run.note(stated.name, stated.facts())
      yield f'rfid/{stated.name}', frechet_distance(*moments)
    for figure, scale, value in usage.figures() if usage else ():
      yield f'{figure}/{place}/{scale}', value

  def _measures(self, shape):
    """'error' and '<figure>/<method>' -> function of two batches of images."""
    window, count = window_size(shape), scales(shape)
    measures: dict[str, Callable] = {
      'error': jax.jit(squared_error),
      f'ssim/gauss{window}': jax.jit(lambda a, b: ssim(a, b, window=window)),
    }
    if count > 1:
      measures[f'ms_ssim/scales{count}'] = jax.jit(
        lambda a, b: ms_ssim(a, b, count)
      )
    if self.lpips is not None:
      name = f'lpips/{self.lpips.name}-{self.lpips.weights[:8]}'
      measures[name] = self.lpips
    return measures

  def _available(self, run):
    """The extractor, None without a file of its weights."""
    missing = getattr(self.extractor, 'missing', '')
    if missing:
      run.say(f'rFID is not available: {missing}')
      return None
    return self.extractor


def _pool(extractor, images):
  """(b, d) float32 features of images (b, H, W, 1 or 3) in [-1, 1]."""
  small = to_uint8(images)
  if small.shape[3] == 1:
    small = np.repeat(small, 3, axis=3)
  return np.asarray(extractor(small).pool, np.float32)
