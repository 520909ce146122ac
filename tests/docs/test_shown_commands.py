"""Commands, files and pictures that README, docs and configs show exist."""

import builtins
import importlib
import pathlib
import re
import shlex
import symtable

import pytest

from arvision.commands import common, main

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [*ROOT.glob('*.md'), *ROOT.glob('docs/*.md')]
HELPS = [*ROOT.glob('arvision/commands/*.py')]
CONFIGS = [p for p in ROOT.glob('configs/*/*.py') if p.stem != '__init__']


def shown(path):
  """Lines of shell code; those that end in a backslash are one."""
  text = path.read_text(encoding='utf-8')
  if path.suffix == '.md':
    text = '\n'.join(re.findall(r'```bash\n(.*?)```', text, re.DOTALL))
  lines = re.sub(r'\\+\n\s*', ' ', text).splitlines()
  return [re.split(r' #| \| ', line)[0].strip() for line in lines]


COMMANDS = sorted(
  {
    line
    for path in [*PAGES, *CONFIGS, *HELPS]
    # Followed as a whole by tests/endtoend/test_add_a_paper.py.
    if path.name != 'add_a_paper.md'
    for line in shown(path)
    if line.startswith('arvision ')
  }
)


def test_something_is_shown():
  assert len(COMMANDS) > 20


@pytest.mark.parametrize('line', COMMANDS)
def test_commands_are_understood(line):
  _, name, *words = shlex.split(line)
  assert name in main.commands()
  module = importlib.import_module(f'arvision.commands.{name}')
  flags, overrides = common.parse(module.parser(), words)
  if getattr(flags, 'config', None):
    common.load_config(flags.config, overrides)


@pytest.mark.parametrize('path', PAGES, ids=lambda p: p.name)
def test_named_files_exist(path):
  text = path.read_text(encoding='utf-8')
  names = [
    *re.findall(r'\]\((?!http)([^)#]+)\)', text),
    *re.findall(r'src="(?!http)([^"]+)"', text),
  ]
  names = [path.parent / name for name in names]
  names += [
    ROOT / name
    for name in re.findall(r'\b((?:launch|benchmarks|tests)/[\w/.]+\w)', text)
  ]
  assert [str(name) for name in names if not name.exists()] == []


SNIPPETS = [
  code
  for path in PAGES
  for code in re.findall(
    r'```python\n(.*?)```', path.read_text(encoding='utf-8'), re.DOTALL
  )
]


@pytest.mark.parametrize('code', SNIPPETS)
def test_snippets_use_names_that_they_define(code):
  names = symtable.symtable(code, 'snippet', 'exec').get_symbols()
  missing = [
    name.get_name()
    for name in names
    if name.is_referenced() and not (name.is_assigned() or name.is_imported())
  ]
  assert SNIPPETS and not [n for n in missing if not hasattr(builtins, n)]
