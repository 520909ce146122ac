"""Resizing, cropping and flipping of numpy images.

Images are (h, w, C) uint8 until `to_float`. Sizes are (height, width). Random
transforms take uniform numbers in [0, 1), so all functions are pure.
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
# ADM's filter: halve with a box filter while twice too large, then bicubic.
ADM = 'adm'
FILTER_NAMES = (*FILTERS, ADM)


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
  """(h, w, 1 or 3) -> (h, w, channels); RGB to gray by ITU-R 601 luma."""
  if image.shape[-1] == channels:
    return image
  if channels == 3:
    return np.repeat(image, 3, axis=-1)
  return np.asarray(Image.fromarray(image).convert('L'))[..., None]


def resize(image: np.ndarray, size: Size, filter: str) -> np.ndarray:
  """Resizes (h, w, C) uint8 to (*size, C) uint8, with antialiasing (Pillow).

  Args:
    image: the image.
    size: (height, width).
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
  """Halves an image while it is at least twice as large as `size`."""
  while image.shape[0] >= 2 * size[0] and image.shape[1] >= 2 * size[1]:
    half = (image.shape[0] // 2, image.shape[1] // 2)
    image = resize(image, half, 'area')
  return image


def fit(image: np.ndarray, size: Size) -> Size:
  """The smallest size with the aspect ratio of `image` that contains `size`."""
  height, width = image.shape[:2]
  scale = max(size[0] / height, size[1] / width)
  return (
    max(size[0], round(height * scale)),
    max(size[1], round(width * scale)),
  )


def rescale(image: np.ndarray, size: Size, filter: str) -> np.ndarray:
  """Scales an image so that a crop of `size` just fits.

  As in ADM's code, 'adm' rounds the new size after halving: the result may be a
  pixel or two longer than that of other filters.

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
  """A crop of `size` at a relative position (y, x) in [0, 1).

  Uniform y and x make every position equally likely. For the center see
  `center`.
  """
  top = int(y * (image.shape[0] - size[0] + 1))
  left = int(x * (image.shape[1] - size[1] + 1))
  return image[top : top + size[0], left : left + size[1]]


def center(image: np.ndarray, size: Size) -> np.ndarray:
  """The center crop of `size`, rounded up and left."""
  top = (image.shape[0] - size[0]) // 2
  left = (image.shape[1] - size[1]) // 2
  return image[top : top + size[0], left : left + size[1]]


def flip(image: np.ndarray) -> np.ndarray:
  """Flips horizontally."""
  return image[:, ::-1]


def five_crop(image: np.ndarray, size: Size) -> list[np.ndarray]:
  """Center, top left, top right, bottom left, bottom right.

  Differs: torchvision has the center last. Here the first view is the one of
  held-out examples.
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
  """`five_crop`, and the same five flipped."""
  crops = five_crop(image, size)
  return crops + [flip(view) for view in crops]


def adm_random_crop(
  image: np.ndarray,
  size: Size,
  draws: np.ndarray,
  filter: str = ADM,
) -> np.ndarray:
  """A random crop of a randomly scaled image.

  The image is scaled so that the short side of the crop is a random share, from
  0.8 to 1, of that of the image, in steps of a pixel.

  Args:
    image: (h, w, C) uint8.
    size: (height, width) of the crop.
    draws: (3,) uniform numbers in [0, 1): scale, y, x.
    filter: one of FILTER_NAMES.

  Source: Dhariwal & Nichol 2021 (arXiv:2105.05233), the random crop of the
    released code.
  Differs: crops need not be square: the image is scaled to contain a frame with
    the aspect ratio of the crop. ADM scales the short side.
  """
  side = min(size)
  wanted = side + int(draws[0] * (math.ceil(side / 0.8) - side + 1))
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
  """float in [-1, 1] -> uint8: clipped and rounded, NaN becomes 0.

  The one rule by which images become integers, in files and in scores.
  """
  image = np.nan_to_num(np.asarray(image, np.float32), nan=-1.0)
  return np.rint(np.clip(image + 1, 0, 2) * 127.5).astype(np.uint8)
