"""All figures of a run, by the evaluators of its config."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from arvision.build import suggest
from arvision.errors import ConfigError
from arvision.evals.protocol import (
  Evaluator,
  Metrics,
  Run,
  evaluators,
  possible,
)
from arvision.parallel import host
from arvision.runs.measure import measured


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
    run: a trained tokenizer or generator, see `run_flags.open_run`.
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
