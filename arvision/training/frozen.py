"""The weights that a run uses and does not train: its tokenizer or teacher."""

import contextlib
import hashlib
import os
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from arvision.errors import ConfigError
from arvision.parallel import host
from arvision.training import differences, trees, weights
from arvision.training import workdir as workdirs


def load(config: ConfigDict, workdir: str | os.PathLike) -> dict[str, Any]:
  """The tokenizer of a generator, the teacher of a tokenizer that has one.

  A run keeps a copy in `frozen/`, so that its codes go on to mean the same
  when the tokenizer is trained further, moved or deleted.

  Args:
    config: of the run; `tokenizer_workdir` or `task.teacher_workdir` is where
      they were trained.
    workdir: of the run.

  Returns:
    {'tokenizer': variables}, {'teacher': variables} or {}, numpy arrays.

  Raises:
    ConfigError: no tokenizer there, or one of another config. In a run whose
      key names another folder than it did, one with other weights.
    DataError: no checkpoint of it can be read.
  """
  if config.get('tokenizer_workdir'):
    name, key, block = 'tokenizer', 'tokenizer_workdir', 'tokenizer'
  elif config.get('task', {}).get('teacher_workdir'):
    name, key, block = 'teacher', 'task.teacher_workdir', 'task.teacher'
  else:
    return {}
  source = _at(config, key)
  copy = pathlib.Path(workdir) / workdirs.FROZEN
  if not (workdirs.holds_run(workdir) and copy.is_dir()):
    return {name: _trained(config, key, block)}
  kept = trees.load_tree(copy)
  before = _at(workdirs.load_config(workdir, allow=None), key)
  if source == before:
    return kept
  if not (pathlib.Path(source) / workdirs.CONFIG).is_file():
    host.say(f"config.{key}='{source}' is not there; the copy in {copy} serves")
  elif fingerprint(_trained(config, key, block)) != fingerprint(kept[name]):
    raise ConfigError(
      f"config.{key}='{source}' holds other weights than {copy}, with which "
      f"this run was trained. Set it back to '{before}' to go on with these, "
      'or choose another --workdir'
    )
  return kept


def _at(config, key):
  """The value of a key with dots."""
  for name in key.split('.'):
    config = config[name]
  return config


def _trained(config, key, block):
  """The variables of the tokenizer that a key names the folder of."""
  source = _at(config, key)
  if not (pathlib.Path(source) / workdirs.CONFIG).is_file():
    raise ConfigError(
      f"config.{key}='{source}' holds no tokenizer. Train it "
      f'first (arvision train --config=<its config> --workdir={source}), '
      'bring released weights in (arvision import), or point this key at its '
      'folder'
    )
  theirs = workdirs.load_config(source, allow=None)
  workdirs.check_blocks(theirs, source)
  if 'backbone' in theirs:
    raise ConfigError(
      f"config.{key}='{source}' holds a generator; wanted the folder of its "
      f"tokenizer, '{theirs.get('tokenizer_workdir')}' when it was trained"
    )
  differ = differences.other_weights(
    theirs.tokenizer, _at(config, block), block
  )
  if differ:
    raise ConfigError(
      f"the tokenizer in '{source}' (config.{key}) is not the one "
      'of this config:\n' + differences.shortened(differ)
    )
  params = weights.load_params(source, allow=None)[1]
  return {'params': params['tokenizer']}


def check_tokens(config: ConfigDict, data: Any, frozen: dict[str, Any]) -> None:
  """Refuses cached tokens of another tokenizer than the generator's.

  Args:
    config: of the run.
    data: `CachedTokens` say by what they were made; other data pass.
    frozen: see `load`.

  Raises:
    ConfigError: other weights, or another config of the tokenizer.
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
      f'tokenizer than that of config.tokenizer_workdir='
      f"'{config.tokenizer_workdir}':\n"
      + '\n'.join(differ)
      + '\nEncode the images anew (arvision encode), or name the tokenizer that '
      'made these tokens'
    )


def fingerprint(variables: Any) -> str:
  """16 hex digits of a tree of arrays: names, shapes, types and values."""
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
  """Makes a folder the run of a config, in all processes together.

  What an earlier start or import left that did not come to an end is replaced.
  The config is written last, so that a folder with a config has the rest.

  Args:
    workdir: the folder.
    config: of the run.
    frozen: see `load`.
    imported: parameters that the run starts with, for a new run.
  """
  folder = pathlib.Path(workdir)
  claimed, made = workdirs.holds_run(folder), not folder.exists()
  host.barrier('claim')
  if jax.process_index() == 0:
    folder.mkdir(parents=True, exist_ok=True)
    if not claimed:
      _clear(folder)
  host.barrier('folder')
  tree = {k: frozen[k] for k in ('tokenizer', 'teacher') if k in frozen}
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
  """Removes the weights of a start that did not come to an end."""
  for name in (workdirs.FROZEN, workdirs.IMPORTED):
    for left in folder.glob(f'{name}*'):
      shutil.rmtree(left, ignore_errors=True)
