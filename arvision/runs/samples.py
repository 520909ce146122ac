"""Writes the folder of `arvision sample`, image by image."""

import contextlib
import json
import pathlib
import re
import shutil
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tqdm

from arvision.data.transforms import to_uint8
from arvision.evals.generation import SampleBatch
from arvision.evals.image_sets import FACTS
from arvision.parallel import host
from arvision.runs import targets
from arvision.training import pictures
from arvision.training.writers import clock_text

# Largest number of images of a grid.
SHOWN = 100
# With an .npz, more images than this get no PNG files by default.
MANY = 1000
_QUIET = 10.0  # seconds between two log lines without a terminal


class Samples:
  """Writes grid.png, a PNG per image, and an .npz file.

  Memory does not grow with the number of images.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    classes: Sequence[str],
    labels: np.ndarray,
    png: bool,
    npz: 'Npz | None' = None,
  ):
    """Opens the files.

    Args:
      folder: output folder.
      classes: names of the classes; the grid has a row per sampled class.
      labels: (n,) int32 labels of all samples, by number.
      png: whether to write a PNG per image.
      npz: the .npz file; it is closed at the end.
    """
    self._folder = folder
    self._classes = classes
    self._png = png
    self._npz = npz
    sampled = list(dict.fromkeys(labels.tolist()))
    many = len(labels) > SHOWN
    row = max(1, SHOWN // len(sampled)) if many else len(labels)
    # The first samples of every class, in whatever order they come.
    self._rows: dict[int, dict[int, Any]] = {
      k: dict.fromkeys(np.flatnonzero(labels == k)[:row].tolist())
      for k in sampled[:SHOWN]
    }

  def add(self, batch: SampleBatch) -> None:
    """Writes the images of a call.

    Raises:
      ConfigError: the folder cannot be written.
    """
    with targets.writing(self._folder):
      self._add(to_uint8(batch.images), batch)

  def _add(self, small, batch):
    if self._npz:
      self._npz.add(small, batch.tokens)
    for i, image, label in zip(
      batch.index.tolist(), small, batch.labels.tolist()
    ):
      row = self._rows.get(label, {})
      if i in row:
        row[i] = image.copy()
      if self._png:
        plain = re.sub(r'[^\w-]+', '_', self._classes[label])[:60]
        pictures.save(self._folder / f'{i:05d}_{plain}.png', image)

  def __enter__(self) -> 'Samples':
    return self

  def __exit__(self, kind: Any, *_: Any) -> None:
    """Writes the grid and closes the files; after an error only closes them."""
    if kind is not None:
      # Closing a file fails again where writing failed.
      with contextlib.suppress(OSError, ValueError):
        if self._npz:
          self._npz.close()
      return
    with targets.writing(self._folder):
      self._grid()
      if self._npz:
        self._npz.close()

  def _grid(self):
    rows = {
      self._classes[k]: np.stack([*row.values()])
      for k, row in self._rows.items()
    }
    longest = max(len(row) for row in rows.values())
    # The images of a single class form a square.
    columns = longest if len(rows) > 1 else None
    pictures.save(self._folder / 'grid.png', pictures.sheet(rows, columns))


def shuffled(seed: int, count: int) -> np.ndarray:
  """The order of the samples in an .npz file, (n,).

  The Inception score is a mean over blocks of the file. In blocks that are
  sorted by class it is too low.
  """
  return np.random.default_rng(seed).permutation(count)


class Npz:
  """Streams an .npz file of samples.

  It holds arr_0 (n, H, W, C) uint8, which is all that the ADM evaluator reads;
  `labels` (n,) and `tokens`, in the same order; `order` (n,), the number of
  every sample; and `facts`, JSON as text.
  """

  def __init__(
    self,
    path: pathlib.Path,
    labels: np.ndarray,
    order: np.ndarray,
    facts: Mapping[str, Any],
    scratch: pathlib.Path,
  ):
    """Opens the file.

    Args:
      path: the file.
      labels: (n,) int32 labels of all samples, by number.
      order: (n,) numbers of the samples, in the order in which they come.
      facts: what is known about the images, JSON values.
      scratch: a file that is removed at the end.
    """
    self._count = len(order)
    self._others = {
      'labels': labels[order],
      'order': order,
      FACTS: np.array(json.dumps(facts)),
    }
    self._zip = zipfile.ZipFile(path, 'w')
    self._scratch = scratch
    self._tokens: Any = None
    self._images: Any = None
    self._like: Any = None

  def add(self, images: np.ndarray, tokens: np.ndarray) -> None:
    """Appends images (b, H, W, C) uint8 and their tokens (b, ...)."""
    if self._images is None:
      self._images = self._entry('arr_0', images, rows=True)
      # A zip is written one entry after another.
      self._tokens, self._like = self._scratch.open('w+b'), tokens[:0]
    self._images.write(np.ascontiguousarray(images).data)
    self._tokens.write(np.ascontiguousarray(tokens).data)

  def close(self) -> None:
    """Writes the other arrays and closes the file."""
    with contextlib.ExitStack() as stack:
      stack.callback(self._zip.close)
      if self._images is None:
        return
      stack.callback(self._scratch.unlink)
      stack.enter_context(self._tokens)
      self._images.close()
      for name, array in self._others.items():
        with self._entry(name, array) as entry:
          entry.write(array.tobytes())
      self._tokens.seek(0)
      with self._entry('tokens', self._like, rows=True) as entry:
        shutil.copyfileobj(self._tokens, entry, 1 << 20)

  def _entry(self, name, like, rows=False):
    """Opens the entry of an array; `rows`: `like` has only some rows of it."""
    entry = self._zip.open(f'{name}.npy', 'w', force_zip64=True)
    shape = (self._count, *like.shape[1:]) if rows else like.shape
    header = {
      'descr': np.lib.format.dtype_to_descr(like.dtype),
      'fortran_order': False,
      'shape': shape,
    }
    np.lib.format.write_array_header_1_0(entry, header)
    return entry


def with_progress(
  batches: Iterable[SampleBatch], total: int
) -> Iterator[SampleBatch]:
  """Yields the same batches, with a progress bar or log lines.

  Args:
    batches: samples of a generator.
    total: number of all images.
  """
  first_process = jax.process_index() == 0
  bar = tqdm.tqdm(
    total=total,
    unit='image',
    disable=None if first_process else True,
    dynamic_ncols=True,
    leave=False,
  )
  done, start, reported = 0, 0.0, time.perf_counter()
  with contextlib.closing(bar):
    for batch in batches:
      yield batch
      bar.update(len(batch.labels))
      now = time.perf_counter()
      if not done:  # the first call compiled
        first, start = len(batch.labels), now
      done += len(batch.labels)
      if bar.disable and now - reported > _QUIET and first < done < total:
        reported, speed = now, (done - first) / (now - start)
        host.say(
          f'{done:,} of {total:,} images, {speed:.3g} images/s, '
          f'{clock_text((total - done) / speed)} left'
        )
