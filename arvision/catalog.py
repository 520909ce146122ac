"""The catalog of installed configs: names, papers and descriptions."""

import collections
import dataclasses
import functools
import importlib
import importlib.util
import inspect
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from arvision.errors import ConfigError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Entry:
  """A config with the facts in its docstring.

  Attributes:
    name: 'var/imagenet256'.
    variants: arguments after a colon; () for none.
    title: first line of the docstring.
    command: training command.
    cost: measured time and hardware, '' for none.
    figures: published figures, '' for none.
    deviations: deviations from the paper, '' for none.
  """

  name: str
  variants: tuple[str, ...]
  title: str
  command: str
  cost: str
  figures: str
  deviations: str

  @property
  def paper(self) -> str:
    """Name of its folder."""
    return self.name.split('/')[0]


def root() -> pathlib.Path:
  """The folder of the configs."""
  spec = importlib.util.find_spec('arvision.configs')
  assert spec is not None and spec.submodule_search_locations
  return pathlib.Path(next(iter(spec.submodule_search_locations)))


def names() -> list[str]:
  """Names of all configs for --config, without modules of shared parts."""
  folder = root()
  return [
    str(p.relative_to(folder).with_suffix(''))
    for p in sorted(folder.glob('*/*.py'))
    if '\ndef get_config(' in p.read_text(encoding='utf-8')
  ]


def find(name: str) -> pathlib.Path:
  """Finds the file of a config.

  Args:
    name: a path, or a name with or without 'configs/' and '.py'.

  Raises:
    ConfigError: no such config; names the most similar ones.
  """
  path = pathlib.Path(name)
  if path.is_file():
    return path
  short = name.removeprefix('configs/').removesuffix('.py')
  if (root() / f'{short}.py').is_file():
    return root() / f'{short}.py'
  raise ConfigError(
    f"--config='{name}': no such file, and no config of that name."
    f'{_near(short)} arvision configs lists all'
  )


def _near(name, most=6):
  """ " Did you mean ...?" with the configs that contain the words of a name.

  A word in the name of a config scores 1, a word in its text 1/2, so that
  'digits/kl' finds 'mar/digits_tokenizer'. Of equals, those with the rarest word
  come first, then those of about the same length.
  """
  folder, wanted = root(), _words(name)

  def score(config):
    named = _words(config)
    text = _words((folder / f'{config}.py').read_text(encoding='utf-8'))
    return len(wanted & named) + len(wanted & text - named) / 2

  scores = {config: score(config) for config in names()}
  best = max(scores.values())
  if best > len(wanted) / 2:
    found = [config for config, s in scores.items() if s == best]
    often = collections.Counter(word for c in scores for word in _words(c))

    def place(config):
      rarest = min(
        (often[w] for w in wanted & _words(config)), default=len(often)
      )
      return rarest, abs(len(config) - len(name))

    found.sort(key=place)
    return f' Did you mean {" or ".join(map(repr, found[:most]))}?'
  return did_you_mean(name, scores, most=most)


def _words(text):
  """The words of a path or a name like 'UnitLookup', in lower case."""
  return {word.lower() for word in re.findall('[A-Z]?[a-z0-9]+|[A-Z]+', text)}


def entries() -> list[Entry]:
  """The entries of all configs."""
  return [_entry(name) for name in names()]


def papers() -> dict[str, Mapping[str, Any]]:
  """PAPER of every folder: name, title, source, group, repository, status."""
  folders = sorted(p.parent.name for p in root().glob('*/__init__.py'))
  found = {name: _module(name) for name in folders}
  return {
    name: module.PAPER
    for name, module in found.items()
    if hasattr(module, 'PAPER')
  }


def _module(path):
  return importlib.import_module(f'arvision.configs.{path.replace("/", ".")}')


@functools.cache
def _entry(name):
  module = _module(name)
  text = inspect.cleandoc(module.__doc__ or '')
  commands = re.sub(r'\\\n\s*', '', text).splitlines()
  own = re.compile(rf'\s*arvision train --config=(configs/)?{name}[.: ]')
  return Entry(
    name,
    tuple(size for size in getattr(module, 'SIZES', ()) if size),
    text.split('\n')[0],
    next((line.strip() for line in commands if own.match(line + ' ')), ''),
    _said('Cost', text),
    _said('Published', text),
    _said('Deviations', text),
  )


def _said(word, text):
  """The rest of the paragraph after 'Word: ' or 'Word of it: '."""
  end = r'\n\n|\Z|\s(?=(?:Source|Deviations): )'
  found = re.search(rf'\b{word}[^:.]*: (.*?)(?:{end})', text, re.DOTALL)
  return ' '.join(found[1].split()).rstrip('.') if found else ''
