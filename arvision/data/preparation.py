"""Preparation of pictures: resize, crop and flip, as the config states."""

import dataclasses

import numpy as np

from arvision.data import transforms
from arvision.data.base import BrokenImage
from arvision.data.decode import MAX_PIXELS
from arvision.errors import ConfigError, DataError
from arvision.ranges import Side, Width

CROPS = ('center', 'random', 'adm')
VIEWS = ('center', 'flip', 'ten_crop')
# Uniform numbers per training view: scale, y, x, flip.
DRAWS = 4


@dataclasses.dataclass(frozen=True)
class Preparation:
  """Resizes, crops and flips pictures.

  Attributes:
    size: (H, W) of the result.
    channels: 1 or 3.
    resize: 'fit' scales up or down so that the crop just fits; an int is the
      length of the short side; None (or 'none') does not resize.
    filter: one of `transforms.FILTER_NAMES`.
    crop: crop of training views: 'center', 'random', or 'adm' (random scale and
      position; `resize` then applies to held-out views only).
    flip: flip half of the training views.
  """

  size: tuple[Side, Side]
  channels: Width
  resize: Side | str | None
  filter: str
  crop: str
  flip: bool

  def __post_init__(self):
    def check(good, key, wanted):
      if not good:
        got = getattr(self, key)
        raise ConfigError(f'config.data.{key}={got!r}: wanted {wanted}')

    size = self.size
    check(
      isinstance(size, tuple) and len(size) == 2 and min(size) > 0,
      'size',
      '(height, width)',
    )
    check(self.channels in (1, 3), 'channels', '1 or 3')
    names = ', '.join(transforms.FILTER_NAMES)
    check(self.filter in transforms.FILTER_NAMES, 'filter', f'one of {names}')
    check(self.crop in CROPS, 'crop', f'one of {", ".join(CROPS)}')
    check(
      self.resize in (None, 'none', 'fit') or 0 < self._short_side() <= 2**14,
      'resize',
      "'fit', 'none', or the length of the short side",
    )

  def _short_side(self):
    # An override of 'fit' on the command line arrives as text.
    text = str(self.resize)
    return int(text) if text.isdigit() else 0

  @property
  def scales_at_random(self) -> bool:
    """Whether training views are made from the unscaled picture."""
    return self.crop == 'adm'

  def check_shape(self, image: np.ndarray, name: str) -> None:
    """Checks the size of a picture after scaling: thin ones can become huge.

    Raises:
      BrokenImage: it would have more than `decode.MAX_PIXELS`.
    """
    side = self._short_side()
    frame = (side, side) if side else self.size
    if self.resize in (None, 'none') and not self.scales_at_random:
      return
    height, width = transforms.fit(image, frame)
    if height * width > MAX_PIXELS:
      raise BrokenImage(
        f'{name}: {image.shape[0]} x {image.shape[1]} pixels would become '
        f'{height} x {width} by config.data.resize={self.resize!r}, wanted at '
        f'most {MAX_PIXELS} pixels'
      )

  def open(self, image: np.ndarray) -> np.ndarray:
    """Converts the channels: the first step, which can be cached."""
    return transforms.to_channels(image, self.channels)

  def scale(self, image: np.ndarray, name: str) -> np.ndarray:
    """Resizes an opened picture.

    Raises:
      DataError: the result is smaller than the crop.
    """
    if self.resize == 'fit':
      image = transforms.rescale(image, self.size, self.filter)
    elif side := self._short_side():
      image = transforms.rescale(image, (side, side), self.filter)
    height, width = image.shape[:2]
    if height < self.size[0] or width < self.size[1]:
      raise DataError(
        f'{name}: {height} x {width} pixels after config.data.resize='
        f'{self.resize!r}, too small for a crop of config.data.size='
        f"{self.size}; resize='fit' scales every picture"
      )
    return image

  def train(self, image: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """A random training view.

    Args:
      image: (h, w, C) uint8, scaled, or only opened if `scales_at_random`.
      draws: (DRAWS,) uniform numbers in [0, 1).

    Returns:
      (H, W, C) uint8.
    """
    if self.crop == 'adm':
      image = transforms.adm_random_crop(image, self.size, draws, self.filter)
    elif self.crop == 'random':
      image = transforms.crop(image, self.size, draws[1], draws[2])
    else:
      image = transforms.center(image, self.size)
    return transforms.flip(image) if self.flip and draws[3] < 0.5 else image

  def views(self, image: np.ndarray, which: str) -> list[np.ndarray]:
    """The deterministic views of a scaled picture, the center crop first.

    Args:
      image: (h, w, C) uint8.
      which: 'center' (1 view), 'flip' (2) or 'ten_crop' (10).

    Returns:
      list of (H, W, C) uint8.
    """
    if which == 'ten_crop':
      return transforms.ten_crop(image, self.size)
    view = transforms.center(image, self.size)
    if which == 'flip':
      return [view, transforms.flip(view)]
    if which == 'center':
      return [view]
    raise ValueError(f'views={which!r}: wanted one of {", ".join(VIEWS)}')
