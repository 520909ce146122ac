"""Errors that a user can fix, and words for their messages."""

import difflib
import traceback


class ConfigError(ValueError):
  """An invalid config or flag; the message names what to change."""


class DataError(ValueError):
  """Unusable data; the message names the file and what to change."""


def suggest(name: str, names) -> str:
  """' Did you mean x?' where a name is close, and the list of valid names."""
  names = sorted(map(str, names))
  return f'{did_you_mean(name, names)} There are: {", ".join(names)}.'


def did_you_mean(name: str, names, most: int = 1) -> str:
  """ " Did you mean 'x'?" with the closest names, '' without any."""
  near = difflib.get_close_matches(str(name), sorted(names), n=most)
  quoted = ' or '.join(f"'{x}'" for x in near)
  return f' Did you mean {quoted}?' if near else ''


def broken(name: str, error: BaseException) -> str:
  """'mylab.heads cannot be imported (heads.py, line 3: NameError: ...)'."""
  frames = traceback.extract_tb(error.__traceback__)
  where = f'{frames[-1].filename}, line {frames[-1].lineno}: ' if frames else ''
  text = ' '.join(str(error).split())
  return f'{name} cannot be imported ({where}{type(error).__name__}: {text})'
