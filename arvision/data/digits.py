"""The 1,797 handwritten digits that come with scikit-learn."""

import dataclasses
import functools

import numpy as np
import sklearn.datasets

from arvision.data.base import Example, Source


@dataclasses.dataclass(frozen=True, eq=False)
class Digits(Source):
  """8 x 8 gray digits, without a download.

  Values v in 0..16 become round(255 v / 16), which is lossless.
  """

  may_break = False

  @property
  def classes(self) -> tuple[str, ...]:
    return tuple('0123456789')

  @functools.cached_property
  def _arrays(self):
    data = sklearn.datasets.load_digits()
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)
    return images[..., None], data.target.astype(np.int32)

  @property
  def labels(self) -> np.ndarray:
    return self._arrays[1]

  def __len__(self) -> int:
    return len(self.labels)

  def __getitem__(self, i: int) -> Example:
    images, labels = self._arrays
    label = int(labels[i])
    caption = f'a handwritten digit {self.classes[label]}'
    return {'image': images[i], 'label': label, 'caption': caption}
