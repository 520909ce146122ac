"""What sources of several large files share."""

import fnmatch
import pathlib
from collections.abc import Sequence

from arvision.data import files
from arvision.data.files import shown
from arvision.errors import DataError


def listing(path: str, pattern: str) -> list[pathlib.Path]:
  """The shards of a data set, sorted by their path below its folder.

  Args:
    path: a file, or a folder.
    pattern: their names below the folder, such as 'train-*.parquet'; '*' stands
      for '/' too.

  Raises:
    DataError: no such file or folder, or no shard in it.
  """
  if not path:
    raise DataError(
      f'config.data.source.path is empty; set it to a folder of {pattern}'
    )
  root = pathlib.Path(path)
  if root.is_file():
    return [root]
  if not root.is_dir():
    raise DataError(
      f'{shown(root)}: no such file or folder; set config.data.source.path to '
      f'a folder of {pattern}'
    )
  try:
    names, _ = files.search(root, lambda name: True)
  except OSError as error:
    raise DataError(f'{shown(root)}: cannot be read ({error})') from error
  found = [root / name for name in names if fnmatch.fnmatchcase(name, pattern)]
  if not found:
    raise DataError(
      f'{shown(root)}: no file {pattern} (config.data.source.files)'
    )
  return found


def relative(path: str, file: pathlib.Path) -> str:
  """The name of a shard: its path below the folder of the data set."""
  root = pathlib.Path(path)
  return shown(file.name if file == root else file.relative_to(root))


def class_names(
  given: Sequence[str], stored: Sequence[str], largest: int, name: str
) -> tuple[str, ...]:
  """Names of the classes of a source with numbers as labels.

  Args:
    given: those of the config, () for none.
    stored: those of the files, () for none.
    largest: largest label; -1 without labels.
    name: name of the only class of a source without labels.

  Raises:
    DataError: a label without a name.
  """
  names = tuple(given) or tuple(stored)
  if largest < 0:
    return names[:1] or (name,)
  if not names and largest > 10**6:
    raise DataError(
      f'label {largest}, wanted numbers of classes; set config.data.source.label '
      "to another column, or to '' for one class"
    )
  if names and largest >= len(names):
    raise DataError(
      f'label {largest}, but config.data.source.class_names or the files name '
      f'{len(names)} classes'
    )
  return names or tuple(map(str, range(largest + 1)))
