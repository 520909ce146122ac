"""Weights of networks that are never trained here, with the keys of torch."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from arvision.errors import DataError
from arvision.importers import files
from arvision.importers.table import (
  Grids,
  Row,
  Shape,
  Weights,
  paths,
  to_params,
)


@dataclasses.dataclass
class Frozen:
  """The table of a network, see `table.Table`.

  Attributes:
    name: of the network.
    make: makes its rows.
    unused: beginnings of keys that a file may hold besides.
    wrapping, hints: see `table.Table`.
  """

  name: str
  make: Callable[[Mapping[str, Shape]], Iterator[Row]]
  unused: tuple[str, ...] = ()
  wrapping: str = ''
  hints: tuple[tuple[str, str], ...] = ()

  def rows(self, ours: Mapping[str, Shape]) -> list[Row]:
    return [*self.make(ours)]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    del weights, grids
    return {}

  def derived(self, key: str) -> bool:
    return key.startswith(self.unused)

  def read(self, path: str | os.PathLike, shapes: Any) -> Any:
    """Reads a file of the network.

    Args:
      path: the file.
      shapes: tree of our parameters.

    Returns:
      a tree like `shapes`, float32 numpy arrays.

    Raises:
      DataError: no such file, a damaged one, or one of another network.
    """
    content, ours = files.read(path), paths(shapes)
    wanted = [k for row in self.rows(ours) for k in row.keys(ours[row.path])]
    try:
      return to_params(self, files.find_weights(content, wanted)[1], shapes)
    except DataError as error:
      raise DataError(f"'{path}': {error}") from error
