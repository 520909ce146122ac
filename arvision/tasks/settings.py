"""The keys of a config that belong to no part."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, Literal

from arvision.build import REQUIRED, Field, check, fields
from arvision.parallel.mesh import AXES
from arvision.parallel.rules import Rules
from arvision.ranges import AtLeast0, Below1, Few, FewOr0, Seed

# A block with one unit, see `training.schedule`.
Duration = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Whole:
  """Keys of the config itself.

  Attributes:
    seed: of all random numbers.
    ema: decays of the running averages of the weights.
    frozen: name -> folder of a run whose weights are used.
    rules: logical axis -> axes of the mesh, see `parallel.rules`.
    release: reads released weights, see `importers`.
    writers: further logs, see `training.writers`.
  """

  seed: Seed
  ema: tuple[Below1, ...]
  frozen: Mapping | None = None
  rules: Mapping | None = None
  release: object = None
  writers: Mapping | None = None


@dataclasses.dataclass(frozen=True)
class Frozen:
  """Folders of runs: that of the tokenizer, and that of a teacher."""

  tokenizer: str = ''
  teacher: str = ''


@dataclasses.dataclass(frozen=True)
class Train:
  """How long a run is."""

  duration: Duration


@dataclasses.dataclass(frozen=True)
class Periodic:
  """How often something happens."""

  every: Duration


@dataclasses.dataclass(frozen=True)
class Pictures(Periodic):
  """How often, and how many, pictures are written."""

  count: Few = 32


@dataclasses.dataclass(frozen=True)
class Checkpoint(Periodic):
  """When a checkpoint is saved, and which are kept.

  Attributes:
    hours_between_failures: mean time; the run chooses from it, and from the
      cost of a save, how often it saves; `every` is the least. 0: as `every`
      says.
    keep: how many of the newest.
    keep_every: the first of each such period is kept for good.
    best: name of a figure whose best checkpoint is kept, see `training.kept`.
    memory: copies in memory, see `InMemory`.
  """

  hours_between_failures: AtLeast0 = 0.0
  keep: Few = 2
  keep_every: Duration | None = None
  best: str = ''
  memory: Mapping | None = None


@dataclasses.dataclass(frozen=True)
class InMemory(Periodic):
  """How often the state is copied to memory, and where; see `training.peers`."""

  folder: str = ''


@dataclasses.dataclass(frozen=True)
class Watchdog:
  """Longest time of a step in seconds; 0: any, see `training.watchdog`."""

  seconds: AtLeast0 = 0.0


@dataclasses.dataclass(frozen=True)
class CheckData:
  """Seconds for a look at the pictures of a split, see `training.broken`."""

  seconds: AtLeast0 = 0.0


@dataclasses.dataclass(frozen=True)
class NotFinite:
  """What happens after a value that is not finite, see `training.divergence`."""

  action: Literal['stop', 'skip', 'rollback'] = 'stop'
  most: FewOr0 = 3


@dataclasses.dataclass(frozen=True)
class Corruption:
  """How often devices are compared, see `training.corruption`."""

  every: Duration | None = None


@dataclasses.dataclass(frozen=True)
class Spikes:
  """Which losses and gradient norms count as spikes, see `training.spikes`.

  Attributes:
    factor: deviations above the median; 0: none counts.
    window: steps that the median and the deviation are of.
  """

  factor: AtLeast0 = 10.0
  window: Few = 100


# Block without a type -> its keys. '' is the config itself.
_BLOCKS: dict[str, type] = {
  '': Whole,
  'frozen': Frozen,
  'train': Train,
  'log': Periodic,
  'evals': Periodic,
  'pictures': Pictures,
  'checkpoint': Checkpoint,
  'checkpoint.memory': InMemory,
  'watchdog': Watchdog,
  'check_data': CheckData,
  'not_finite': NotFinite,
  'corruption': Corruption,
  'spikes': Spikes,
}
# Block without a type -> the fields that may be set.
SETTINGS: dict[str, dict[str, Field]] = {
  **{name: fields(block) or {} for name, block in _BLOCKS.items()},
  'mesh': {axis: Field(int) for axis in AXES},
  'rules': fields(Rules) or {},
}
# Blocks that every config has.
_NEEDED = ('data', 'optim', 'mesh')
_PARTS = (
  *('tokenizer', 'task', 'layout', 'feed', 'backbone', 'head', 'condition'),
  *('sampler', 'release', 'rules', 'frozen'),
)


def check_settings(config: Any) -> None:
  """Checks the blocks of a config, and the keys that belong to no part.

  Raises:
    ConfigError: a block is missing, or a value is out of range; with the key.
  """
  for name in _PARTS:
    if name in config:
      check(config[name], Mapping, f'config.{name}')
  for name, folder in config.get('frozen', {}).items():
    check(folder, str, f'config.frozen.{name}')
  for name in _NEEDED:
    check(config.get(name), Mapping, f'config.{name}')
  for block, declared in _BLOCKS.items():
    there = config
    for name in filter(None, block.split('.')):
      there = there.get(name) if hasattr(there, 'items') else None
    if there is None and '.' in block:
      continue  # of an older run
    kinds = typing.get_type_hints(declared, include_extras=True)
    for name, field in SETTINGS[block].items():
      value = there.get(name) if hasattr(there, 'items') else None
      if value is None and field.default is not REQUIRED:
        continue
      kind = kinds[name]
      if typing.get_origin(kind) is Mapping or kind == Duration | None:
        kind = Mapping
      check(value, kind, f'config.{block}.{name}'.replace('..', '.'))
