"""Checkpoints: the state, the position in the data, and what they belong to."""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from ml_collections import ConfigDict
from orbax.checkpoint import checkpoint_managers as policies

from arvision.build import ConfigError, suggest
from arvision.data.base import DataError
from arvision.parallel import host
from arvision.tasks.base import TrainState
from arvision.training import workdir as workdirs

# Written last by Orbax, so their absence means that a save did not end.
_MARKERS = ('_CHECKPOINT_METADATA', 'state/_METADATA', 'meta/metadata')

# Bytes of a checkpoint beside its arrays: names, shapes, parts of blocks.
_BESIDE = 4 * 2**20


class Checkpoints:
  """The checkpoints of one run, newest first.

  One is a folder `<step>` with the arrays (`state`) and a small JSON (`meta`).
  Writing goes on in the background while training does; a save that was cut
  off leaves nothing that could be taken for a checkpoint.

  Attributes:
    facts: see `__init__`.
  """

  def __init__(
    self,
    folder: str | os.PathLike,
    facts: Mapping[str, Any],
    keep: int = 2,
    best: str = '',
    read_only: bool = False,
  ):
    """Opens the folder, and makes it where it does not exist.

    Args:
      folder: absolute or relative path.
      facts: config key -> value of what gives the data position its meaning;
        checkpoints with other facts are refused.
      keep: how many of the newest are kept.
      best: metric by which the best one (lowest value) is kept too.
      read_only: the folder is another run's; nothing in it is touched.
    """
    if keep < 1:
      raise ConfigError(f'config.checkpoint.keep={keep}: wanted 1 or more')
    self._folder = pathlib.Path(folder).absolute()
    self.facts = dict(facts)
    self._best = best
    self._read_only = read_only
    rules: list[Any] = [policies.LatestN(keep)]
    if best:
      # Never seen = infinite: such a checkpoint is kept as a new one only.
      metric = lambda m: m.get(best, float('inf'))
      rules.append(policies.BestN(get_metric_fn=metric, reverse=True, n=1))
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(rules),
        read_only=read_only,
      ),
      item_names=('state', 'meta'),
      item_handlers={
        'state': ocp.PyTreeCheckpointHandler(),
        'meta': ocp.JsonCheckpointHandler(),
      },
    )

  @property
  def latest(self) -> int | None:
    """The newest step that was saved whole, None without any."""
    return max(self._manager.all_steps(), default=None)

  def save(
    self,
    step: int,
    state: TrainState,
    position: Any,
    metrics: Mapping[str, float] | None = None,
  ) -> None:
    """Starts a save; returns once the arrays are copied.

    Args:
      step: of the state.
      state: all but `frozen` is saved.
      position: `get_state()` of the data iterator, JSON values. It is the
        same in every process, see `data.base.Data`.
      metrics: of the held-out evaluation, to find the best checkpoint.

    Raises:
      DataError: the disk has no room for it.
    """
    self.check_room(state)
    meta = {'step': step, 'data': position, 'facts': self.facts}
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.PyTreeSave(_saved(state)),
        meta=ocp.args.JsonSave(meta),
      ),
      metrics=dict(metrics or {}) if self._best else None,
      force=True,
    )

  def check_room(self, state: TrainState) -> None:
    """Refuses a disk that has no room for a checkpoint.

    Threads of Orbax would find out one by one, each with a traceback.

    Raises:
      DataError: with what is there and what is wanted.
    """
    latest = self.latest
    after = 'from the start' if latest is None else f'after step {latest}'
    check_room(
      self._folder,
      _saved(state),
      f'a checkpoint; the same command goes on {after} then',
    )

  def restore(
    self, abstract: TrainState, set_position: Callable[[Any], None]
  ) -> tuple[TrainState, int] | None:
    """The newest checkpoint that can be read.

    A damaged one is moved to `damaged/` beside the folder, and the one before
    it is taken.

    Args:
      abstract: shapes, dtypes and shardings of the state; `frozen` is handed
        through.
      set_position: `set_state` of the data iterator.

    Returns:
      The state and its step, or None where there is no checkpoint.

    Raises:
      ConfigError: a checkpoint of other parameters, or at a position in other
        data.
      DataError: there are checkpoints, all of them damaged.
    """
    steps = sorted(self._manager.all_steps(), reverse=True)
    for step in steps:
      found, problem = self._read(step, abstract)
      if host.all_agree(found is not None):
        assert found is not None
        state, meta = found
        self._check_facts(meta['facts'], step)
        set_position(meta['data'])
        return abstract.replace(**state), step
      self._set_aside(step, problem)
    if steps and self._read_only:
      raise DataError(f"no checkpoint in '{self._folder}' can be read")
    if steps:
      raise DataError(
        f"all checkpoints in '{self._folder}' were damaged ({steps}); they "
        f"are in '{self._folder.parent / 'damaged'}' now. Start again to "
        'train from the first step'
      )
    return None

  def _read(self, step, abstract):
    """(state as dict, meta) and None, or None and what is wrong."""
    folder = self._folder / str(step)
    lost = [name for name in _MARKERS if not (folder / name).exists()]
    if lost:
      return None, f'{lost[0]} is missing'
    try:
      shapes = _shapes(folder)
    except Exception as error:  # what Orbax raises here is not specified
      return None, _first_line(error)
    wanted = _saved(abstract)
    for name in ('params', 'ema'):
      check_shapes(shapes.get(name, {}), wanted[name], f'{folder}: {name}')
    try:
      found = self._manager.restore(
        step,
        args=ocp.args.Composite(
          state=ocp.args.PyTreeRestore(
            wanted,
            restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
          ),
          meta=ocp.args.JsonRestore(),
        ),
      )
    except Exception as error:
      return None, _first_line(error)
    return (found['state'], found['meta']), None

  def _check_facts(self, facts, step):
    for key, value in self.facts.items():
      if facts.get(key) != value:
        raise ConfigError(
          f'the checkpoint of step {step} was made with config.{key}='
          f'{facts.get(key)}, this run has config.{key}={value}: the order of '
          'examples would change in the middle. Set it back, or start in a '
          'new --workdir (--init_from takes over the weights)'
        )

  def _set_aside(self, step, problem):
    if self._read_only:
      logging.warning('checkpoint %d is damaged (%s)', step, problem)
      return
    aside = self._folder.parent / 'damaged'
    before = len(list(aside.glob(f'{step}.*'))) if aside.is_dir() else 0
    target = aside / f'{step}.{before}'
    logging.warning(
      'checkpoint %d is damaged (%s); it is moved to %s', step, problem, target
    )
    if jax.process_index() == 0:
      aside.mkdir(exist_ok=True)
      (self._folder / str(step)).rename(target)
    host.barrier(f'damaged {step}')
    self._manager.reload()

  def wait(self) -> None:
    """Returns when everything is on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits, and ends the threads."""
    self._manager.wait_until_finished()
    self._manager.close()


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
  """Parameters of a run, and which they are.

  Attributes:
    config: of the run.
    params: a tree of numpy arrays.
    step: optimizer steps that they have seen.
    ema: the decay of the running average that they are, 'raw' for the
      parameters themselves.
  """

  config: ConfigDict
  params: Any
  step: int
  ema: str


def load_params(
  workdir: str | os.PathLike, ema: str | None = None, step: int | None = None
) -> tuple[ConfigDict, Any, int]:
  """The config, the parameters and their step, see `load_weights`."""
  found = load_weights(workdir, ema, step)
  return found.config, found.params, found.step


def load_weights(
  workdir: str | os.PathLike, ema: str | None = None, step: int | None = None
) -> Weights:
  """The trained or imported parameters of a run, without optimizer state.

  Args:
    workdir: folder of the run.
    ema: which running average, by its decay ('0.999'); 'raw' for the
      parameters themselves. None takes the slowest average that the run has,
      and the parameters themselves where it has none.
    step: which checkpoint; None takes the newest that can be read.

  Raises:
    ConfigError: no run there, no such average or step.
    DataError: no checkpoint, or none that can be read.
  """
  config = workdirs.load_config(workdir)
  folder = pathlib.Path(workdir).absolute() / workdirs.CHECKPOINTS
  names = [p.name for p in folder.glob('*')] if folder.is_dir() else []
  steps = sorted((int(n) for n in names if n.isdigit()), reverse=True)
  if not steps and (pathlib.Path(workdir) / workdirs.IMPORTED).is_dir():
    _which(ema, [], workdir)
    tree = load_tree(pathlib.Path(workdir) / workdirs.IMPORTED)
    return Weights(config, tree['params'], 0, 'raw')
  if not steps:
    raise DataError(f"'{workdir}' has no checkpoint yet; train there first")
  if step is not None and step not in steps:
    raise ConfigError(f"'{workdir}' has no step {step}; it has {steps}")
  for number in steps if step is None else [step]:
    try:
      saved = _shapes(folder / str(number))
      key = _which(ema, list(saved['ema']), workdir)
      wanted = saved['ema'][key] if key else saved['params']
      tree = {'ema': {key: wanted}} if key else {'params': wanted}
      found = _read_numpy(folder / str(number) / 'state', tree)
      params = found['ema'][key] if key else found['params']
      return Weights(config, params, number, key or 'raw')
    except ConfigError:
      raise
    except Exception as error:  # what Orbax raises here is not specified
      logging.warning('checkpoint %d: %s', number, _first_line(error))
  raise DataError(f"no checkpoint in '{folder}' can be read")


def _which(ema, decays, workdir):
  """The key of the running average, None for the parameters themselves."""
  if ema == 'raw' or (ema is None and not decays):
    return None
  key = max(decays, key=float) if ema is None else ema
  if key not in decays:
    raise ConfigError(
      f"'{workdir}' has no running average with decay '{ema}'."
      + suggest(str(ema), [*decays, 'raw'])
    )
  return key


def save_tree(path: pathlib.Path, tree: Any) -> None:
  """Writes a tree of arrays to a folder, whole or not at all.

  Raises:
    DataError: the disk has no room for it.
  """
  check_room(path, tree, 'the weights')
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as writer:
    writer.save(path.absolute(), args=ocp.args.PyTreeSave(tree))


def check_room(folder: pathlib.Path, tree: Any, what: str) -> None:
  """Refuses a disk that has no room for a tree of arrays.

  Args:
    folder: where it will be written; it need not exist.
    tree: what this process writes of it is counted, before compression.
    what: it is, and more that is to be said.

  Raises:
    DataError: with what is there and what is wanted.
  """
  there = folder.absolute()
  while not there.exists():
    there = there.parent
  need = _BESIDE + sum(_bytes(x) for x in jax.tree.leaves(tree))
  left = shutil.disk_usage(there).free
  if left < need:
    raise DataError(
      f"'{folder}': {left / 1e6:,.1f} MB are free, {need / 1e6:,.1f} MB wanted; "
      f'free space for {what}'
    )


def _bytes(x):
  if not isinstance(x, jax.Array):
    return np.asarray(x).nbytes
  shards = x.addressable_shards
  return sum(s.data.nbytes for s in shards if s.replica_id == 0)


def load_tree(path: pathlib.Path) -> Any:
  """Reads what `save_tree` wrote, as numpy arrays."""
  return _read_numpy(path.absolute(), _metadata(path.absolute()))


def check_shapes(got: Any, wanted: Any, where: str) -> None:
  """Refuses a tree of parameters that is not like another.

  Raises:
    ConfigError: with the first few paths that differ.
  """
  a, b = _by_path(got), _by_path(wanted)
  differ = [
    f'  {path}: {a.get(path, "absent")} there, {b.get(path, "absent")} here'
    for path in sorted({*a, *b})
    if a.get(path) != b.get(path)
  ]
  if differ:
    more = f'\n  ... {len(differ) - 8} more' if len(differ) > 8 else ''
    raise ConfigError(
      f'{where}: not the parameters of this config:\n'
      + '\n'.join(differ[:8])
      + more
    )


def _by_path(tree):
  text = lambda p: jax.tree_util.keystr(p, simple=True, separator='/')
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {text(path): tuple(leaf.shape) for path, leaf in leaves}


def _saved(state):
  names = [f.name for f in dataclasses.fields(state) if f.name != 'frozen']
  return {name: getattr(state, name) for name in names}


def _shapes(folder):
  """The saved tree of a checkpoint, with shapes for leaves."""
  tree = _metadata(folder / 'state')
  return {'params': {}, 'ema': {}, **tree}


def _metadata(path):
  # The handler itself: `ocp.Checkpointer` would warn of a file that only a
  # checkpoint with one item has.
  tree = ocp.PyTreeCheckpointHandler().metadata(path).tree
  if not tree:
    raise ValueError(f'{path} has no arrays')
  return jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype), tree)


def _read_numpy(path, wanted):
  args = jax.tree.map(
    lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted
  )
  return ocp.PyTreeCheckpointHandler().restore(
    path,
    args=ocp.args.PyTreeRestore(
      wanted, restore_args=args, partial_restore=True
    ),
  )


def _first_line(error):
  return (str(error) or type(error).__name__).splitlines()[0][:200]
