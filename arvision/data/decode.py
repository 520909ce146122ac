"""Decodes and encodes pictures."""

import contextlib
import io
import math
import os
import re
import warnings
from collections.abc import Iterator
from typing import Annotated

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from arvision.build import check
from arvision.data import files, jpeg
from arvision.data.base import BrokenImage
from arvision.data.png import check_png
from arvision.data.tiff import check_tags
from arvision.ranges import Range

# Formats whose Pillow readers run no other program, unlike EPS.
FORMATS = ('JPEG', 'PNG', 'BMP', 'GIF', 'PPM', 'WEBP', 'TIFF', 'AVIF')
# 8192 x 8192.
MAX_PIXELS = 2**26
# Pillow itself refuses more.
MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or MAX_PIXELS)
Pixels = Annotated[int, Range(1, MOST_PIXELS)]
# Bytes of a file besides its pixels: metadata, thumbnails, more pictures.
MORE_BYTES = 2**26
# Scans of a progressive JPEG; each costs as much as a picture, and 10 are
# usual.
_SCANS = 16
# PPM with a short header and binary pixels; Pillow reads others byte by byte.
_PPM = re.compile(rb'P(4\s+\d+|[56]\s+\d+\s+\d+)\s+\d+\s')
_COMMENT = re.compile(rb'#[^\n]*\n')

_TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}

# Pillow warns about odd tags, and about pictures that are refused here.
warnings.filterwarnings('ignore', module=r'PIL\.')


def check_max_pixels(number: int) -> None:
  """Raises ConfigError for a limit that exceeds Pillow's own."""
  check(number, Pixels, 'config.data.source.max_pixels')


def decode(
  file: str | os.PathLike | bytes,
  name: str,
  background: tuple[int, int, int] = (255, 255, 255),
  max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
  """Decodes the first picture of a file in one of FORMATS.

  Gray pictures stay gray, 16-bit gray keeps its upper byte (see `_grey`), other
  modes become RGB. Transparent pictures are composited over `background`. The
  EXIF orientation is applied.

  Args:
    file: path of a regular file, or the encoded bytes.
    name: its name, for errors.
    background: RGB, 0 to 255.
    max_pixels: largest number of pixels in the header.

  Returns:
    (H, W, 1) or (H, W, 3) uint8, read-only.

  Raises:
    BrokenImage: it is damaged or truncated, or has too many pixels.
  """
  with _opened(file, name, max_pixels) as (data, image):
    if image.format == 'JPEG' and _turn(image) is None:
      array = jpeg.decode(data, image)
      if array is not None:
        return array
    return _array(_upright(image), background)


def decode_mask(
  file: str | os.PathLike | bytes, name: str, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
  """Decodes a mask: True where a picture is white.

  Of two colours the brighter one is white, of more all above half of the scale
  are. Transparent pixels are black.

  Args:
    file, name, max_pixels: see `decode`.

  Returns:
    (H, W) bool.

  Raises:
    BrokenImage: see `decode`.
  """
  with _opened(file, name, max_pixels) as (_, image):
    image = _upright(image)
    if _is_deep(image):
      # Unscaled, so that 16-bit masks of 0 and 1 work.
      array, white = np.asarray(image), 65535
    else:
      array, white = _array(image, (0, 0, 0)).mean(-1), 255
    if not np.isfinite(array).all():
      raise ValueError('values that are not finite')
    low, high = array.min(), array.max()
    if np.logical_or(array == low, array == high).all():
      return array > low
    return array > white / 2


@contextlib.contextmanager
def _opened(file, name, max_pixels) -> Iterator[tuple[bytes, Image.Image]]:
  """The file and its picture, to be decoded; for deep gray, info has `scale`.

  Turns errors of the decoder into BrokenImage.
  """
  try:
    data = file
    if not isinstance(data, bytes):
      data = files.read(data, 8 * max_pixels + MORE_BYTES)
    check_tags(data, max_pixels)
    if re.match(rb'P\d', data) and not _PPM.match(
      _COMMENT.sub(b'', data[:4096])
    ):
      raise ValueError('not a binary PPM of one of the kinds P4, P5 and P6')
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
      pixels = math.prod(image.size)
      if pixels > max_pixels:
        raise Image.DecompressionBombError(f'{pixels} pixels')
      scans = data.count(b'\xff\xda') if image.format in ('JPEG', 'MPO') else 0
      if scans > _SCANS and scans * pixels > _SCANS * max_pixels:
        raise ValueError(f'{scans} scans of {pixels} pixels')
      check_png(data)
      _mend_transparency(image)
      if _is_deep(image):
        image.info['scale'] = _scale(image)
      yield data, image
  except Image.DecompressionBombError as error:
    raise BrokenImage(
      f'{name}: {str(error).split(" exceeds")[0]}, wanted at most {max_pixels} '
      'pixels (config.data.source.max_pixels of folders, records and TFDS)'
    ) from error
  except UnidentifiedImageError as error:
    kinds = ', '.join(FORMATS)
    raise BrokenImage(f'{name}: not a picture, wanted {kinds}') from error
  except Exception as error:  # parsers raise almost anything
    raise BrokenImage(
      f'{name}: cannot be decoded ({type(error).__name__}: {error})'
    ) from error


def _mend_transparency(image):
  # Pillow scales the pixels of a PNG to 8 bits, but not the transparent value.
  clear = image.info.get('transparency')
  raw = image.tile[0].args if image.format == 'PNG' and image.tile else ''
  if clear is not None and raw in ('L;2', 'L;4'):
    image.info['transparency'] = clear * (85 if raw == 'L;2' else 17)
  elif clear is not None and raw == 'RGB;16B':
    image.info['transparency'] = tuple(value >> 8 for value in clear)


def _scale(image):
  """(bits, whether white is 0) of gray with more than 8 bits."""
  if image.format != 'TIFF':
    return 16, False
  tags = image.tag_v2
  # Signed 16-bit samples arrive as 32-bit ones; neither has a standard white.
  bits = 32 if image.mode == 'I' else max(tags[ExifTags.Base.BitsPerSample])
  return bits, tags.get(ExifTags.Base.PhotometricInterpretation) == 0


def _turn(image):
  """How Pillow turns a picture upright, None where it is."""
  try:
    return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
  except Exception:  # damaged metadata do not matter
    return None


def _upright(image):
  """Decodes a picture."""
  image.load()
  turn = _turn(image)  # PNG may have its metadata at the end
  return image if turn is None else image.transpose(turn)


def _is_deep(image):
  return image.mode[0] in 'IF'


def _array(image, background):
  if _is_deep(image):
    return _grey(image, background)
  if image.mode in ('1', 'L') and 'transparency' not in image.info:
    return np.asarray(image.convert('L'))[..., None]
  if image.has_transparency_data:
    image = image.convert('RGBA')
    paper = Image.new('RGBA', image.size, (*background, 255))
    image = Image.alpha_composite(paper, image)
  # Pillow's `convert` would copy an RGB picture, and so would `np.array`.
  return np.asarray(image if image.mode == 'RGB' else image.convert('RGB'))


def _grey(image, background):
  """Converts gray of more than 8 bits to its upper 8 bits.

  32-bit and signed integers have no standard white. They are taken as 8-bit
  values if none exceeds 255, and as 16-bit values if none exceeds 65535.
  """
  values = np.asarray(image)
  (bits, inverted), high = image.info['scale'], values.max()
  if image.mode == 'F' or values.min() < 0 or high > 65535:
    raise ValueError(
      f'{image.mode} values from {values.min()} to {high} are not an 8-bit or '
      '16-bit picture'
    )
  if bits == 32:
    bits = 8 if high < 256 else 16
  grey = (values >> (bits - 8)).astype(np.uint8)[..., None]
  grey = 255 - grey if inverted else grey
  clear = image.info.get('transparency')
  if clear is None:
    return grey
  return np.where((values == clear)[..., None], np.uint8(background), grey)


def encode(image: np.ndarray) -> bytes:
  """(H, W, 1 or 3) uint8 -> PNG bytes."""
  buffer = io.BytesIO()
  Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(
    buffer, 'PNG'
  )
  return buffer.getvalue()
