"""Command lines that are wrong in some place, and a process that bears them.

Nothing is trained or drawn: `train` runs up to the trace of its first step, and
the other commands up to the first program that they would compile.
"""

import argparse
import contextlib
import functools
import importlib
import io
import pathlib

import flax.linen as nn
import jax
import numpy as np
from hypothesis import strategies as st

from arvision import catalog
from arvision.build import value
from arvision.commands import main, run_flags
from arvision.parallel import host
from arvision.parallel.mesh import make_mesh
from arvision.plan import topology
from arvision.runs import memory
from arvision.runs.trained import load_run, placed
from arvision.tasks import assemble
from arvision.training import evaluate, frozen, start
from arvision.training.weights import Weights
from tests.configs import ALL, TINY, TOKENIZERS, is_published, module
from tests.laws.structure import structure, tiny_of

# Those of the laws, and all tokenizers of data that are at hand or of papers.
NAMES = sorted(TINY) + sorted(
  name
  for name in TOKENIZERS
  if is_published(name) or module(name).startswith(('digits', 'tiny'))
)
RUNS = {'tokenizer': 'llamagen/tiny_tokenizer', 'generator': 'llamagen/tiny:B'}

TYPICAL = ('1', '2', '3', '4', '8', '0.1', '0.5', '0.9', 'true', 'false')
EDGES = ('0', '-1', '', 'none', '1.0', '1e-30', '-0.5', '()', '0.999999', '1,2')
HOSTILE = (
  *('nan', 'inf', '-inf', '1e400', '1e-46', '-0.0', '0x10', '1_000', ' 3 '),
  *('10' * 6, str(2**31), str(2**32), str(2**63), '9' * 5000),
  *('x', 'None', '[', '(' * 300, '{}', "{'type': 'nowhere.X'}", '(1, 2, 3)'),
  *("('a', 1)", 'lambda: 1', 'a' * 5000, 'é', '\udcff', 'a\nb', 'a\0b'),
  *('/dev/null', '/dev/null/x', '../..', '/proc/self/mem', '.', '~', '--', '='),
)
TYPES = (
  *(
    'process.logits.LogitsFilter',
    'layers.norm.LayerNorm',
    'layouts.grid.raster',
  ),
  *('heads.categorical.Categorical', 'builtins.int', 'collections.OrderedDict'),
  *(
    'nowhere.Nothing',
    'os',
    'layouts.grid',
    'random.Draw',
    'json.dumps',
    '..',
  ),
)
FLAGS = {
  '--diff': (*NAMES, 'digits', 'OUT/file'),
  '--config': (*NAMES, 'digits', 'var/digits:x', 'configs', __file__),
  '--mesh': ('data=-1', 'data=0', 'data=2', 'fsdp=-1,data=-1', f'data={2**70}'),
  '--labels': ('all', '3', '-1', '10', '3,x', ',', '0,' * 50),
  '--name': ('a', '../a', '.', 'a' * 300, 'a/b'),
  '--box': (
    '0,0,1,1',
    '0,0,0,0',
    'nan,0,1,1',
    '0.9,0.9,1,1',
    '1,2,3',
    'inf,0,1,1',
  ),
  '--ema': ('raw', '0.99', '1', 'fast'),
  '--topology': (
    'v5e:4x4',
    'v5e:0x4',
    'v9:4',
    f'v5e:{10**12}x4',
    'v5e',
    'v5e:4x',
  ),
  '--which': ('generation', 'reconstruction', 'x', ','),
  '--output': ('OUT/a.safetensors', 'OUT/a.pth', 'OUT/new', 'OUT', '/proc/x'),
}


class Reached(BaseException):
  """The command came to its first program; `main` does not catch it."""


# ------------------------------------------------------------- the strategies


@functools.cache
def small(name):
  """A config as the tests can afford it: of papers, their tiny one's parts."""
  config = ALL[name]()
  if not is_published(name):
    return config
  wanted = structure(config)
  makers = (ALL[n] for n in tiny_of(name))
  tiny = next(c for c in (make() for make in makers) if structure(c) == wanted)
  with tiny.unlocked():
    tiny.update(task=config.task, optim=config.optim)
  return tiny


@functools.cache
def leaves(name):
  """'key.of.block' -> value of all fields of a config."""

  def walk(value, path):
    if hasattr(value, 'items') and len(value):
      return {
        k: v for n, b in value.items() for k, v in walk(b, [*path, n]).items()
      }
    return {'.'.join(path): value}

  return walk(small(name), [])


@functools.cache
def options(command):
  """The flags of a command, but those of the config's keys."""
  parser = importlib.import_module(f'arvision.commands.{command}').parser()
  return [
    action
    for action in parser._actions
    if action.option_strings
    and not isinstance(action, argparse._HelpAction)
    and action.option_strings[-1]
    not in ('--config.KEY', '--debug', '--workdir')
  ]


def _values(*own):
  pools = [st.sampled_from(pool) for pool in (TYPICAL, EDGES, HOSTILE, HOSTILE)]
  return st.one_of(*pools, *(st.sampled_from(pool) for pool in own if pool))


@st.composite
def overrides(draw, name):
  """'--config.key=value', and at times a key that is not there."""
  key = draw(st.sampled_from(sorted(leaves(name))))
  value = leaves(name)[key]
  if key.endswith('type'):
    text = draw(_values(TYPES, TYPES))
  else:
    near = (str(value), str(value).lower())
    if isinstance(value, (int, float)) and not isinstance(value, bool):
      near = tuple(str(x) for x in (value, 2 * value, -value, value + 1))
    text = draw(_values(near))
  change = draw(st.sampled_from((*['same'] * 9, 'mistyped', 'deeper', 'outer')))
  if change == 'mistyped':
    key = key[:-1] + draw(st.sampled_from(('', 'x', '.', '[0]', ' ')))
  elif change == 'deeper':
    key += draw(st.sampled_from(('.x', '.steps', '.type', '.')))
  elif change == 'outer':
    key = key.rpartition('.')[0]
  return f'--config.{key}={text}'


@st.composite
def flags(draw, command):
  """A flag of a command with some value, or one that it does not have."""
  action = draw(st.sampled_from(options(command)))
  name = action.option_strings[-1]
  if draw(st.integers(0, 15)) == 0:
    name = name[:-1]
  if action.nargs == 0:
    return [name] if draw(st.booleans()) else [f'{name}=1']
  text = draw(_values(FLAGS.get(name, ()), action.choices or ()))
  return [name, text] if draw(st.booleans()) else [f'{name}={text}']


@st.composite
def command_lines(draw, command):
  """A command with what it needs, and up to four things that may be wrong."""
  parts = []
  kind = draw(st.sampled_from(sorted(RUNS)))
  name = draw(st.sampled_from(NAMES)) if command == 'train' else RUNS[kind]
  for action in options(command):
    flag = action.option_strings[-1]
    good = {'--config': name, '--source': 'OUT/x.pth', '--topology': 'v5e:4x4'}
    if action.required and draw(st.integers(0, 15)):
      parts.append([f'{flag}={good.get(flag, "OUT/new")}'])
  where = 'OUT/new' if command in ('train', 'import') else f'RUN/{kind}'
  if draw(st.integers(0, 11)) == 0:
    where = draw(_values(('OUT', 'OUT/file', 'OUT/file/x')))
  if command == 'config':
    parts.append([draw(st.sampled_from(NAMES))])
  elif command != 'configs':
    parts.append([f'--workdir={where}'])
  # Of configs that are traced where they can be, which takes long, more is wrong.
  least, most = (1, 4) if command == 'train' else (0, 2)
  for line in draw(
    st.lists(overrides(name), min_size=least, max_size=most, unique=True)
  ):
    parts.append([line])
  if options(command):
    parts += draw(st.lists(flags(command), min_size=not least, max_size=3))
  return [command, *(word for part in parts for word in part)]


# As they may stand in a file; `math` gives the names.
VALUES = (
  *(
    '0',
    '-1',
    '1',
    '2',
    '0.5',
    '1.0',
    'nan',
    'inf',
    '10**12',
    '2**63',
    '10**400',
  ),
  *(
    'None',
    'True',
    "''",
    "'3'",
    "'x'",
    "'a\\0b'",
    '()',
    '(0,)',
    "('a', 'b')",
    '[1]',
  ),
  *('{}', "{'type': 'nowhere.X'}", "{'type': 'layers.norm.LayerNorm'}", '1j'),
  *("{'steps': 'ten'}", "{'steps': nan}", "{'epochs': -1, 'steps': 1}", "b'x'"),
  *('print', 'object()', '{1, 2}', '{3: 4}', '[[[]]]', 'Ellipsis'),
)


@st.composite
def files(draw):
  """The text of a config with some values that may be wrong, or none at all."""
  name = draw(st.sampled_from(NAMES))
  keys = st.sampled_from(sorted(leaves(name)))
  text = (
    'from math import inf, nan\nfrom tests.faults.lines import changed\n\n\n'
    f'def get_config():\n  return changed({name!r}'
  )
  for key in draw(st.lists(keys, min_size=1, max_size=3, unique=True)):
    if draw(st.integers(0, 7)) == 0:
      key = key.rpartition('.')[0] or key
    text += f', ({key!r}, {draw(st.sampled_from((*VALUES, "changed")))})'
  return f'{text})\n'


def changed(name, *pairs):
  """A config with other values under some keys; `changed` takes the key away."""
  config = small(name).copy_and_resolve_references()
  with config.unlocked():
    for key, value in pairs:
      *path, last = key.split('.')
      block = config
      for part in path:
        block = block.get(part) if hasattr(block, 'get') else None
      if not hasattr(block, 'keys') or last not in block:
        continue
      del block[last]
      if value is not changed:
        block[last] = value
  return config


# ---------------------------------------------------------------- the process


def _zeros(shapes):
  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


@functools.cache
def _codec(name):
  config = small(name)
  tokenizer = assemble.make_tokenizer(config)
  image = np.zeros((1, *config.data.size, config.data.channels), np.float32)
  return _zeros(
    nn.unbox(jax.eval_shape(tokenizer.init, jax.random.key(0), image)['params'])
  )


@functools.cache
def _run(kind):
  config = small(RUNS[kind])
  codec, kept = _codec(RUNS[kind]), {}
  params = {'tokenizer': codec}
  if kind == 'generator':
    kept = {'tokenizer': {'params': codec}}
    params = _zeros(assemble.trained_shapes(config))
  found = Weights(config, params, 7, 'raw')
  return placed(found, kept, make_mesh({'data': -1}))


def prepare(patch, folder):
  """Patches what commands call, so that they end at their first program.

  Args:
    patch: a `pytest.MonkeyPatch`.
    folder: 'OUT' in command lines is `folder`/out, 'RUN' `folder`/run.
  """
  for kind in RUNS:
    (folder / 'run' / kind).mkdir(parents=True)
    (folder / 'run' / kind / 'config.json').write_text('{"data": {}}')
  kinds = {str(folder / 'run' / kind): kind for kind in RUNS}
  find, spare = catalog.find, folder / 'spare.py'
  spare.write_text('')

  def known(path):
    """The files of all configs give the small ones."""
    file = find(path)
    short = '/'.join(file.with_suffix('').parts[-2:])
    for name in NAMES:
      if name.partition(':')[0] == short:
        stub = folder / f'{name.replace("/", "-").replace(":", "-")}.py'
        stub.write_text(
          f'from tests.faults.lines import small\n\n\n'
          f'def get_config(arg=""):\n  return small({name!r})\n'
        )
        return stub
    return file

  def load(config, workdir, *_):
    with assemble.fitting():
      size = (*config.data.size, value(config.data, 'channels'))
      return _zeros(frozen.shapes(config, size))

  def reached(*args):
    raise Reached

  def stop(self, function, **options):
    return reached

  trace_step = start.trace_step

  def trace(*args):
    trace_step(*args)
    raise Reached

  open_it = lambda workdir, *rest, **more: (
    _run(kinds[str(workdir)])
    if str(workdir) in kinds
    else load_run(workdir, *rest, **more)
  )
  patch.chdir(folder)
  patch.setattr(catalog, 'find', known)
  patch.setattr(run_flags, 'load_run', open_it)
  patch.setattr(frozen, 'load', load)
  patch.setattr(start, 'first_state', lambda o, *_: (o.abstract, 0, 'shapes,'))
  patch.setattr(start, 'trace_step', trace)
  patch.setattr(
    evaluate.HeldOut, 'check', lambda *_: {'batch': np.zeros((1, 8, 8, 1))}
  )
  patch.setattr(host.Placement, 'jit', stop)
  patch.setattr(memory.Rows, '__call__', reached)
  patch.setattr(memory.Rows, 'fit', reached)
  patch.setattr(topology.importlib.util, 'find_spec', _without_libtpu)


_find_spec = importlib.util.find_spec


def _without_libtpu(name, package=None):
  return None if name == 'libtpu' else _find_spec(name, package)


def run(argv, folder):
  """Runs a command line here.

  Returns:
    the exit code, None where it came to its first program; and the lines of
    stderr that are errors or tracebacks.
  """
  argv = [
    word.replace('OUT', str(folder / 'out')).replace('RUN', str(folder / 'run'))
    for word in argv
  ]
  said = io.StringIO()
  try:
    with (
      contextlib.redirect_stderr(said),
      contextlib.redirect_stdout(io.StringIO()),
    ):
      code = main.main(argv)
  except Reached:
    code = None
  return code, faulty(said.getvalue())


def faulty(text):
  """The part of stderr that begins with an error or a traceback."""
  lines = text.splitlines()
  for i, line in enumerate(lines):
    if line.startswith(('arvision: error:', 'Traceback', 'usage:')):
      return lines[i:]
  return []


def left_behind(folder: pathlib.Path):
  """What a command that failed must not leave."""
  return [
    p for p in folder.rglob('*') if 'partial' in p.name or '.tmp' in p.name
  ]
