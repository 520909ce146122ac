"""Folders of image files."""

import dataclasses
import functools
import os
import pathlib

import numpy as np

from arvision.data.base import DataError, Example, Source
from arvision.data.decode import decode
from arvision.ranges import Byte

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff')


@dataclasses.dataclass(frozen=True, eq=False)
class Folder(Source):
  """A folder with one sub-folder per class, or a flat folder of images.

  Classes are the sub-folders in sorted order, images are searched below them
  at any depth, names that start with a dot are passed over. A flat folder is
  one class, named after it. A text file beside an image with the same stem is
  its caption; without one the caption is the name of the class.

  Attributes:
    path: the folder.
    held_out_path: a second folder with the same classes (ImageNet's `val`), or
      '' where the pipeline shall hold out some of `path`.
    extensions: endings of image files, lower case, with the dot.
    background: RGB that shows through transparent pictures.
    only: classes to keep; () keeps all.
  """

  path: str
  held_out_path: str = ''
  extensions: tuple[str, ...] = EXTENSIONS
  background: tuple[Byte, Byte, Byte] = (255, 255, 255)
  only: tuple[str, ...] = ()

  @functools.cached_property
  def _listing(self):
    """Classes, paths relative to the folder, labels, and stems of captions."""
    if not self.path:
      raise DataError(
        'config.data.source.path is empty; set it to a folder of images'
      )
    root = pathlib.Path(self.path)
    if not root.is_dir():
      raise DataError(
        f'{root}: no such folder; set config.data.source.path to a folder of '
        'images'
      )
    found, captions = [], set()
    for folder, below, files in os.walk(root, followlinks=True):
      below[:] = sorted(name for name in below if not name.startswith('.'))
      for name in files:
        path = (pathlib.Path(folder) / name).relative_to(root)
        if name.startswith('.'):
          continue
        if path.suffix.lower() in self.extensions:
          found.append(path.as_posix())
        elif path.suffix == '.txt':
          captions.add(path.with_suffix('').as_posix())
    found.sort()
    if not found:
      raise DataError(
        f'{root}: no images; config.data.source.path wants files that end in '
        f'{", ".join(self.extensions)} (config.data.source.extensions)'
      )
    flat = [path for path in found if '/' not in path]
    if flat and len(flat) < len(found):
      raise DataError(
        f'{root}: holds images ({flat[0]}) and sub-folders of images; '
        'config.data.source.path wants either one sub-folder per class, or '
        'images only'
      )
    if flat:
      return (root.resolve().name,), found, [0] * len(found), captions
    owner = [path.split('/', 1)[0] for path in found]
    classes = tuple(sorted(set(owner)))
    if self.only:
      missing = sorted(set(self.only) - set(classes))
      if missing:
        raise DataError(
          f'{root}: no class {", ".join(missing)}; change '
          'config.data.source.only'
        )
      classes = tuple(sorted(self.only))
    number = {name: i for i, name in enumerate(classes)}
    kept = [(p, number[c]) for p, c in zip(found, owner) if c in number]
    return classes, [p for p, _ in kept], [c for _, c in kept], captions

  @property
  def classes(self) -> tuple[str, ...]:
    return self._listing[0]

  @functools.cached_property
  def labels(self) -> np.ndarray:
    return np.array(self._listing[2], np.int32)

  @functools.cached_property
  def held_out(self) -> 'Folder | None':
    if not self.held_out_path:
      return None
    other = dataclasses.replace(self, path=self.held_out_path, held_out_path='')
    flat = len(self.classes) == len(other.classes) == 1
    if other.classes != self.classes and not flat:
      odd = sorted(set(self.classes) ^ set(other.classes))
      raise DataError(
        f'{self.path} and {self.held_out_path} differ in the classes '
        f'{", ".join(odd[:5])}; config.data.source.held_out_path wants the '
        'sub-folders of config.data.source.path'
      )
    return other

  def name(self, i: int) -> str:
    return self._listing[1][i]

  def __len__(self) -> int:
    return len(self._listing[1])

  def __getitem__(self, i: int) -> Example:
    classes, paths, labels, captions = self._listing
    path = pathlib.Path(self.path) / paths[i]
    stem = paths[i].rsplit('.', 1)[0]
    if stem in captions:
      text = _caption(path.with_suffix('.txt'))
    else:
      text = classes[labels[i]]
    image = decode(path, str(path), self.background)
    return {'image': image, 'label': labels[i], 'caption': text}


def _caption(path):
  try:
    return path.read_text(encoding='utf-8').strip()
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(
      f'{path}: a caption wants to be a text in UTF-8 ({error})'
    ) from error
