"""Evaluates a tokenizer on what tokenizers lose: scale, detail and text.

After VTBench (arXiv 2505.13439), on the images of the run.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

import jax
import numpy as np

from arvision.data.transforms import to_float, to_uint8
from arvision.errors import ConfigError, DataError
from arvision.evals.base import Run, pad
from arvision.evals.image import psnr, squared_error, ssim, window_size
from arvision.evals.protocol import Protocol, size_name
from arvision.evals.text import Ocr, cer, picture, wer
from arvision.parallel import host
from arvision.ranges import Count, Side

TEXTS = (
  'The quick brown fox',
  'jumps over 13 lazy dogs',
  'while 2 zebras vex him.',
)


@dataclasses.dataclass(frozen=True)
class TokenizerSuite:
  """Reconstruction at several sizes, of details and of text.

  A tokenizer takes images of one size. A multiple of it is measured on enlarged
  images that are cut into tiles, a fraction on shrunk images, several of which
  fill one; the tiles are put together again before they are compared.

  Attributes:
    sizes: k for k times the size of the data, -k for a k-th of it.
    patch: side of detail patches in pixels; None: a quarter of the image.
    texts: texts of pictures of the size of the data; () for no text.
    font: path of their font; None: the one that comes with Pillow.
    font_size: in pixels.
    ocr: recognises text, for example {'type': 'evals.text.Tesseract'}; None:
      error rates of text are not available.
    images: largest number of held-out images.
    batch_size: images per call.
    every: see `Evaluator`.
  """

  sizes: tuple[int, ...] = (2, -2)
  patch: Side | None = None
  texts: tuple[str, ...] = TEXTS
  font: str | None = None
  font_size: Side = 16
  ocr: Ocr | None = None
  images: Count = 200
  batch_size: Count = 100
  every: Mapping[str, float] | None = None
  needs: ClassVar[tuple[str, ...]] = ()

  def __call__(self, run: Run) -> Iterator[tuple[str, float]]:
    """Encodes and decodes everything once.

    Yields:
      `tiles_psnr_db`, `tiles_ssim`: mean over images, for every size.
      `detail_psnr_db`, `detail_ssim`: of the patch of every image whose pixels
        have the largest variance.
      `cer`, `wer`: mean error rates of the text that is recognised in
        reconstructions.
      `cer_of_originals`, `wer_of_originals`: the same before: what the OCR
        itself cannot read.

    Raises:
      ConfigError: a size, a patch or an OCR that this tokenizer's images do not
        allow.
      DataError: the data has no held-out split, or a text does not fit.
    """
    data = run.data
    patch = self._check(data.shape)
    pictures = self._pictures(data.shape)
    if not data.held_out_examples:
      raise DataError(
        'the suite is measured on held-out images, and there are none: set '
        'config.data.held_out_share'
      )
    images = self._held_out(run)
    count, size = len(images), size_name(data.shape)
    run.say(f'tokenizer suite on {count} held-out images')
    place = f'held-out-{run.name}'
    again = self._reconstruct(run, images)
    name = f'{place}-{patch}px-of-{size}-{count}'
    _note(run, name, 'details', count)
    yield from _named(name, 'detail_', [details(images, again, patch)])
    for factor in self.sizes:
      name = f'{place}-{size_name(_shape_at(data.shape, factor))}-tiles-{count}'
      _note(run, name, f'tiles, {factor}', count)
      yield from _named(name, 'tiles_', self._tiled(run, images, factor))
    if self.ocr is None:
      if self.texts:
        run.say('no config.evals.*.ocr: error rates of text are not available')
      return
    if len(pictures):
      yield from self._text(run, pictures)

  def _check(self, shape):
    """Refuses what the images do not allow; the side of a patch."""
    side = min(shape[:2])
    for factor in self.sizes:
      small = factor < 0
      whole = not small or all(s % -factor == 0 for s in shape[:2])
      if factor in (-1, 0) or not whole or (small and side // -factor < 3):
        raise ConfigError(
          f'config.evals.*.sizes={self.sizes}: {factor} for a tokenizer of '
          f'{size_name(shape)}; wanted k for k times that size, or -k for a k-th '
          'of it, in whole pixels and at least 3'
        )
    patch = self.patch or max(3, side // 4)
    if not 3 <= patch <= side:
      raise ConfigError(
        f'config.evals.*.patch={patch}: wanted 3 to {side} for images of '
        f'{size_name(shape)}'
      )
    return patch

  def _pictures(self, shape):
    """(n, H, W, C) float32 in [-1, 1], of all texts."""
    if self.ocr is None or not self.texts:
      return np.zeros((0, *shape), np.float32)
    drawn = [picture(t, shape, self.font, self.font_size) for t in self.texts]
    return to_float(np.stack(drawn))

  def _held_out(self, run):
    found: list[np.ndarray] = []
    for batch in host.own_pass(run.data.held_out, self.batch_size):
      image, weight = host.gather((batch['image'], batch['weight']))
      found += [*image[weight > 0]]
      if len(found) >= self.images:
        break
    return np.stack(found[: self.images])

  def _reconstruct(self, run, images):
    """The same images after the tokenizer, in calls of one shape."""
    size, parts = min(self.batch_size, len(images)), []
    for start in range(0, len(images), size):
      part = images[start : start + size]
      decoded = np.asarray(run.decode(run.encode(pad(part, size))))
      parts.append(np.clip(decoded[: len(part)], -1, 1))
    return np.concatenate(parts)

  def _tiled(self, run, images, factor):
    """Pairs of images at another size and what is made of their tiles."""
    # Whole tiles of several images, and not too much memory.
    step = self.batch_size * (factor**2 if factor < 0 else 1)
    for start in range(0, len(images), step):
      part = images[start : start + step]
      tiles = magnified(part, factor)
      again = self._reconstruct(run, tiles)
      yield tuple(joined(x, factor)[: len(part)] for x in (tiles, again))

  def _text(self, run, pictures):
    assert self.ocr is not None
    shape = size_name(run.data.shape)
    name = f'text-{shape}-{self.font_size}px-{self.ocr.name}-{len(pictures)}'
    _note(run, name, f'{self.ocr}, {self.texts}', len(pictures))
    for images, kind in (
      (pictures, '_of_originals'),
      (self._reconstruct(run, pictures), ''),
    ):
      found = [self.ocr(to_uint8(image)) for image in images]
      for figure, rate in (('cer', cer), ('wer', wer)):
        rates = [rate(*pair) for pair in zip(self.texts, found)]
        yield f'{figure}{kind}/{name}', float(np.mean(rates))


def _note(run, name, method, count):
  """States the protocol of the figures with this name."""
  protocol = Protocol(
    extractor='pixels',
    reference=name,
    reference_digest=run.data.digest,
    split='held-out',
    images=count,
    reference_images=count,
    order='',
    rounding='none',
    method=method,
  )
  run.note(name, protocol.facts())


def _named(
  name: str, prefix: str, pairs: Iterable[tuple[np.ndarray, np.ndarray]]
) -> Iterator[tuple[str, float]]:
  """Mean PSNR and SSIM of pairs of (n, H, W, C) images."""
  errors, similarities = [], []
  for a, b in pairs:
    window = window_size(a.shape[1:])
    error, similarity = _measure(a, b, window)
    errors.append(psnr(error))
    similarities.append(similarity)
  yield f'{prefix}psnr_db/{name}', _mean(errors)
  yield f'{prefix}ssim/{name}', _mean(similarities)


@functools.partial(jax.jit, static_argnums=2)
def _measure(a, b, window):
  return squared_error(a, b), ssim(a, b, window)


def _mean(parts):
  return float(np.mean(np.concatenate(parts), dtype=np.float64))


def details(
  images: np.ndarray, others: np.ndarray, patch: int
) -> tuple[np.ndarray, np.ndarray]:
  """The patch of every image with the largest variance, and the same of others.

  Args:
    images: (n, H, W, C); the first of equal patches is taken.
    others: the same shape.
    patch: side in pixels.

  Returns:
    two arrays (n, patch, patch, C).
  """
  windows = lambda x: np.lib.stride_tricks.sliding_window_view(
    x, (patch, patch), axis=(1, 2)
  )
  found = []
  for image, other in zip(images, others):
    variance = windows(image[None].astype(np.float64))[0].var((-1, -2)).sum(-1)
    i, j = np.unravel_index(variance.argmax(), variance.shape)
    at = slice(i, i + patch), slice(j, j + patch)
    found.append((image[at], other[at]))
  first, second = zip(*found)
  return np.stack(first), np.stack(second)


def magnified(images: np.ndarray, factor: int) -> np.ndarray:
  """Tiles of images that are enlarged, or several shrunk images in one.

  Args:
    images: (n, H, W, C).
    factor: see `TokenizerSuite.sizes`.

  Returns:
    (n·k², H, W, C) tiles in raster order, or (n // k², H, W, C), with the last
    image repeated in place of those that are missing.
  """
  n, height, width, channels = images.shape
  k = abs(factor)
  if factor > 0:
    size = n, k * height, k * width, channels
    large = np.asarray(jax.image.resize(images, size, 'linear'))
    return _to_tiles(large, k)
  images = pad(images, -(-n // k**2) * k**2)
  shape = len(images), height // k, k, width // k, k, channels
  return _to_whole(images.reshape(shape).mean((2, 4)), k)


def joined(images: np.ndarray, factor: int) -> np.ndarray:
  """Images of the size that `magnified` means, from its result."""
  k = abs(factor)
  return _to_whole(images, k) if factor > 0 else _to_tiles(images, k)


def _to_tiles(images, k):
  n, height, width, channels = images.shape
  cut = images.reshape(n, k, height // k, k, width // k, channels)
  return cut.swapaxes(2, 3).reshape(-1, height // k, width // k, channels)


def _to_whole(tiles, k):
  n, height, width, channels = tiles.shape
  grid = tiles.reshape(n // k**2, k, k, height, width, channels)
  return grid.swapaxes(2, 3).reshape(-1, k * height, k * width, channels)


def _shape_at(shape, factor):
  height, width, channels = shape
  if factor > 0:
    return height * factor, width * factor, channels
  return height // -factor, width // -factor, channels
