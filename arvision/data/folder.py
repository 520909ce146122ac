"""Folders of image files."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator

import numpy as np
from absl import logging

from arvision.data import files
from arvision.data.base import Example, Source, facts_of_files
from arvision.data.decode import MAX_PIXELS, Pixels, check_max_pixels, decode
from arvision.data.files import shown
from arvision.errors import DataError
from arvision.ranges import Byte, Names

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff')
# Longest caption file.
_CAPTION_BYTES = 2**16


@dataclasses.dataclass(frozen=True, eq=False)
class Folder(Source):
  """A folder with one sub-folder per class, or a flat folder of images.

  Classes are the sorted names of the sub-folders, which may be nested. A flat
  folder is one class, named after it. Names that start with a dot are skipped.
  The caption of an image is in a text file with the same stem; without one it
  is the name of the class. Bytes of names that are not UTF-8 are escaped.

  Links are followed, but every image counts once: links to images that are
  listed already are skipped and logged.

  Attributes:
    path: the folder.
    held_out_path: a second folder with the same classes (ImageNet's `val`), or
      '' if the pipeline shall hold out some of `path`.
    extensions: suffixes of image files, lower case, with the dot.
    background: RGB behind transparent pictures, 0 to 255.
    only: classes to keep; () keeps all.
    max_pixels: a picture with more is broken; it is not decoded.
  """

  path: str
  held_out_path: str = ''
  extensions: Names = EXTENSIONS
  background: tuple[Byte, Byte, Byte] = (255, 255, 255)
  only: tuple[str, ...] = ()
  max_pixels: Pixels = MAX_PIXELS

  def __post_init__(self):
    check_max_pixels(self.max_pixels)

  @functools.cached_property
  def _listing(self):
    """Classes, relative paths, labels, and stem -> caption file."""
    if not self.path:
      raise DataError(
        'config.data.source.path is empty; set it to a folder of images'
      )
    root = pathlib.Path(self.path)
    if not root.is_dir():
      raise DataError(
        f'{shown(root)}: no such folder; set config.data.source.path to a '
        'folder of images'
      )
    try:
      names, passed = files.search(root, self._is_image)
    except OSError as error:
      raise DataError(f'{shown(root)}: cannot be read ({error})') from error
    found = [name for name in names if self._is_image(name)]
    # `.txt` sorts after `.TXT` and wins.
    captions = {n[:-4]: n for n in names if n[-4:].lower() == '.txt'}
    if not found:
      raise DataError(
        f'{shown(root)}: no images; config.data.source.path wants files that '
        f'end in {", ".join(self.extensions)} (config.data.source.extensions)'
      )
    self._check_links(root, passed, found)
    flat = [path for path in found if '/' not in path]
    if flat and len(flat) < len(found):
      raise DataError(
        f'{shown(root)}: holds images ({shown(flat[0])}) and sub-folders of '
        'images; config.data.source.path wants either one sub-folder per class '
        'or images only'
      )
    if flat:
      name = shown(root.resolve().name)
      return (name,), found, [0] * len(found), captions
    owner = [shown(path.split('/', 1)[0]) for path in found]
    classes = tuple(sorted(set(owner)))
    if self.only:
      missing = sorted(set(self.only) - set(classes))
      if missing:
        raise DataError(
          f'{shown(root)}: no class {", ".join(missing)}; change '
          'config.data.source.only'
        )
      classes = tuple(sorted(self.only))
    number = {name: i for i, name in enumerate(classes)}
    kept = [(p, number[c]) for p, c in zip(found, owner) if c in number]
    return classes, [p for p, _ in kept], [c for _, c in kept], captions

  def _is_image(self, name):
    return os.path.splitext(name)[1].lower() in self.extensions

  def _check_links(self, root, passed, found):
    """Logs skipped links, and raises for classes that only link to others."""
    twice = {
      link: target
      for link, target in passed.items()
      if not files.is_circle(root, link, target)
    }
    classes = {name.split('/', 1)[0] for name in found if '/' in name}
    for link, target in sorted(twice.items()):
      owner = link.split('/', 1)[0]
      wanted = not self.only or shown(owner) in self.only
      if classes and wanted and owner not in classes:
        raise DataError(
          f'{shown(root)}: class {shown(owner)} only holds links to images of '
          f'another class ({shown(link)} leads to {shown(target)}); delete the '
          'links'
        )
    if passed:
      first = min(passed)
      logging.warning(
        '%s: skipped %d links to images that are listed already; the first is '
        '%s, to %s',
        *(shown(root), len(passed), shown(first), shown(passed[first])),
      )

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
    return shown(self._listing[1][i])

  def __len__(self) -> int:
    return len(self._listing[1])

  def caption_of(self, i: int) -> str:
    classes, paths, labels, captions = self._listing
    name = captions.get(os.path.splitext(paths[i])[0])
    if name is not None:
      return _caption(os.path.join(self.path, name))
    return classes[labels[i]]

  def facts(self) -> Iterator[str | bytes]:
    classes, paths, _, _ = self._listing
    yield f'{classes} {tuple(self.background)}'
    yield from facts_of_files(
      {shown(path): pathlib.Path(self.path, path) for path in paths}
    )

  def __getitem__(self, i: int) -> Example:
    _, paths, labels, _ = self._listing
    path = os.path.join(self.path, paths[i])
    image = decode(path, shown(path), self.background, self.max_pixels)
    return {'image': image, 'label': labels[i], 'caption': self.caption_of(i)}


def _caption(path):
  try:
    # Windows editors write a byte order mark.
    text = files.read(path, _CAPTION_BYTES).decode('utf-8-sig')
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(
      f'{shown(path)}: a caption wants to be a text in UTF-8 ({error})'
    ) from error
  if '\0' in text:
    raise DataError(
      f'{shown(path)}: a caption wants to be a text in UTF-8, and holds a NUL'
    )
  return text.strip()
