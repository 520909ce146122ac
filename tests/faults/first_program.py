"""A process that bears wrong command lines, and ends at their first program.

Nothing is trained or drawn: `train` runs up to the trace of its first step, and
the other commands up to the first program that they would compile.
"""

import contextlib
import functools
import importlib
import io
import pathlib
import shutil
from typing import Any

import jax
import numpy as np

from arvision.build import value
from arvision.commands import main, run_flags
from arvision.parallel import host
from arvision.parallel.mesh import make_mesh
from arvision.plan import topology
from arvision.runs import hardware, memory, supervise
from arvision.runs.trained import load_run, placed
from arvision.sweeps import pool
from arvision.tasks import assemble, fit
from arvision.training import evaluate, frozen, start
from arvision.training.weights import Weights
from tests.configs import ALL
from tests.faults.lines import NOT_IN_STEP, RUNS, walk

# As they are without the patches of another test.
first_state, trace_step = start.StateInit, start.trace_step
check_data = fit.check_data


class Reached(BaseException):
  """The command came to its first program; `main` does not catch it."""


def _zeros(shapes):
  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


@functools.cache
def _run(kind):
  config = ALL[RUNS[kind]]()
  kept = _zeros(_shapes_of(config))
  params = _zeros(assemble.trained_shapes(config))
  if not kept:
    params = {'tokenizer': params}
  found = Weights(config, params, 7, 'raw')
  return placed(found, kept, make_mesh({'data': -1}))


def _step_of(config):
  """What the trace of a step depends on.

  Other keys, and numbers that are not 0 instead of others, change constants.
  """
  fields = walk(config.copy_and_resolve_references())
  return repr(
    [
      (key, 'number' if isinstance(value, float) and value else value)
      for key, value in sorted(fields.items())
      if not key.startswith(NOT_IN_STEP)
    ]
  )


def make_folders(folder, text=None):
  """Writes what command lines name; `text` is that of a user's config."""
  for kind in RUNS:
    run = folder / 'run' / kind
    run.mkdir(parents=True, exist_ok=True)
    (run / 'config.json').write_text('{"data": {}}')
  shutil.rmtree(folder / 'out', ignore_errors=True)
  (folder / 'out').mkdir()
  (folder / 'out' / 'file').write_text('x')
  images = np.arange(6 * 48, dtype=np.uint8).reshape(6, 4, 4, 3)
  np.savez(folder / 'out' / 'images.npz', arr_0=images)
  if text is not None:
    (folder / 'out' / 'own.py').write_text(text)


def prepare(patch, folder, anew=False):
  """Patches what commands call, so that they end at their first program.

  Args:
    patch: a `pytest.MonkeyPatch`.
    folder: 'OUT' in command lines is `folder`/out, 'RUN' `folder`/run.
    anew: whether steps are traced that were traced before.

  Returns:
    The set of the steps that were traced.
  """
  make_folders(folder)
  kinds = {str(folder / 'run' / kind): kind for kind in RUNS}

  # What depends on the step alone is done once for every step.
  states, checked, traced, now = {}, set(), set(), ['']

  def check(config, data, tokenizer):
    step = (now[0], data.shape, data.num_classes)
    if anew or step not in checked:
      check_data(config, data, tokenizer)
      checked.add(step)

  def init(*args):
    if anew or now[0] not in states:
      states[now[0]] = first_state(*args)
    return states[now[0]]

  def trace(*args):
    if anew or now[0] not in traced:
      trace_step(*args)
      traced.add(now[0])
    raise Reached

  def load(config, workdir, *_):
    now[0] = _step_of(config)
    with assemble.fitting():
      return _zeros(_shapes_of(config))

  def reached(*args):
    raise Reached

  def stop(self, function, **options):
    return reached

  open_it = lambda workdir, *rest, **more: (
    _run(kinds[str(workdir)])
    if str(workdir) in kinds
    else load_run(workdir, *rest, **more)
  )
  patch.chdir(folder)
  patch.setattr(run_flags, 'load_run', open_it)
  patch.setattr(frozen, 'load', load)
  patch.setattr(start, 'first_state', lambda o, *_: (o.abstract, 0, 'shapes,'))
  patch.setattr(fit, 'check_data', check)
  patch.setattr(start, 'StateInit', init)
  patch.setattr(start, 'trace_step', trace)
  patch.setattr(
    evaluate.HeldOut, 'check', lambda *_: {'batch': np.zeros((1, 8, 8, 1))}
  )
  patch.setattr(host.Placement, 'jit', stop)
  patch.setattr(memory.Rows, '__call__', reached)
  patch.setattr(memory.Rows, 'fit', reached)
  patch.setattr(pool.Pool, 'run', reached)
  # Another process would train.
  again = lambda argv, *_: main.main(['train', *argv])
  patch.setattr(supervise, 'again', again)
  patch.setattr(hardware, 'matmul_peak', reached)
  patch.setattr(topology.importlib.util, 'find_spec', _without_libtpu)
  return traced


_find_spec = importlib.util.find_spec


def _without_libtpu(name, package=None):
  return None if name == 'libtpu' else _find_spec(name, package)


# By the step of a config, since parts are built anew and equal no others.
_shapes: dict[str, Any] = {}


def _shapes_of(config):
  key = _step_of(config)
  if key not in _shapes:
    size = (*config.data.size, value(config.data, 'channels'))
    _shapes[key] = frozen.shapes(config, size)
  return _shapes[key]


def words(argv, folder):
  """A command line with its folders."""
  return [
    word.replace('OUT', str(folder / 'out')).replace('RUN', str(folder / 'run'))
    for word in argv
  ]


def run(argv, folder):
  """Runs a command line here.

  Returns:
    the exit code, None where it came to its first program; and the lines of
    stderr that are errors or tracebacks.
  """
  argv, said = words(argv, folder), io.StringIO()
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
