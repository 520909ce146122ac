"""Command lines with URLs of runs: they work on local copies, see `remote`."""

import contextlib
import json
import os
import sys
from collections.abc import Iterable
from typing import Any

from arvision.data import urls
from arvision.errors import ConfigError
from arvision.runs import remote

_FOLDERS = ('--workdir', '--init_from', '--resume_from')
# Commands whose --output is a folder, and those where it is a file.
_OUTPUT = ('compare', 'encode', 'report', 'scaling')
_FILE = ('eval', 'export', 'reference')
# Local copy -> its URL.
_copies: dict[str, str] = {}
# Holds them for processes that a command starts (`--max_restarts`).
COPIES = 'ARVISIONCOPIES'


def local_words(
  words: Iterable[str], stack: contextlib.ExitStack, command: str
) -> list[str]:
  """A command line with local copies for the URLs of runs.

  What the command prints names the URLs.

  Args:
    words: flags of a command.
    stack: keeps the copies until the command ends.
    command: its name; `train` trains in --workdir.

  Raises:
    ConfigError: a URL where a file is written; see also `remote.Mirror`.
    DataError: see `remote.Mirror`.
  """
  found: list[str] = []
  copies: dict[str, str] = {}
  with contextlib.suppress(ValueError):
    _copies.update(json.loads(os.environ.get(COPIES, '{}')))
  stack.enter_context(contextlib.redirect_stdout(_Named(sys.stdout)))
  stack.enter_context(contextlib.redirect_stderr(_Named(sys.stderr)))
  waiting = ''  # the flag before a value of its own word
  for word in words:
    name, equals, value = waiting, '', word
    if word.startswith('--'):
      name, equals, value = word.partition('=')
    waiting = name if word.startswith('--') and not equals else ''
    if urls.URL.fullmatch(value) and _is_folder(name, value, command):
      if value not in copies:
        own = command == 'train' and name == '--workdir'
        copies[value] = stack.enter_context(remote.mirrored(value, own))
        _copies[copies[value]] = value
      word = f'{name}={copies[value]}' if equals else copies[value]
    found.append(word)
  if copies:
    os.environ[COPIES] = json.dumps(_copies)
  return found


def _is_folder(name, value, command):
  if name == '--output' and command in _FILE:
    raise ConfigError(
      f"--output='{value}': wanted a file of this machine, got a URL"
    )
  return (
    name in _FOLDERS
    or name.startswith('--config.frozen.')
    or name == '--output'
    and command in _OUTPUT
    or not name
    and command == 'compare'
  )


def with_urls(text: str) -> str:
  """A text that names URLs instead of their local copies."""
  for folder, url in _copies.items():
    text = text.replace(folder, url.rstrip('/'))
  return text


class _Named:
  """A text stream, written to by `with_urls`."""

  def __init__(self, stream: Any):
    self._stream = stream

  def __getattr__(self, name):
    return getattr(self._stream, name)

  def write(self, text: str) -> int:
    """Writes a text, and returns its length."""
    self._stream.write(with_urls(text))
    return len(text)
