"""The configs that are installed: their names, their papers, what they say."""

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from arvision.build import did_you_mean
from arvision.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Entry:
  """A config, as its docstring describes it.

  Attributes:
    name: 'var/imagenet256'.
    variants: what may follow the name after a colon; () for none.
    title: the first sentence.
    command: that trains it.
    cost: time and hardware, '' where nobody measured them.
    figures: published ones, '' for none.
    deviations: from the paper, '' for none.
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
    """The name of its folder."""
    return self.name.split('/')[0]


def root() -> pathlib.Path:
  """The folder that the configs are in."""
  spec = importlib.util.find_spec('arvision.configs')
  assert spec is not None and spec.submodule_search_locations
  return pathlib.Path(next(iter(spec.submodule_search_locations)))


def names() -> list[str]:
  """'var/digits', ...: what --config takes, without the fragments beside them."""
  folder = root()
  return [
    str(p.relative_to(folder).with_suffix(''))
    for p in sorted(folder.glob('*/*.py'))
    if '\ndef get_config(' in p.read_text(encoding='utf-8')
  ]


def find(name: str) -> pathlib.Path:
  """The file of a config.

  Args:
    name: a path, or a name with or without 'configs/' and '.py'.

  Raises:
    ConfigError: with the nearest configs.
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
  """ " Did you mean ...?" with the configs that hold the words of a name.

  Words count in any order, in the name of a config, and half in its text, so that
  'digits/kl' finds 'mar/digits_tokenizer'.
  """
  folder, wanted = root(), _words(name)

  def score(config):
    named = _words(config)
    text = _words((folder / f'{config}.py').read_text(encoding='utf-8'))
    return len(wanted & named) + len(wanted & text - named) / 2

  scores = {config: score(config) for config in names()}
  best = max(scores.values())
  if best > len(wanted) / 2:
    found = [f"'{config}'" for config, s in scores.items() if s == best]
    return f' Did you mean {" or ".join(found[:most])}?'
  return did_you_mean(name, scores, most=most)


def _words(text):
  """Those of paths and of names like 'UnitLookup', in small letters."""
  return {word.lower() for word in re.findall('[A-Z]?[a-z0-9]+|[A-Z]+', text)}


def entries() -> list[Entry]:
  """All configs."""
  return [_entry(name) for name in names()]


def papers() -> dict[str, Mapping[str, Any]]:
  """Folder -> its PAPER: name, title, source, group, repository, status."""
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
  """'Word: this.' or 'Word of it: this.' -> 'this', to the end of its paragraph."""
  end = r'\n\n|\Z|\s(?=(?:Source|Deviations): )'
  found = re.search(rf'\b{word}[^:.]*: (.*?)(?:{end})', text, re.DOTALL)
  return ' '.join(found[1].split()).rstrip('.') if found else ''
