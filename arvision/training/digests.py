"""Digests of the files of a checkpoint, which detect damaged files."""

import concurrent.futures
import json
import pathlib
import zlib
from typing import Any

import orbax.checkpoint as ocp

FILE = 'digests.json'
# Orbax rewrites it after everything else.
_LATER = '_CHECKPOINT_METADATA'

_CHUNK = 1 << 22
_THREADS = 4


def write(folder: pathlib.Path) -> None:
  """Writes `digests.json`: path -> [bytes, CRC-32] of the files in a folder."""
  files = sorted(p for p in folder.rglob('*') if p.is_file())
  files = [p for p in files if p.name != _LATER]
  names = [p.relative_to(folder).as_posix() for p in files]
  listed = dict(zip(names, _in_threads(_digest, files)))
  (folder / FILE).write_text(json.dumps(listed))


def check(folder: pathlib.Path, index: int = 0, count: int = 1) -> None:
  """Compares the files of a folder with its `digests.json`.

  A folder without the file comes from an older version and passes.

  Args:
    folder: folder of the files.
    index, count: index of this process, and number of processes that share the
      work.

  Raises:
    ValueError, OSError: a file has changed, or is missing.
  """
  path = folder / FILE
  if not path.exists():
    return
  listed = json.loads(path.read_bytes())
  if not isinstance(listed, dict):
    raise ValueError(f'{FILE} is not a list of files')
  share = sorted(listed)[index::count]
  found = _in_threads(_digest, [folder / name for name in share])
  for name, digest in zip(share, found):
    if digest != listed[name]:
      raise ValueError(f'{folder.name}/{name} is not as it was written')


def _in_threads(function, values):
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    return list(pool.map(function, values))


def _digest(path):
  crc, size = 0, 0
  with path.open('rb') as file:
    while chunk := file.read(_CHUNK):
      crc, size = zlib.crc32(chunk, crc), size + len(chunk)
  return [size, crc]


class _Digested:
  """Writes digests after all files, before Orbax commits the checkpoint."""

  def finalize(self, directory: Any) -> None:
    super().finalize(directory)  # type: ignore[misc]
    write(pathlib.Path(directory))


class Arrays(_Digested, ocp.PyTreeCheckpointHandler):
  """Orbax's handler of a tree of arrays, with digests."""


class Json(_Digested, ocp.JsonCheckpointHandler):
  """Orbax's handler of JSON values, with digests."""


# Orbax finds a handler by the class of the arguments.
@ocp.args.register_with_handler(Arrays, for_save=True)
class SaveArrays(ocp.args.PyTreeSave):
  """As `PyTreeSave`."""


@ocp.args.register_with_handler(Arrays, for_restore=True)
class RestoreArrays(ocp.args.PyTreeRestore):
  """As `PyTreeRestore`."""


@ocp.args.register_with_handler(Json, for_save=True)
class SaveJson(ocp.args.JsonSave):
  """As `JsonSave`."""


@ocp.args.register_with_handler(Json, for_restore=True)
class RestoreJson(ocp.args.JsonRestore):
  """As `JsonRestore`."""
