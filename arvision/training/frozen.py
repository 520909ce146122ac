"""The weights that a run uses and does not train: its tokenizer or teacher."""

import hashlib
import os
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from arvision.build import ConfigError
from arvision.parallel import host
from arvision.training import checkpoint
from arvision.training import workdir as workdirs

FOLDER = 'frozen'


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
    ConfigError: no tokenizer there, or one of another config.
    DataError: no checkpoint of it can be read.
  """
  if config.get('tokenizer_workdir'):
    name, key, block = 'tokenizer', 'tokenizer_workdir', 'tokenizer'
  elif config.get('task', {}).get('teacher_workdir'):
    name, key, block = 'teacher', 'task.teacher_workdir', 'task.teacher'
  else:
    return {}
  source = config[key]
  kept = pathlib.Path(workdir) / FOLDER
  # The copy is written before the config, so without one it may be of a start
  # with another tokenizer that failed.
  if kept.is_dir() and (pathlib.Path(workdir) / workdirs.CONFIG).exists():
    return checkpoint.load_tree(kept)
  if not (pathlib.Path(source) / workdirs.CONFIG).is_file():
    raise ConfigError(
      f"config.{key}='{source}' holds no tokenizer. Train it "
      f'first (arvision train --config=<its config> --workdir={source}), '
      'bring released weights in (arvision import), or point this key at its '
      'folder'
    )
  theirs = workdirs.load_config(source, allow=None)
  own = config.task.teacher if name == 'teacher' else config.tokenizer
  differ = workdirs.other_weights(theirs.tokenizer, own, block)
  if differ:
    raise ConfigError(
      f"the tokenizer in '{source}' (config.{key}) is not the one "
      'of this config:\n' + '\n'.join(differ)
    )
  params = checkpoint.load_params(source, allow=None)[1]
  return {name: {'params': params['tokenizer']}}


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
  differ = workdirs.other_weights(theirs, config.tokenizer, 'tokenizer')
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
  workdir: str | os.PathLike, config: ConfigDict, frozen: dict[str, Any]
) -> None:
  """Makes a folder the run of a config, in all processes together.

  What is frozen is copied first and the config is written last, so that a
  folder with a config has it.
  """
  folder = pathlib.Path(workdir)
  claimed = (folder / workdirs.CONFIG).exists()
  host.barrier('claim')
  if jax.process_index() == 0:
    folder.mkdir(parents=True, exist_ok=True)
    if not claimed and (folder / FOLDER).exists():
      shutil.rmtree(folder / FOLDER)
  host.barrier('folder')
  tree = {k: frozen[k] for k in ('tokenizer', 'teacher') if k in frozen}
  if tree and not claimed:
    checkpoint.save_tree(folder / FOLDER, tree)
  if jax.process_index() == 0:
    workdirs.save_config(folder, config)
  host.barrier('config')
