"""Reads a workdir for a report; damaged files are listed as faults."""

import json
import pathlib
import re
from typing import Any

from arvision.data.base import BrokenImage
from arvision.errors import ConfigError
from arvision.runs import page
from arvision.training import events
from arvision.training.environment import ENVIRONMENT
from arvision.training.workdir import CONFIG, EVENTS, LOG
from arvision.training.writers import is_number, read_log

EVALUATION = 'eval.json'
# Metrics of it with a value per scale.
SCALED = (
  'codebook_usage',
  'codebook_perplexity',
  'codebook_reach',
  'bit_usage',
  'bit_entropy',
  'level_usage',
  'level_entropy',
)


class Folder:
  """The content of a workdir, or of a folder with an evaluation of images.

  Only the config or the evaluation is required.

  Attributes:
    path: path of the folder.
    config: content of config.json, {} without the file.
    log: lines of log.jsonl, oldest first, each name -> number.
    evaluation: content of eval.json, {} without the file.
    spikes: loss spikes of events.jsonl by step, see `training.spikes.Spike`.
    environment: content of environment.json, {} without the file.
    faults: a line for every file or value that could not be read.
  """

  def __init__(self, path: pathlib.Path):
    """Reads the folder.

    Raises:
      ConfigError: it is not the folder of a run, or its config is damaged.
    """
    self.path = path
    self.faults: list[str] = []
    files = [path / name for name in (CONFIG, EVALUATION)]
    if not any(file.is_file() for file in files):
      raise ConfigError(
        f"--workdir='{path}' is not the folder of a run: it has no {CONFIG}, "
        f'and no {EVALUATION} of images'
      )
    try:
      self.config = _block(files[0]) if files[0].is_file() else {}
    except ValueError as error:
      raise ConfigError(str(error)) from error
    self.evaluation = self._evaluation(files[1])
    self.environment = self._optional(path / ENVIRONMENT)
    self.log = self._log(path / LOG)
    self.spikes = _spikes(path / EVENTS)

  def _optional(self, path):
    """The JSON object in a file, {} without the file."""
    try:
      return _block(path) if path.is_file() else {}
    except ValueError as error:
      self.faults.append(str(error))
      return {}

  def _evaluation(self, path):
    """eval.json without values of the wrong type."""
    found = self._optional(path)
    for name in ('headline', 'metrics', 'sampling', 'protocols'):
      if not isinstance(found.get(name, {}), dict):
        self._odd(path, name, found.pop(name), 'block')
    for name, facts in [*found.get('protocols', {}).items()]:
      if not isinstance(facts, dict):
        self._odd(path, f'protocols.{name}', facts, 'block')
        del found['protocols'][name]
    for name in ('headline', 'metrics'):
      for key, value in [*found.get(name, {}).items()]:
        if name == 'headline' and key in SCALED and isinstance(value, dict):
          right = all(is_number(v) for v in value.values())
        else:
          right = key not in SCALED and is_number(value)
        if not right:
          self._odd(path, f'{name}.{key}', found[name].pop(key))
    sweep = found.get('sweep', [])
    if not _is_sweep(sweep):
      self._odd(path, 'sweep', found.pop('sweep'), 'list of evaluations')
    seconds = found.get('seconds', 0.0)
    if not (is_number(seconds) and seconds >= 0):
      self._odd(path, 'seconds', found.pop('seconds'))
    return found

  def _odd(self, path, key, value, wanted='number'):
    text = json.dumps(value)[:40]
    self.faults.append(f'{path}: {key} is not a {wanted} ({text})')

  def _log(self, path):
    lines, damaged = read_log(path)
    if damaged:
      self.faults.append(f'{path}: {damaged} damaged lines')
    return lines

  def picture(
    self, path: pathlib.Path, about: str, width: int
  ) -> page.Picture | None:
    """See `page.picture`; None for a file that cannot be read."""
    try:
      return page.picture(path, about, width)
    except BrokenImage as error:
      self.faults.append(str(error))
      return None

  @property
  def kind(self) -> str:
    """'generator', 'tokenizer', or 'images' that were evaluated alone."""
    if not self.config:
      return 'images'
    return 'generator' if 'backbone' in self.config else 'tokenizer'

  @property
  def headline(self) -> dict[str, Any]:
    return self.evaluation.get('headline', {})

  @property
  def metrics(self) -> dict[str, float]:
    """`<figure>/<protocol>[/<scale>]` -> value."""
    return self.evaluation.get('metrics', {})

  @property
  def protocols(self) -> dict[str, dict[str, Any]]:
    """Name -> `Protocol.facts()`; older evaluations have none."""
    return self.evaluation.get('protocols', {})

  def pictures(self) -> dict[str, pathlib.Path]:
    """Name -> newest picture of that name; those without a step come last."""
    found: dict[str, tuple[int, pathlib.Path]] = {}
    for file in sorted((self.path / 'pictures').glob('*.png')):
      match = re.fullmatch(r'(.+?)_([0-9]{1,18})', file.stem)
      name, step = (match[1], int(match[2])) if match else (file.stem, -1)
      if step >= found.get(name, (-2, file))[0]:
        found[name] = step, file
    order = sorted(found.items(), key=lambda item: (item[1][0] < 0, item[0]))
    return {name: file for name, (_, file) in order}

  def evaluated(self) -> dict[str, pathlib.Path]:
    """Name -> picture of an evaluator of `arvision eval`.

    Those of an earlier evaluation, which eval.json does not name, are left out.
    """
    named = self.evaluation.get('pictures')
    files = sorted((self.path / 'eval').glob('*.png'))
    return {
      file.stem: file
      for file in files
      if isinstance(named, list) and file.stem in named
    }

  def grids(self) -> dict[str, pathlib.Path]:
    """Name -> image grid of `arvision sample`."""
    files = sorted((self.path / 'samples').glob('*/grid.png'))
    return {file.parent.name: file for file in files}


def _spikes(path):
  """The events of loss spikes; of a step that was repeated, the last ones."""
  found = {
    (event['step'], event.get('metric')): event
    for event in events.read(path)
    if event['event'] == 'spike'
    and isinstance(event.get('metric'), str)
    and is_number(event.get('value'))
    and is_number(event.get('usual'))
  }
  return [found[key] for key in sorted(found)]


def _is_sweep(records):
  """Whether a value is a list of evaluations with the same settings."""
  blocks = ('settings', 'headline', 'metrics')
  plain = lambda x: isinstance(x, str | bool | None) or is_number(x)
  try:
    return all(
      all(isinstance(record[block], dict) for block in blocks)
      and record['settings'].keys() == records[0]['settings'].keys()
      and all(map(plain, record['settings'].values()))
      and all(map(is_number, record['metrics'].values()))
      and all(isinstance(x, dict) for x in record.get('protocols', {}).values())
      and all(
        is_number(value) or name in SCALED
        for name, value in record['headline'].items()
      )
      for record in records
    )
  except (TypeError, KeyError, AttributeError):
    return False


def _block(path):
  """The JSON object in a file.

  Raises:
    ValueError: with the file and the fault.
  """
  try:
    found = json.loads(path.read_bytes())
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{path} is damaged: {error}') from error
  if not isinstance(found, dict):
    raise ValueError(
      f'{path} is damaged: wanted a block, got {str(found)[:40]}'
    )
  return found
