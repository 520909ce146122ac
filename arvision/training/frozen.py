"""Frozen weights: weights of other runs that a run uses and does not train."""

import contextlib
import hashlib
import os
import pathlib
import shutil
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from arvision.build import build, resolve, suggest
from arvision.errors import ConfigError
from arvision.parallel import host
from arvision.tasks import assemble
from arvision.training import differences, trees, weights
from arvision.training import workdir as workdirs

# Blocks that the parameters of a generator depend on.
_GENERATOR = ('tokenizer', 'layout', 'condition', 'backbone', 'head')


def load(config: ConfigDict, workdir: str | os.PathLike) -> dict[str, Any]:
  """The weights of the runs that `config.frozen` names.

  A run keeps a copy in `frozen/`, so that it does not depend on the other run
  being trained further, moved or deleted.

  Args:
    config: config of the run; `frozen` maps names to folders.
    workdir: folder of the run.

  Returns:
    name -> {'params': ...}, numpy arrays: parameters of the tokenizer for a run
    of a tokenizer, of the model for a run of a generator. A tokenizer without
    parameters needs no run, and has none of them.

  Raises:
    ConfigError: a folder has no run, or a run of another config; or a resumed
      run names another folder with other weights.
    DataError: no checkpoint of the run can be read.
  """
  folders, empty = config.get('frozen', {}), _weightless(config)
  copy = pathlib.Path(workdir) / workdirs.FROZEN
  if not (folders and workdirs.holds_run(workdir) and copy.is_dir()):
    return {**empty, **{name: _trained(config, name) for name in folders}}
  kept = {**empty, **trees.load_tree(copy)}
  before = workdirs.load_config(workdir, allow=None).get('frozen', {})
  for name, source in folders.items():
    if source != before.get(name):
      _check_moved(config, name, before.get(name), kept.get(name), copy)
  return kept


def _weightless(config):
  """{'tokenizer': no parameters} where the tokenizer is `weightless`, or {}."""
  kind = (config.get('tokenizer') or {}).get('type')
  if not (kind and getattr(resolve(kind), 'weightless', False)):
    return {}
  return {'tokenizer': {'params': {}}}


def _check_moved(config, name, before, kept, copy):
  """Checks that another folder holds the weights that the run has copied."""
  source = config.frozen[name]
  if not (pathlib.Path(source) / workdirs.CONFIG).is_file():
    host.say(
      f"config.frozen.{name}='{source}' does not exist; the copy in {copy} is "
      'used'
    )
  elif fingerprint(_trained(config, name)) != fingerprint(kept):
    raise ConfigError(
      f"config.frozen.{name}='{source}' holds other weights than {copy}, with "
      f"which this run was trained. Set it back to '{before}' to resume with "
      'these, or choose another --workdir'
    )


def _trained(config, name):
  """The variables of the run that `config.frozen` names."""
  key, source = f'config.frozen.{name}', config.frozen[name]
  block = 'tokenizer' if name == 'tokenizer' else f'task.{name}'
  own = _at(config, block)
  kind = 'run' if own is None else 'tokenizer'
  if not (pathlib.Path(source) / workdirs.CONFIG).is_file():
    raise ConfigError(
      f"{key}='{source}' holds no {kind}. Train it first "
      f'(arvision train --config=<its config> --workdir={source}), import '
      'released weights (arvision import), or set this key to its folder'
    )
  theirs = workdirs.load_config(source, allow=None)
  workdirs.check_blocks(theirs, source)
  generator = 'backbone' in theirs
  if generator and own is not None:
    raise ConfigError(
      f"{key}='{source}' holds a generator; wanted the folder of its tokenizer, "
      f"'{theirs.get('frozen', {}).get('tokenizer')}' when it was trained"
    )
  if own is not None:
    differ = differences.other_weights(theirs.tokenizer, own, block)
  elif not generator:
    raise ConfigError(f"{key}='{source}' holds a tokenizer; wanted a generator")
  else:
    differ = []
    for block in _GENERATOR:
      there, here = (c.get(block, ConfigDict()) for c in (theirs, config))
      differ += differences.other_weights(there, here, block)
  if differ:
    raise ConfigError(
      f"the {kind} in '{source}' ({key}) is not the one of this config:\n"
      + differences.shortened(differ)
    )
  params = weights.load_params(source, allow=None)[1]
  return {'params': params if generator else params['tokenizer']}


def _at(config, key):
  """The block at a key with dots, None where there is none."""
  for name in key.split('.'):
    config = None if config is None else config.get(name)
  return config


def shapes(
  config: ConfigDict, image_shape: tuple[int, int, int]
) -> dict[str, Any]:
  """Shapes and dtypes of the result of `load`; opens no folder.

  Args:
    config: config of the run.
    image_shape: (H, W, C).
  """
  image = jax.ShapeDtypeStruct((1, *image_shape), np.float32)

  def of(name):
    if name == 'tokenizer':
      tokenizer = assemble.make_tokenizer(config)
    elif name in config.task:
      tokenizer = build(config.task[name], f'task.{name}')
    else:
      return {'params': assemble.trained_shapes(config)}
    found = jax.eval_shape(tokenizer.init, jax.random.key(0), image)
    return {'params': nn.unbox(found['params'])}

  named = {name: of(name) for name in config.get('frozen', {})}
  return {**_weightless(config), **named}


def check_names(config: ConfigDict, binds: tuple[str, ...]) -> None:
  """Checks that `config.frozen` has exactly the names that the task uses.

  Args:
    config: config of the run.
    binds: see `tasks.base.Task`.

  Raises:
    ConfigError: with an unknown or missing name, or the run of a tokenizer
      without parameters.
  """
  names = config.get('frozen', {})
  binds = tuple(name for name in binds if name not in _weightless(config))
  for name in names:
    if name not in binds:
      raise ConfigError(
        f'config.frozen.{name}: {config.task.type} uses no such run.'
        + suggest(name, binds)
      )
  for name in binds:
    if not names.get(name):
      raise ConfigError(
        f'config.frozen.{name} is missing: the folder of the run whose weights '
        f'{config.task.type} uses'
      )


def check_tokens(config: ConfigDict, data: Any, frozen: dict[str, Any]) -> None:
  """Checks that cached tokens were made by the tokenizer of the generator.

  Args:
    config: config of the run.
    data: data of the run; data other than `CachedTokens` pass.
    frozen: see `load`.

  Raises:
    ConfigError: another config or other weights of the tokenizer.
  """
  made_by = getattr(data, 'spec', {}).get('tokenizer')
  if not made_by or 'tokenizer' not in frozen:
    return
  theirs = ConfigDict(made_by.get('config', {}))
  differ = differences.other_weights(theirs, config.tokenizer, 'tokenizer')
  own = fingerprint(frozen['tokenizer'])
  if made_by.get('fingerprint') != own:
    differ.append(
      f'  weights: fingerprint {made_by.get("fingerprint")!r} there, {own!r} '
      'here'
    )
  if differ:
    raise ConfigError(
      f"the tokens in config.data.path='{data.path}' were made by another "
      'tokenizer than that of config.frozen.tokenizer='
      f"'{config.get('frozen', {}).get('tokenizer', '')}':\n"
      + '\n'.join(differ)
      + '\nEncode the images again (arvision encode), or name the tokenizer '
      'that made these tokens'
    )


def fingerprint(variables: Any) -> str:
  """16 hex digits of a hash of a tree: names, shapes, dtypes and values."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    array = np.ascontiguousarray(leaf)
    facts = f'{jax.tree_util.keystr(path)} {array.shape} {array.dtype}'
    digest.update(facts.encode())
    digest.update(array.tobytes())
  return digest.hexdigest()[:16]


def claim(
  workdir: str | os.PathLike,
  config: ConfigDict,
  frozen: dict[str, Any],
  imported: Any = None,
) -> None:
  """Writes the config and the weights of a new run, in all processes together.

  Replaces the files of an earlier start or import that did not finish. The
  config is written last, so a folder with a config is complete.

  Args:
    workdir: folder of the run.
    config: config of the run.
    frozen: see `load`.
    imported: initial parameters of a new run, or None.
  """
  folder = pathlib.Path(workdir)
  claimed, made = workdirs.holds_run(folder), not folder.exists()
  host.barrier('claim')
  if jax.process_index() == 0:
    folder.mkdir(parents=True, exist_ok=True)
    if not claimed:
      _clear(folder)
  host.barrier('folder')
  tree = {k: frozen[k] for k in config.get('frozen', {}) if k in frozen}
  try:
    if not claimed and imported is not None:
      trees.save_tree(folder / workdirs.IMPORTED, {'params': imported})
    if not claimed and tree:
      trees.save_tree(folder / workdirs.FROZEN, tree)
    if jax.process_index() == 0:
      workdirs.save_config(folder, config)
  except BaseException:  # Ctrl-C too
    if jax.process_index() == 0 and not claimed:
      _clear(folder)
      if made:
        with contextlib.suppress(OSError):
          folder.rmdir()
    raise
  host.barrier('config')


def _clear(folder):
  """Removes the weights of a start that did not finish."""
  for name in (workdirs.FROZEN, workdirs.IMPORTED):
    for left in folder.glob(f'{name}*'):
      shutil.rmtree(left, ignore_errors=True)
