"""Runs the evaluators of a config, and scores sets of images."""

import dataclasses
import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

from arvision.build import suggest
from arvision.data.npz import Npz
from arvision.errors import ConfigError
from arvision.evals import reference as references
from arvision.evals.base import (
  Evaluator,
  Metrics,
  Run,
  evaluators,
  possible,
)
from arvision.evals.bounds import few
from arvision.evals.collect import Collected, at_once, collect
from arvision.evals.distribution import Distribution
from arvision.evals.features import Extractor
from arvision.evals.image_sets import ImageSet, open_images
from arvision.evals.scoring import Scoring
from arvision.parallel import host
from arvision.runs.measure import measured

Note = Callable[[str, Mapping[str, Any]], None]


def evaluate(
  run: Any,
  which: Collection[str] | None = None,
  sampling: Mapping[str, Any] | None = None,
  classifiers: pathlib.Path | None = None,
  say: Callable[[str], None] = host.say,
  note: Note = lambda name, facts: None,
  show: Note = lambda name, rows: None,
  sampled_only: bool = False,
  **fields: Any,
) -> Metrics:
  """Evaluates a run.

  Args:
    run: a trained tokenizer or generator, see `run_flags.open_run`.
    which: names of `config.evals`; None for all that the run supports.
    sampling: arguments of `run.sample_fn`.
    classifiers: folder of cached classifiers, None for the user's cache.
    say: function that logs a line.
    note, show: called with protocols and pictures, see `evals.base.Run`.
    sampled_only: leave out the evaluators that do not sample.
    **fields: see `configured`.

  Returns:
    name -> metric.

  Raises:
    ConfigError: an unknown name, or an evaluator that the run does not support.
  """
  given = measured(run, sampling, classifiers, say, note, show)
  found = configured(run, **fields)
  metrics: Metrics = {}
  for name in chosen(which, found, given):
    if sampled_only and 'sample_fn' not in found[name].needs:
      continue
    metrics |= dict(found[name](given))
  return metrics


def configured(run: Any, **fields: Any) -> dict[str, Evaluator]:
  """The evaluators of a run by name, with other values of some fields.

  Args:
    run: see `evaluate`.
    **fields: values that replace a field of every evaluator that has it
      (samples, batch_size, extractor, ...); None keeps the field. With an
      extractor and no `Distribution` in the config there is one more,
      `fid`.

  Raises:
    ConfigError: a value that an evaluator cannot take.
  """
  found: dict[str, Any] = {**evaluators(run.config)}
  stated = {k: v for k, v in fields.items() if v is not None}
  if 'extractor' in stated and not any(
    isinstance(evaluator, Distribution) for evaluator in found.values()
  ):
    found['fid'] = Distribution()
  for flag in ('reference', 'figures'):
    if flag in stated and not any(hasattr(e, flag) for e in found.values()):
      raise ConfigError(
        f'--{flag} is for a distance to a reference, and config.evals has '
        'none; give --extractor=NAME:FILE too'
      )
  for name, evaluator in found.items():
    own = {k: v for k, v in stated.items() if hasattr(evaluator, k)}
    found[name] = dataclasses.replace(evaluator, **own)
  return found


def chosen(
  which: Collection[str] | None, found: Mapping[str, Evaluator], run: Run
) -> list[str]:
  """Names of the evaluators to run, in the order of the config.

  Raises:
    ConfigError: an unknown name, or an evaluator that the run does not support.
  """
  for name in which or ():
    if name not in found:
      raise ConfigError(f"--which='{name}' is unknown.{suggest(name, found)}")
    if why := missing(found).get(name):
      raise ConfigError(f'--which={name}: {why}')
  supported = [
    name for name, evaluator in found.items() if possible(evaluator, run)
  ]
  for name in which or ():
    if name not in supported:
      raise ConfigError(
        f'--which={name} needs a generator with a sampler, and --workdir holds '
        'none; name the workdir of a generator, or use '
        f'--which={",".join(supported)}'
      )
  return [name for name in supported if not which or name in which]


def missing(found: Mapping[str, Any]) -> dict[str, str]:
  """name -> why the figures of an evaluator are not available."""
  whys = {name: getattr(part, 'missing', '') for name, part in found.items()}
  return {name: why for name, why in whys.items() if why}


def score(
  path: pathlib.Path,
  scoring: Scoring,
  extractor: Extractor,
  reference: str,
  batch_size: int | None = None,
  order: str = '',
  say: Callable[[str], None] = host.say,
  note: Note = lambda name, facts: None,
) -> Metrics:
  """Scores a folder or file of images.

  Statistics in a file replace those of its images, as in the ADM evaluator.

  Args:
    path: a folder of images of one size, or an `.npz` file with `arr_0`.
    scoring: the figures.
    extractor: the network of the features.
    reference: see `evals.reference.load`; '' for the Inception score alone.
    batch_size: images per call, see `collect`.
    order: 'file' if the order of the images is known to be random; '' for what
      the file says.
    say: function that logs a line.
    note: called with the protocols of the metrics.

  Returns:
    name -> metric.

  Raises:
    ConfigError: an Inception score of images in an unknown order, or a network
      and statistics that do not go together.
    DataError: images or a reference that cannot be used.
  """
  stored = None
  if not path.is_dir() and 'mu' in (file := Npz(path)):
    stored = references.read(file)
    stored.check(extractor, f"'{path}'")
    say(
      f"'{path}' has statistics (mu, sigma): they are used for fid and sfid, "
      'instead of its images'
    )
  if stored and not stored.pictures:
    images = ImageSet(stored.name, 0, lambda size: iter(()))
  else:
    images = open_images(path)
  if order:
    images = dataclasses.replace(images, order=order)
  scoring.check_order(images)
  target = None
  if reference:
    target = references.load(reference, extractor, batch_size, say)
    if 'pool' in scoring.keep:
      target = target.with_features(extractor, batch_size, say)
  found = Collected({}, {}, 0, (0, 0), '')
  if images.count:
    if warning := few(images.count, 'images'):
      say(warning)
    say(f'features of {images.count:,} images, {extractor.name}')
    batches = images.batches(batch_size or at_once())
    found = collect(extractor, batches, batch_size, scoring.keep)
  metrics: Metrics = {}
  for figure, value, protocol in scoring.scores(
    found, target, images, extractor, stored.moments if stored else None
  ):
    note(protocol.name, protocol.facts())
    metrics[f'{figure}/{protocol.name}'] = value
  if lost := scoring.lacking(name.split('/')[0] for name in metrics):
    say(lost)
  return metrics
