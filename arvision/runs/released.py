"""Imports released weights into a run, and exports weights of a run.

An imported run is a folder with `config.json`, a copy of its tokenizer, and the
weights in `imported/` instead of checkpoints.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import flax.traverse_util
import jax
import numpy as np
from ml_collections import ConfigDict

from arvision.build import build
from arvision.errors import ConfigError, DataError
from arvision.importers import families, files, hub, table
from arvision.runs.trained import TrainedRun
from arvision.tasks import assemble
from arvision.training import frozen, lock
from arvision.training import workdir as workdirs


def table_of(config: ConfigDict) -> table.Table:
  """The table of released weights of a config.

  Raises:
    ConfigError: the config has no `release`.
  """
  if 'release' not in config:
    raise ConfigError(
      'config.release is missing: this config has no released weights; wanted '
      "a table, such as {'type': 'importers.var.Transformer'}"
    )
  return build(config.release, 'release')


def import_weights(
  config: ConfigDict,
  source: str | os.PathLike | Sequence[str | os.PathLike],
  workdir: str | os.PathLike,
  which: str | None = None,
) -> str:
  """Creates a run with released weights.

  Args:
    config: the whole config; a generator needs `frozen.tokenizer`.
    source: weight file, also by name (`hub.local`), or all of several that hold the weights together, see
      `Table.files`.
    workdir: a folder without a run.
    which: place of the weights in the file, see `files.find_weights`.

  Returns:
    A line about the imported weights.

  Raises:
    ConfigError: the folder has a run, the config has no table, the tokenizer is
      missing, or the weights do not come in so many files.
    DataError: the file cannot be used; see `files` and `table`.
  """
  folder = pathlib.Path(workdir)
  _refuse_run(folder)
  form = table_of(config)
  shapes = assemble.trained_shapes(config)
  sources = [source] if isinstance(source, (str, os.PathLike)) else [*source]
  if len(sources) == 1:
    params, summary = _read(form, sources[0], shapes, which)
  else:
    params, summary = read_all(form, sources, shapes, which)
  kept = frozen.load(config, workdir)
  if not assemble.is_generator(config):
    params = {'tokenizer': params}
  with lock.held(folder):
    _refuse_run(folder)
    frozen.claim(workdir, config, kept, imported=params)
  return summary


def random_weights(config: ConfigDict, seed: int = 0) -> dict[str, np.ndarray]:
  """Random weights with the keys and shapes of a release.

  What `files.write` makes of them is read as the released file would be, so an
  import can be rehearsed without one.

  Args:
    config: the whole config.
    seed: of the random numbers.

  Returns:
    official key -> array, of standard deviation 0.02.

  Raises:
    ConfigError: the config has no table.
  """
  form, rng = table_of(config), np.random.default_rng(seed)

  def random(path, x):
    values = rng.standard_normal(x.shape, np.float32) * np.float32(0.02)
    # Scales of norms are around 1, else the signal would vanish.
    return values + np.float32('scale' in jax.tree_util.keystr(path))

  params = jax.tree_util.tree_map_with_path(
    random, assemble.trained_shapes(config)
  )
  grids = assemble.make_tokenizer(config).spec.grids
  return table.to_weights(form, params, grids)


def _read(form, source, shapes, which):
  """The parameters in a file, and a line about them."""
  content = files.read(source)
  wanted = _keys(form, table.paths(shapes))
  try:
    place, weights = files.find_weights(content, wanted, which)
    params = table.to_params(form, weights, shapes)
  except DataError as error:
    # Errors about a tensor already name the file.
    named = str(error).startswith(f"'{source}'")
    text = str(error) if named else f"'{source}': {error}"
    raise DataError(text + _other_family(form, content)) from error
  return params, _summary(form, source, place, weights, params)


def read_all(
  form: table.Table,
  sources: Sequence[str | os.PathLike],
  shapes: Any,
  which: str | None,
) -> tuple[Any, str]:
  """The parameters in several files, each of which has some, and lines about them.

  Args:
    form: a table with `files`.
    sources: the files, in any order.
    shapes: of all parameters.
    which: see `import_weights`.

  Raises:
    ConfigError, DataError: see `import_weights`; or files of different models.
  """
  left = [*getattr(form, 'files', ())]
  if len(left) != len(sources):
    many = f', or in {len(left)}' if left else ''
    raise ConfigError(
      f'--source: got {len(sources)} files; the weights of {form.name} come in '
      f'one{many}'
    )
  flat = flax.traverse_util.flatten_dict(shapes, sep='/')
  ours, lines = table.paths(shapes), []
  found: dict[str, np.ndarray] = {}
  for source in sources:
    content = files.read(source)
    keys = {k for place in files.places(content) for k in place.weights}
    own = max(left, key=lambda f: len(keys.intersection(_keys(f, ours))))
    left.remove(own)
    some = {row.path: flat[row.path] for row in own.rows(ours)}
    nested = flax.traverse_util.unflatten_dict(some, sep='/')
    params, line = _read(own, source, nested, which)
    new = flax.traverse_util.flatten_dict(params, sep='/')
    for path in sorted(new.keys() & found.keys()):
      if not np.array_equal(new[path], found[path]):
        raise DataError(
          f"'{source}': its {path} is not that of '{sources[0]}'; wanted files "
          'of one model'
        )
    found |= new
    lines.append(line)
  return flax.traverse_util.unflatten_dict(found, sep='/'), '\n'.join(lines)


def _keys(form, ours):
  return [k for row in form.rows(ours) for k in row.keys(ours[row.path])]


def _other_family(form, content):
  """A line about the family of a file, if it is not that of the config."""
  keys = [k for place in files.places(content) for k in place.weights]
  family = families.looks_like(keys)
  if not family or family.startswith(form.name):
    return ''
  return f'\nthe file looks like a {family}; this config is of a {form.name}'


def _refuse_run(folder):
  if workdirs.holds_run(folder) or workdirs.saved_steps(folder):
    raise ConfigError(
      f"--workdir='{folder}' holds a run already; choose a new one"
    )


def _summary(form, source, place, weights, params):
  count = sum(p.size for p in jax.tree.leaves(params))
  used = [w for key, w in weights.items() if not form.derived(key)]
  kinds = sorted({str(w.dtype) for w in used} - {'float32'})
  ignored = sorted(filter(form.derived, weights))
  lines = [
    f"{form.name}: {count:,} parameters from '{source}'"
    + (f", its '{place}'" if place else '')
  ]
  if kinds:
    lines.append(f'{", ".join(kinds)} became float32')
  if ignored:
    lines.append(f'derived tensors ignored: {len(ignored)} ({ignored[0]}, ...)')
  text = '; '.join(lines)
  return f'{hub.describe(source)}\n{text}' if hub.is_name(source) else text


def export_weights(run: TrainedRun, output: str | os.PathLike) -> str:
  """Writes the weights of a run to a file with the official keys.

  Args:
    run: run with the weights.
    output: file; its suffix chooses safetensors or the format of torch.save.

  Returns:
    A line about the exported weights.

  Raises:
    ConfigError: the release lacks a parameter, the config has no table, or the
      suffix is unknown.
  """
  form = table_of(run.config)
  params = run.variables['params'] if run.model is None else run.params
  ours = table.paths(params)
  lost = sorted({*ours} - {row.path for row in form.rows(ours)})
  if lost:
    raise ConfigError(
      f'the release of the {form.name} has no parameters {", ".join(lost)}'
    )
  weights = table.to_weights(form, params, run.tokenizer.spec.grids)
  files.write(output, weights, form.wrapping)
  which = 'weights' if run.ema == 'raw' else f'average {run.ema}'
  return (
    f'{form.name}, {which} of step {run.step}: {len(weights)} tensors in '
    f'{output}'
  )
