"""The 1,797 handwritten digits that come with scikit-learn."""

import dataclasses
import functools
import importlib.util
import pathlib

import numpy as np

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
    rows = np.loadtxt(_file(), delimiter=',')
    images = rows[:, :-1].reshape(-1, 8, 8, 1) * (255 / 16)
    return np.rint(images).astype(np.uint8), rows[:, -1].astype(np.int32)

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


def _file():
  """The file of scikit-learn, whose import takes as long as that of JAX.

  Raises:
    ModuleNotFoundError: it is not installed.
  """
  spec = importlib.util.find_spec('sklearn')
  if spec is None or spec.origin is None:
    raise ModuleNotFoundError("No module named 'sklearn'", name='sklearn')
  return pathlib.Path(spec.origin).parent / 'datasets/data/digits.csv.gz'
