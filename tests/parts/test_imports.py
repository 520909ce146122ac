"""Who may import whom, read from the syntax tree; and that all imports work."""

import ast
import importlib
import pathlib
import pkgutil

import pytest

import arvision

ROOT = pathlib.Path(arvision.__file__).parent
CONFIGS = ROOT.parent / 'configs'

_PARTS = ('structs', 'random', 'layouts', 'kernels', 'layers', 'process')
_ROOMS = ('quantizers', 'tokenizers', 'feeds', 'backbones', 'heads')
_BEFORE_TASKS = (*_PARTS, *_ROOMS, 'samplers', 'metrics', 'model', 'parallel')
# A room may import the rooms named here, and itself; these are open to all:
_OPEN = ('atomic', 'build', 'errors', 'ranges')
ALLOWED = {
  'structs': (),
  'random': (),
  'errors': (),
  'atomic': (),
  'leader': (),
  'metrics': (),
  'build': (),
  'ranges': (),
  'catalog': (),
  'trust': (),
  'parallel': (),
  'layouts': ('structs',),
  'kernels': ('layouts', 'parallel'),
  'layers': ('structs', 'random', 'layouts', 'kernels', 'parallel'),
  'process': ('structs', 'random', 'layouts', 'layers'),
  'quantizers': (*_PARTS, 'metrics'),
  'tokenizers': (*_PARTS, 'quantizers', 'parallel'),
  'feeds': _PARTS,
  'backbones': (*_PARTS, 'parallel'),
  'heads': (*_PARTS, 'metrics', 'parallel'),
  'samplers': (*_PARTS, *_ROOMS),
  'model': (*_PARTS, *_ROOMS, 'samplers', 'metrics', 'parallel'),
  'data': ('structs', 'parallel'),
  # Networks of losses and of features read their weights from files.
  'tasks': (*_BEFORE_TASKS, 'data', 'importers'),
  'evals': (*_BEFORE_TASKS, 'data', 'tasks', 'importers'),
  'importers': ('data', 'structs', 'process'),
  'training': (*_BEFORE_TASKS, 'data', 'tasks', 'trust'),
  'runs': (
    *_BEFORE_TASKS,
    'data',
    'tasks',
    'evals',
    'importers',
    'training',
    'trust',
    'leader',
  ),
  'sweeps': ('data', 'evals', 'runs', 'training', 'leader'),
  'plan': (*_BEFORE_TASKS, 'tasks', 'training', 'runs'),
  'commands': (
    'catalog',
    'leader',
    *_BEFORE_TASKS,
    'plan',
    'data',
    'tasks',
    'evals',
    'importers',
    'training',
    'runs',
    'sweeps',
    'trust',
  ),
  '__init__': (),
  '__main__': ('commands',),
}

FILES = sorted(ROOT.rglob('*.py'))


def imported(tree):
  """Dotted names of everything that a module imports."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, 'relative import'
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def room(name):
  return name.split('.')[1] if '.' in name else ''


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_import_what_they_may(path):
  here = path.relative_to(ROOT).with_suffix('').parts[0]
  allowed = {*ALLOWED[here], here, *_OPEN}
  tree = ast.parse(path.read_text())
  rooms = {
    room(name) for name in imported(tree) if name.split('.')[0] == 'arvision'
  }
  assert rooms <= allowed | {''}, f'{here} imports {rooms - allowed}'


@pytest.mark.parametrize(
  'path', sorted(CONFIGS.rglob('*.py')), ids=lambda p: p.stem
)
def test_configs_load_without_jax(path):
  names = set(imported(ast.parse(path.read_text())))
  outside = {
    name
    for name in names
    if not name.startswith(('ml_collections', 'arvision.configs', 'math'))
  }
  assert not outside


@pytest.mark.parametrize(
  'name',
  [
    m.name
    for m in pkgutil.walk_packages(arvision.__path__, 'arvision.')
    if not m.name.endswith('__main__')
  ],
)
def test_every_module_imports(name):
  importlib.import_module(name)


def test_the_package_itself_imports_nothing():
  assert not list(imported(ast.parse((ROOT / '__init__.py').read_text())))


# What the name of a draw begins with, for every room that draws.
_DRAWS = {
  'evals': {'evals'},
  'model.py': {'condition'},
  'tasks': {'task'},
  # A quantiser draws for its tokenizer.
  'quantizers': {'tokenizer'},
  'tokenizers': {'tokenizer'},
  'feeds': {'feed'},
  'heads': {'head'},
  'samplers': {'sampler'},
  # Arithmetic draws for the parts that use it.
  'process': {'head', 'sampler', 'solver'},
}
_DRAWING = (
  'normal',
  'uniform',
  'exponential',
  'categorical',
  'permutation',
  'key',
)


@pytest.mark.parametrize('path', FILES, ids=str)
def test_names_of_draws_begin_with_the_part_that_draws(path):
  """So no feed and no head can draw the same numbers in one step."""
  room = path.relative_to(ROOT).parts[0]
  for node in ast.walk(ast.parse(path.read_text())):
    if not isinstance(node, ast.Call):
      continue
    function = node.func
    drawn = isinstance(function, ast.Attribute) and function.attr in _DRAWING
    if not drawn or not node.args or room == 'structs.py':
      continue
    name = node.args[0]
    if isinstance(name, ast.Constant) and isinstance(name.value, str):
      assert name.value.split('/')[0] in _DRAWS[room], name.value
