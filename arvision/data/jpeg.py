"""Decodes JPEGs with simplejpeg where it is installed: faster than Pillow.

Both wrap libjpeg-turbo and give the same pixels. This is checked at the first
use, so data do not depend on what is installed.
"""

import functools
import io
from typing import Any

import numpy as np
from absl import logging
from PIL import Image

# Colour space of a file -> that of its array, in the words of simplejpeg.
_SPACES = {'YCbCr': 'RGB', 'Gray': 'GRAY'}


@functools.cache
def package() -> Any:
  """The package simplejpeg; None where it is missing or decodes otherwise."""
  try:
    import simplejpeg
  except ImportError:
    return None
  for mode in ('RGB', 'L'):
    image = _probe(mode)
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', quality=75, subsampling=2, progressive=True)
    with Image.open(buffer) as same:
      wanted = np.asarray(same)
    found = _decode(simplejpeg, buffer.getvalue(), same.size)
    if found is None or not np.array_equal(found.squeeze(), wanted):
      logging.warning(
        'simplejpeg decodes other pixels than Pillow, and is not used'
      )
      return None
  return simplejpeg


def _probe(mode):
  """Coarse noise with odd sides, where decoders would differ."""
  noise = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
  return Image.fromarray(noise).resize((77, 61), 3).convert(mode)


def decode(data: bytes, image: Image.Image) -> np.ndarray | None:
  """Decodes a JPEG.

  Args:
    data: the file.
    image: the same, opened by Pillow and not yet decoded.

  Returns:
    (H, W, 1) or (H, W, 3) uint8, read-only; None if Pillow has to decode it:
    other kinds of files, and damaged ones.
  """
  if image.mode not in ('RGB', 'L'):
    return None
  found = package()
  return None if found is None else _decode(found, data, image.size)


def _decode(simplejpeg, data, size):
  try:
    height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    if space not in _SPACES or (width, height) != size:
      return None
    array = simplejpeg.decode_jpeg(data, colorspace=_SPACES[space])
  except (ValueError, RuntimeError, MemoryError):
    return None
  array.flags.writeable = False
  return array
