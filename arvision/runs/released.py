"""Imports released weights into a run, and exports weights of a run.

An imported run is a folder with `config.json`, a copy of its tokenizer, and the
weights in `imported/` instead of checkpoints.
"""

import os
import pathlib

import jax
from ml_collections import ConfigDict

from arvision.build import build
from arvision.errors import ConfigError, DataError
from arvision.importers import families, files, table
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
  source: str | os.PathLike,
  workdir: str | os.PathLike,
  which: str | None = None,
) -> str:
  """Creates a run with released weights.

  Args:
    config: the whole config; a generator needs `frozen.tokenizer`.
    source: weight file.
    workdir: a folder without a run.
    which: place of the weights in the file, see `files.find_weights`.

  Returns:
    A line about the imported weights.

  Raises:
    ConfigError: the folder has a run, the config has no table, or the tokenizer
      is missing.
    DataError: the file cannot be used; see `files` and `table`.
  """
  folder = pathlib.Path(workdir)
  _refuse_run(folder)
  form = table_of(config)
  shapes = assemble.trained_shapes(config)
  content = files.read(source)
  ours = table.paths(shapes)
  wanted = [k for row in form.rows(ours) for k in row.keys(ours[row.path])]
  try:
    place, weights = files.find_weights(content, wanted, which)
    params = table.to_params(form, weights, shapes)
  except DataError as error:
    # Errors about a tensor already name the file.
    named = str(error).startswith(f"'{source}'")
    text = str(error) if named else f"'{source}': {error}"
    raise DataError(text + _other_family(form, content)) from error
  kept = frozen.load(config, workdir)
  summary = _summary(form, source, place, weights, params)
  if not assemble.is_generator(config):
    params = {'tokenizer': params}
  with lock.held(folder):
    _refuse_run(folder)
    frozen.claim(workdir, config, kept, imported=params)
  return summary


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
  return '; '.join(lines)


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
