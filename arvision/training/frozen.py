"""The weights that a run uses and does not train: its tokenizer or teacher."""

import os
import pathlib
import shutil
from typing import Any

import jax
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
