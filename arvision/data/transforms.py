"""Pictures to arrays of one size: pure functions of numpy arrays.

Pictures are (h, w, C) uint8 until `to_float`. Sizes are (height, width). What
is random is chosen by numbers in [0, 1) that the caller draws, so a crop is a
function of its arguments.
"""

import math

import numpy as np
from PIL import Image

Size = tuple[int, int]

FILTERS = {
  'nearest': Image.Resampling.NEAREST,
  'area': Image.Resampling.BOX,
  'bilinear': Image.Resampling.BILINEAR,
  'bicubic': Image.Resampling.BICUBIC,
  'lanczos': Image.Resampling.LANCZOS,
}
# ADM's two steps: halve by area while twice too large, then bicubic.
ADM = 'adm'
FILTER_NAMES = (*FILTERS, ADM)


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
  """(h, w, 1 or 3) -> (h, w, channels); grey is ITU-R 601 luma."""
  if image.shape[-1] == channels:
    return image
  if channels == 3:
    return np.repeat(image, 3, axis=-1)
  return np.asarray(Image.fromarray(image).convert('L'))[..., None]


def resize(image: np.ndarray, size: Size, filter: str) -> np.ndarray:
  """(h, w, C) uint8 -> (*size, C) uint8.

  Filters smooth when they shrink (Pillow's, unlike those of most frameworks).

  Args:
    image: the picture.
    size: wanted (height, width).
    filter: one of FILTER_NAMES.
  """
  if image.shape[:2] == tuple(size):
    return image
  if filter == ADM:
    return resize(_halve(image, size), size, 'bicubic')
  picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
  picture = picture.resize((size[1], size[0]), FILTERS[filter])
  return np.asarray(picture).reshape(*size, image.shape[-1])


def _halve(image, size):
  """Halves a picture while it is at least twice as large as `size`."""
  while image.shape[0] >= 2 * size[0] and image.shape[1] >= 2 * size[1]:
    half = (image.shape[0] // 2, image.shape[1] // 2)
    image = resize(image, half, 'area')
  return image


def fit(image: np.ndarray, size: Size) -> Size:
  """The smallest size of the same shape that a crop of `size` fits in."""
  height, width = image.shape[:2]
  scale = max(size[0] / height, size[1] / width)
  return (
    max(size[0], round(height * scale)),
    max(size[1], round(width * scale)),
  )


def rescale(image: np.ndarray, size: Size, filter: str) -> np.ndarray:
  """Scales a picture so that a crop of `size` just fits in.

  'adm' rounds the new size after it has halved the picture, as ADM's code
  does: the result may be a pixel or two longer than that of other filters.

  Args:
    image: (h, w, C) uint8.
    size: (height, width) of the crop.
    filter: one of FILTER_NAMES.

  Source: `center_crop_arr` of the released code of Dhariwal & Nichol 2021
    (arXiv:2105.05233).
  """
  if filter == ADM:
    image = _halve(image, size)
  return resize(image, fit(image, size), filter)


def crop(image: np.ndarray, size: Size, y: float, x: float) -> np.ndarray:
  """A crop of `size` at the share (y, x) of the way, each in [0, 1).

  With y and x uniform every place is equally likely; (0.5, 0.5) is not used
  for the centre, see `center`.
  """
  top = int(y * (image.shape[0] - size[0] + 1))
  left = int(x * (image.shape[1] - size[1] + 1))
  return image[top : top + size[0], left : left + size[1]]


def center(image: np.ndarray, size: Size) -> np.ndarray:
  """The crop of `size` in the middle, up and left by half a pixel if odd."""
  top = (image.shape[0] - size[0]) // 2
  left = (image.shape[1] - size[1]) // 2
  return image[top : top + size[0], left : left + size[1]]


def flip(image: np.ndarray) -> np.ndarray:
  """Left and right exchanged."""
  return image[:, ::-1]


def five_crop(image: np.ndarray, size: Size) -> list[np.ndarray]:
  """Centre, then the corners: top left, top right, bottom left and right.

  Differs: torchvision puts the centre last. Here the first view is always the
  deterministic one that held-out examples get.
  """
  h, w = size
  height, width = image.shape[:2]
  return [
    center(image, size),
    image[:h, :w],
    image[:h, width - w :],
    image[height - h :, :w],
    image[height - h :, width - w :],
  ]


def ten_crop(image: np.ndarray, size: Size) -> list[np.ndarray]:
  """`five_crop`, then the same five flipped."""
  crops = five_crop(image, size)
  return crops + [flip(view) for view in crops]


def adm_random_crop(
  image: np.ndarray,
  size: Size,
  draws: np.ndarray,
  filter: str = ADM,
  min_frac: float = 0.8,
  max_frac: float = 1.0,
) -> np.ndarray:
  """A random crop of a randomly scaled picture.

  The picture is scaled so that the crop is between `min_frac` and `max_frac`
  of what fits, in steps of one pixel of the short side, and cropped at random.

  Args:
    image: (h, w, C) uint8.
    size: of the crop.
    draws: three numbers in [0, 1): scale, y, x.
    filter: one of FILTER_NAMES; ADM's own is 'adm'.
    min_frac, max_frac: range of the share.

  Source: Dhariwal & Nichol 2021 (arXiv:2105.05233), the random crop of the
    released code.
  Differs: crops need not be square. The scaled picture fits a frame of the
    shape of the crop, where ADM scales the short side.
  """
  side = min(size)
  low, high = math.ceil(side / max_frac), math.ceil(side / min_frac)
  wanted = low + int(draws[0] * (high - low + 1))
  frame = (
    max(size[0], round(size[0] * wanted / side)),
    max(size[1], round(size[1] * wanted / side)),
  )
  scaled = rescale(image, frame, filter)
  return crop(scaled, size, draws[1], draws[2])


def to_float(image: np.ndarray) -> np.ndarray:
  """uint8 -> float32 in [-1, 1]: x / 127.5 - 1."""
  return image / np.float32(127.5) - np.float32(1)


def to_uint8(image: np.ndarray) -> np.ndarray:
  """float in [-1, 1] -> uint8, the inverse of `to_float`; clips."""
  return np.rint(np.clip(image, -1, 1) * 127.5 + 127.5).astype(np.uint8)
