"""Encoded pictures to arrays, and back."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from arvision.data.base import BrokenImage

# What Pillow's plugins raise for damaged files, beyond OSError.
_DAMAGE = (
  OSError,
  SyntaxError,
  ValueError,
  TypeError,
  IndexError,
  EOFError,
  MemoryError,
  struct.error,
  zlib.error,
  Image.DecompressionBombError,
)


def decode(
  file: Any, name: str, background: tuple[int, int, int] = (255, 255, 255)
) -> np.ndarray:
  """One picture of any kind that Pillow reads.

  Grey pictures stay grey; palettes, CMYK and the like become RGB; transparency
  is laid over `background`; 16-bit grey keeps its upper byte; the EXIF
  orientation is applied.

  Args:
    file: path, open file, or the encoded bytes.
    name: what to call it in the error.
    background: RGB, 0 to 255.

  Returns:
    (H, W, 1) or (H, W, 3) uint8, read-only.

  Raises:
    BrokenImage: it cannot be read to its end.
  """
  if isinstance(file, bytes):
    file = io.BytesIO(file)
  try:
    with Image.open(file) as opened:
      opened.load()
      # Before any change of mode, which would drop the EXIF block.
      ImageOps.exif_transpose(opened, in_place=True)
      return _array(opened, background)
  except UnidentifiedImageError as error:
    raise BrokenImage(f'{name}: not a picture of a kind known here') from error
  except _DAMAGE as error:
    raise BrokenImage(
      f'{name}: cannot be decoded ({type(error).__name__}: {error})'
    ) from error


def _array(image, background):
  if image.mode.startswith('I') or image.mode == 'F':
    array = np.asarray(image)
    if array.min() < 0 or array.max() > 65535 or image.mode == 'F':
      raise ValueError(f'mode {image.mode} is not an 8-bit or 16-bit picture')
    return (array.astype(np.uint32) >> 8).astype(np.uint8)[..., None]
  if image.mode in ('1', 'L') and 'transparency' not in image.info:
    return np.asarray(image.convert('L'))[..., None]
  if image.has_transparency_data:
    image = image.convert('RGBA')
    paper = Image.new('RGBA', image.size, (*background, 255))
    image = Image.alpha_composite(paper, image)
  # Pillow's `convert` copies what is RGB already, and so would `np.array`.
  return np.asarray(image if image.mode == 'RGB' else image.convert('RGB'))


def encode(image: np.ndarray, format: str = 'png', quality: int = 95) -> bytes:
  """(H, W, 1 or 3) uint8 -> PNG (exact) or JPEG bytes."""
  if image.shape[-1] == 1:
    image = image[..., 0]
  buffer = io.BytesIO()
  if format == 'png':
    Image.fromarray(image).save(buffer, 'PNG')
  else:
    Image.fromarray(image).save(buffer, 'JPEG', quality=quality)
  return buffer.getvalue()
