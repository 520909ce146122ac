"""Runs the evaluators of a config."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from arvision.build import suggest
from arvision.errors import ConfigError
from arvision.evals.base import (
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
  """Evaluates a run.

  Args:
    run: a trained tokenizer or generator, see `run_flags.open_run`.
    which: names of `config.evals`; None for all that the run supports.
    sampling: arguments of `run.sample_fn`.
    classifiers: folder of cached classifiers, None for the user's cache.
    say: function that logs a line.
    **fields: values that replace a field of every evaluator that has it
      (samples, batch_size); None keeps the field.

  Returns:
    name -> metric.

  Raises:
    ConfigError: an unknown name, or an evaluator that the run does not support.
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
  """Names of the evaluators to run, in the order of the config.

  Raises:
    ConfigError: an unknown name, or an evaluator that the run does not support.
  """
  for name in which or ():
    if name not in found:
      raise ConfigError(f"--which='{name}' is unknown.{suggest(name, found)}")
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
