"""Files of the Hugging Face hub, by name."""

import functools
import hashlib
import importlib
import os
import pathlib
import re
from typing import Any

from absl import logging

from arvision.errors import ConfigError, DataError

PREFIX = 'hf:'
_PART = r'[A-Za-z0-9_][\w.-]*'
_NAME = re.compile(
  rf'hf:({_PART}/{_PART})/({_PART}(?:/{_PART})*)(?:@([\w./-]+))?', re.ASCII
)


def is_name(path: str | os.PathLike) -> bool:
  """Whether a path is the name of a file on the hub."""
  return os.fspath(path).startswith(PREFIX)


def local(path: str | os.PathLike) -> pathlib.Path:
  """A path; of a file on the hub, that of its copy on this machine.

  Args:
    path: a path, or 'hf:owner/name/file' with or without '@revision': a branch,
      a tag or a commit. The copy is kept in the cache of `huggingface_hub`.

  Raises:
    ConfigError: no such kind of name, or `huggingface_hub` is missing.
    DataError: it cannot be downloaded.
  """
  if not is_name(path):
    return pathlib.Path(path)
  return _fetched(os.fspath(path))[0]


def describe(path: str | os.PathLike) -> str:
  """A line about a file on the hub: bytes, digest and commit; see `local`."""
  return _fetched(os.fspath(path))[1]


@functools.cache
def _fetched(name: str) -> tuple[pathlib.Path, str]:
  found = _NAME.fullmatch(name)
  if not found:
    raise ConfigError(
      f"'{name}': wanted hf:owner/name/file or hf:owner/name/file@revision"
    )
  repository, file, revision = found.groups()
  hub = _package()
  try:
    path = hub.hf_hub_download(repository, file, revision=revision)
  except Exception as error:  # of this package and of its HTTP library
    text = ' '.join(str(error).split())[:300]
    raise DataError(
      f"'{name}' cannot be downloaded ({type(error).__name__}: {text})"
    ) from error
  path = pathlib.Path(path)
  with path.open('rb') as data:
    digest = hashlib.file_digest(data, 'sha256').hexdigest()
  # .../snapshots/<commit>/<file>
  commit = path.parents[file.count('/')].name
  line = (
    f'{name}: {path.stat().st_size:,} bytes, sha256 {digest}, commit {commit}'
  )
  logging.info('%s', line)
  return path, line


def _package() -> Any:
  try:
    return importlib.import_module('huggingface_hub')
  except ModuleNotFoundError as error:
    raise ConfigError(
      f'files of the Hugging Face hub need the package {error.name}: '
      "pip install 'arvision[hub]'"
    ) from error
