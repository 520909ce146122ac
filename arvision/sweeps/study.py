"""A sweep as a list of jobs, and the folder that it belongs to."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from arvision import atomic
from arvision.errors import ConfigError
from arvision.sweeps.points import Point, slug
from arvision.sweeps.runs import Job, Runs, Step
from arvision.training import differences
from arvision.training.workdir import CONFIG, load_config, to_json

RECORD = 'sweep.json'
# (name of a config with its variant, overrides) -> config.
Load = Callable[[str, Sequence[str]], ConfigDict]


@dataclasses.dataclass(frozen=True)
class Study:
  """A sweep: a config, its points, and how they are evaluated.

  Attributes:
    config: name of the config, with or without a variant.
    overrides: 'key=value' of all points.
    points: the points.
    seeds: seeds of points that state none.
    evaluation: flags of `arvision eval`; None to train only.
  """

  config: str
  overrides: tuple[str, ...]
  points: tuple[Point, ...]
  seeds: tuple[int, ...] = (0,)
  evaluation: tuple[str, ...] | None = ()

  def seeds_of(self, point: Point) -> tuple[int, ...]:
    """The seeds of a point."""
    return point.seeds or self.seeds

  def config_of(self, point: Point) -> str:
    """The name of the config of a point, with its variant."""
    if not point.variant:
      return self.config
    return f'{self.config.partition(":")[0]}:{point.variant}'

  def needs_of(self, point: Point) -> dict[str, str]:
    """The needs of a point that no override meets."""
    stated = {text.partition('=')[0] for text in self.overrides}
    met = stated | {*point.overrides}
    return {k: v for k, v in point.needs.items() if k not in met}

  def record(self) -> dict[str, Any]:
    """The content of sweep.json."""
    return {
      'config': self.config,
      'overrides': [*self.overrides],
      'eval': None if self.evaluation is None else [*self.evaluation],
      'points': {
        p.slug: {
          'variant': p.variant,
          'overrides': dict(p.overrides),
          'needs': self.needs_of(p),
        }
        for p in self.points
      },
    }


def run_name(point: Point, seed: int) -> str:
  """The name of the run of a point with a seed."""
  return f'{point.slug}_seed{seed}'


def jobs(study: Study, runs: Runs) -> list[Job]:
  """The jobs of a sweep: what its points need, then the points by seed."""
  needed: dict[str, Job] = {}
  found: list[Job] = []
  order = [
    (point, seed) for point in study.points for seed in study.seeds_of(point)
  ]
  # All points with their first seed come first: a table needs them all.
  turn = lambda item: study.seeds_of(item[0]).index(item[1])
  for point, seed in sorted(order, key=turn):
    needs = study.needs_of(point)
    for config in needs.values():
      needed[slug(config)] = Job(slug(config), (f'--config={config}',))
    name = run_name(point, seed)
    flags = (
      f'--config={study.config_of(point)}',
      *(f'--config.{text}' for text in overrides(study, point, runs)),
      f'--config.seed={seed}',
    )
    after: tuple[Step, ...] = ()
    if study.evaluation is not None:
      after = (runs.evaluation(name, *study.evaluation),)
    found.append(Job(name, flags, tuple(map(slug, needs.values())), after))
  clash = {*needed} & {job.name for job in found}
  if clash:
    raise ConfigError(
      f'a point has the name of a run that the sweep needs: {min(clash)!r}; '
      'give it another one'
    )
  return [*needed.values(), *found]


def overrides(study: Study, point: Point, runs: Runs) -> list[str]:
  """'key=value' of a point, without its seed; later ones count."""
  return [
    *study.overrides,
    *(f'{key}={value}' for key, value in point.overrides.items()),
    *(f'{k}={runs.folder(v)}' for k, v in study.needs_of(point).items()),
  ]


def check(study: Study, runs: Runs, load: Load) -> dict[str, ConfigDict]:
  """Checks a sweep against its configs and its folder; writes nothing.

  Args:
    study: the sweep.
    runs: its folder.
    load: loads a config.

  Returns:
    name of every run -> its config.

  Raises:
    ConfigError: a key or value that a config does not take, a frozen run that
      is not there, or a folder of another sweep.
  """
  _check_record(study, runs)
  found: dict[str, ConfigDict] = {}
  for point in study.points:
    needs = study.needs_of(point)
    texts = overrides(study, point, runs)
    try:
      for need in needs.values():
        found[slug(need)] = found.get(slug(need)) or load(need, ())
      for seed in study.seeds_of(point):
        name = run_name(point, seed)
        found[name] = load(study.config_of(point), [*texts, f'seed={seed}'])
        # A run that has begun has a copy of the weights.
        if not (runs.folder(name) / CONFIG).is_file():
          _check_frozen(found[name], needs)
    except ConfigError as error:
      raise ConfigError(f'point {point.name!r}: {error}') from error
  for name, config in found.items():
    differences.check_same(config, runs.folder(name))
  return found


def _check_frozen(config, needs):
  """Refuses a frozen run that is not trained, before any other run starts."""
  for name, path in config.get('frozen', {}).items():
    if f'frozen.{name}' in needs or not isinstance(path, str):
      continue
    if not (pathlib.Path(path) / CONFIG).is_file():
      raise ConfigError(
        f"config.frozen.{name}='{path}' is not the folder of a run; train it "
        f'first, or name another one with --config.frozen.{name}=DIR'
      )


def _check_record(study, runs):
  """Refuses the folder of another sweep."""
  path = runs.root / RECORD
  if not path.exists():
    return
  there, here = _read(path), study.record()
  for key in ('config', 'eval'):
    if there.get(key) != here[key]:
      raise ConfigError(
        f'{path} is of another sweep: {key} is {there.get(key)!r} there, '
        f'{here[key]!r} here; choose another --workdir'
      )


def _read(path) -> Mapping:
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:
    raise ConfigError(f'{path} is damaged: {error}') from error
  if not isinstance(found, dict):
    raise ConfigError(f'{path} is damaged: wanted a block')
  return found


def begin(
  study: Study,
  runs: Runs,
  todo: Sequence[Job],
  configs: Mapping[str, ConfigDict],
) -> None:
  """Writes sweep.json, and notes which runs are to be trained further.

  Args:
    study: the sweep.
    runs: its folder.
    todo: its jobs.
    configs: result of `check`.
  """
  for job in todo:
    if not runs.done(job, runs.training(job)):
      continue
    folder, config = runs.folder(job.name), to_json(configs[job.name])
    if not (folder / CONFIG).is_file():  # the run was removed
      runs.keep(job.name, 0.0, False)
    elif _length(config) != _length(to_json(load_config(folder, None))):
      runs.keep(job.name, runs.seconds(job.name), False)
      # What was measured of the shorter run.
      for step in job.after:
        if step.file:
          step.file.unlink(missing_ok=True)
  with atomic.whole(runs.root / RECORD) as new:
    new.write_text(json.dumps(study.record(), indent=2) + '\n')


def _length(config):
  return config.get('train', {}).get('duration')
