"""Grids of images, as PNG files and as animations."""

import io
import math
import os
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from arvision import atomic
from arvision.data.transforms import to_uint8

# Images are enlarged until their shorter side has at least this many pixels.
LEGIBLE = 48
_BACKGROUND = 24
_GAP = 2


def grid(
  images: np.ndarray, columns: int | None = None, scale: int | None = None
) -> np.ndarray:
  """A grid of images, in reading order.

  Args:
    images: (k, H, W, C) float in [-1, 1], or uint8; C = 1 or 3.
    columns: images per row; None: a square grid.
    scale: every pixel becomes a square of this side; None: see `LEGIBLE`.

  Returns:
    (height, width, 3) uint8.

  Raises:
    ValueError: images of another shape, or none.
  """
  images = np.asarray(images)
  if images.ndim != 4 or images.shape[-1] not in (1, 3) or not len(images):
    raise ValueError(f'wanted (k, H, W, 1 or 3) images, got {images.shape}')
  if images.dtype != np.uint8:
    images = to_uint8(images)
  k, height, width, _ = images.shape
  columns = min(k, columns or _columns(k, height, width))
  scale = scale or enlargement(height, width)
  cells = images.repeat(scale, 1).repeat(scale, 2)
  height, width = height * scale, width * scale
  rows = -(-k // columns)
  shape = (rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3)
  out = np.full(shape, _BACKGROUND, np.uint8)
  for i, cell in enumerate(cells):
    y, x = divmod(i, columns)
    y, x = y * (height + _GAP), x * (width + _GAP)
    out[y : y + height, x : x + width] = cell
  return out


def enlargement(height: int, width: int) -> int:
  """How many times as large images of so many pixels are in a grid."""
  return max(1, math.ceil(LEGIBLE / min(height, width)))


def enlarged(height: int, width: int) -> str:
  """A line about images that a grid enlarges, '' for those that it does not."""
  factor = enlargement(height, width)
  if factor == 1:
    return ''
  return (
    f'images of {height} x {width} px; grid.png has them {factor} times as '
    'large, other files as they are'
  )


def sheet(
  rows: Mapping[str, np.ndarray],
  columns: int | None = None,
  scale: int | None = None,
) -> np.ndarray:
  """A sheet of several series of images, with their names in the margin.

  A single series is a plain grid without a name. Several series are stacked, so
  that image i of every series is in the same column. Series that are longer
  than a row continue in another stack below.

  Args:
    rows: name -> (k, H, W, C) float in [-1, 1].
    columns: images per row; None: see `grid`.
    scale: see `grid`.

  Returns:
    (height, width, 3) uint8.
  """
  if len(rows) == 1:
    return grid(next(iter(rows.values())), columns, scale)
  size = max(len(images) for images in rows.values())
  height, width = next(iter(rows.values())).shape[1:3]
  columns = min(size, columns or 2 * _columns(size, height, width))
  bands: list[tuple[str, np.ndarray]] = []
  for start in range(0, size, columns):
    for name, images in rows.items():
      part = images[start : start + columns]
      if len(part):
        bands.append((name, grid(part, columns, scale)))
    bands.append(('', np.full((4, 1, 3), _BACKGROUND, np.uint8)))
  return _stack(bands[:-1])


def _stack(bands):
  font = ImageFont.load_default(12)
  margin = 12 + int(max(font.getlength(name) for name, _ in bands))
  width = margin + max(band.shape[1] for _, band in bands)
  height = sum(band.shape[0] + _GAP for _, band in bands) - _GAP
  page = Image.new('RGB', (width, height), (_BACKGROUND,) * 3)
  draw = ImageDraw.Draw(page)
  y = 0
  for name, band in bands:
    page.paste(Image.fromarray(band), (margin, y))
    middle = y + band.shape[0] // 2
    draw.text((6, middle), name, (220,) * 3, font=font, anchor='lm')
    y += band.shape[0] + _GAP
  return np.asarray(page)


def animation(
  frames: Sequence[np.ndarray], seconds: float = 0.4, rest: float = 1.5
) -> bytes:
  """An endless GIF.

  Args:
    frames: (height, width, 3) uint8 pictures of one size, such as sheets.
    seconds: how long a frame stays.
    rest: how long the last one stays.

  Returns:
    the content of the file.

  Raises:
    ValueError: no frames, or some of another size.
  """
  if len({frame.shape for frame in frames}) != 1:
    raise ValueError(
      f'wanted frames of one size, got {[f.shape for f in frames]}'
    )
  first, *others = (Image.fromarray(frame) for frame in frames)
  times = [round(1000 * seconds)] * len(others) + [round(1000 * rest)]
  buffer = io.BytesIO()
  first.save(
    buffer,
    format='GIF',
    save_all=True,
    append_images=others,
    duration=times,
    loop=0,
  )
  return buffer.getvalue()


def _columns(k, height, width):
  return max(1, round(math.sqrt(k * height / width)))


def save(path: str | os.PathLike, picture: np.ndarray) -> None:
  """Writes a PNG atomically.

  Args:
    path: path of the file; its folder is created if needed.
    picture: (height, width, 1 or 3) uint8.
  """
  if picture.shape[2:] == (1,):
    picture = picture[..., 0]
  with atomic.whole(path) as new:
    Image.fromarray(picture).save(new, format='PNG')
