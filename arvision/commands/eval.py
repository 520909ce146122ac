"""Measures a tokenizer's reconstructions and a generator's samples."""

import argparse
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from arvision.build import suggest
from arvision.commands import runs, targets
from arvision.errors import ConfigError
from arvision.evals import cache
from arvision.evals.protocol import (
  Evaluator,
  Metrics,
  Run,
  evaluators,
  headline,
  possible,
)
from arvision.parallel import host
from arvision.ranges import Batch, Many, number
from arvision.training.measure import measured


def main(argv: list[str]) -> None:
  """`arvision eval`: writes <workdir>/eval.json and prints a table."""
  flags, run = runs.open_run(parser(), argv, several=True)
  path = flags.output or pathlib.Path(flags.workdir) / 'eval.json'
  flag = '--output' if flags.output else '--workdir'
  targets.check_file(path, flag)
  if run.model is not None:
    targets.check_folder(cache.folder_of(flags.classifiers), '--classifiers')
  host.say(f'measuring {runs.weights_of(run)}')
  start = time.time()
  metrics = evaluate(
    run,
    which=flags.which.split(',') if flags.which else None,
    sampling=runs.sampling(flags),
    classifiers=flags.classifiers,
    samples=flags.samples,
    batch_size=flags.batch_size,
  )
  record = {
    'step': int(run.step),
    'ema': run.ema,
    'sampling': {**runs.sampling(flags), 'samples': flags.samples},
    'headline': headline(metrics),
    'metrics': metrics,
    'seconds': time.time() - start,
  }
  host.say(table(metrics))
  if jax.process_index() == 0:
    targets.write_text(path, json.dumps(record, indent=2) + '\n', flag)
  host.say(f'\n{path}')


def parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  flags = runs.parser('eval', __doc__)
  flags.add_argument(
    '--which',
    default='',
    metavar='LIST',
    help='names of config.evals, with a comma between: reconstruction, '
    'generation where a config states none; default: all that the run can do',
  )
  flags.add_argument(
    '--samples',
    type=number(Many),
    help='images to draw; default: as config.evals says, 1000',
  )
  flags.add_argument(
    '--batch_size',
    type=number(Batch),
    help='images at once; default: as config.evals says, up to 100, as many as '
    'memory holds',
  )
  flags.add_argument(
    '--output',
    type=pathlib.Path,
    metavar='FILE',
    help='default: <workdir>/eval.json, which reports read',
  )
  flags.add_argument(
    '--classifiers',
    type=pathlib.Path,
    default=None,
    metavar='DIR',
    help='where trained classifiers are kept; default: '
    '~/.cache/arvision/classifiers',
  )
  runs.add_sampling(flags)
  return flags


def evaluate(
  run: Any,
  which: list[str] | None = None,
  sampling: Mapping[str, Any] | None = None,
  classifiers: pathlib.Path | None = None,
  say: Callable[[str], None] = host.say,
  **fields: Any,
) -> Metrics:
  """All figures of a run.

  Args:
    run: a trained tokenizer or generator, see `runs.open_run`.
    which: names of `config.evals`; None for all that the run can do.
    sampling: arguments of `run.sample_fn`.
    classifiers: folder of the cache, None for the user's.
    say: is told how it goes.
    **fields: what is not None takes the place of a field of every evaluator
      that has it (samples, batch_size).

  Raises:
    ConfigError: an unknown name, or samples of a run that does not sample.
  """
  given = measured(run, sampling, classifiers, say)
  found = evaluators(run.config)
  stated = {k: v for k, v in fields.items() if v is not None}
  for name in found:
    evaluator: Any = found[name]
    own = {k: v for k, v in stated.items() if hasattr(evaluator, k)}
    found[name] = dataclasses.replace(evaluator, **own)
  metrics: Metrics = {}
  for name in chosen(which, found, given):
    metrics |= dict(found[name](given))
  return metrics


def chosen(
  which: list[str] | None, found: Mapping[str, Evaluator], run: Run
) -> list[str]:
  """Names of the evaluators that measure, in the order of the config.

  Raises:
    ConfigError: unknown, or not possible.
  """
  for name in which or ():
    if name not in found:
      raise ConfigError(f"--which='{name}' is unknown.{suggest(name, found)}")
  can = [name for name, evaluator in found.items() if possible(evaluator, run)]
  for name in which or ():
    if name not in can:
      others = ','.join(can)
      raise ConfigError(
        f'--which={name} needs a run that trained a generator and samples; this '
        '--workdir holds none: name the workdir of a generator, or take '
        f'--which={others}'
      )
  return [name for name in can if not which or name in which]


def table(metrics: Metrics) -> str:
  """Names and figures in two columns."""
  width = max(len(name) for name in metrics)
  return '\n'.join(
    f'{name:<{width}}  {value:>10.4f}' for name, value in metrics.items()
  )
