"""Measures a tokenizer's reconstructions and a generator's samples."""

import argparse
import json
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from arvision.build import ConfigError, suggest
from arvision.commands import runs, targets
from arvision.evals import cache
from arvision.evals.classifier import Recipe
from arvision.evals.generation import Generation, at_once
from arvision.evals.protocol import Metrics, data_name, headline
from arvision.evals.reconstruction import Reconstruction
from arvision.parallel import host
from arvision.ranges import Batch, Many, number

KINDS = ('reconstruction', 'generation')
# Images per call, where nobody says how many.
_AT_ONCE = 100
# What of config.data changes no picture, and so no classifier.
_WITHOUT_EFFECT = ('batch_size', 'threads', 'workers', 'cache', 'broken_share')
# What `Data.digest` stands for, wherever it lies.
_IN_DIGEST = ('source', 'path')


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
    samples=flags.samples,
    batch_size=flags.batch_size,
    sampling=runs.sampling(flags),
    classifiers=flags.classifiers,
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
    help=f'{" and/or ".join(KINDS)}, with a comma between; default: all that '
    'the run can do',
  )
  flags.add_argument(
    '--samples', type=number(Many), default=1000, help='images to draw (1000)'
  )
  flags.add_argument(
    '--batch_size',
    type=number(Batch),
    help='images at once; default: up to 100, as many as memory holds',
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
  samples: int = 1000,
  batch_size: int | None = None,
  sampling: Mapping[str, Any] | None = None,
  recipe: Recipe | None = None,
  classifiers: pathlib.Path | None = None,
  say: Callable[[str], None] = host.say,
) -> Metrics:
  """All figures of a run.

  Args:
    run: a trained tokenizer or generator, see `runs.open_run`.
    which: of `KINDS`; None for all that the run can do.
    samples: images to draw.
    batch_size: images per call; None: up to 100, as many as memory holds.
    sampling: arguments of `run.sample_fn`.
    recipe: of the classifier.
    classifiers: folder of the cache, None for the user's.
    say: is told how it goes.

  Raises:
    ConfigError: an unknown kind, or samples of a run without a generator.
  """
  chosen = kinds(which, run.model is not None)
  if samples < 2 or (batch_size is not None and batch_size < 1):
    raise ConfigError(
      f'--samples={samples} --batch_size={batch_size}: wanted at least 2 '
      'samples and a batch of at least 1'
    )
  data, description = runs.images_of(run)
  name = data_name(description, data.digest)
  metrics: Metrics = {}
  if 'reconstruction' in chosen:
    say(f'reconstruction of {data.held_out_examples} held-out images')
    evaluator = Reconstruction(name, batch_size or _AT_ONCE)
    metrics |= evaluator.run(data, run.encode, run.decode, run.tokenizer.spec)
  if 'generation' in chosen:
    classifier = None
    if data.num_classes > 1:
      known = (*_WITHOUT_EFFECT, *_IN_DIGEST)
      kept = {k: v for k, v in description.items() if k not in known}
      classifier = cache.load_or_train(
        recipe or Recipe(), data, kept, classifiers, say
      )
      metrics |= classifier.metrics(data, name)
    else:
      say('the data has one class: no classifier, so no Fréchet distance')
    say(f'drawing {samples} images')
    codes = run.tokenizer.spec.codes
    classes = len(runs.classes_of(run))
    sample = run.sample_fn(at_once=batch_size, **(sampling or {}))
    size = at_once(sample, samples, batch_size, _AT_ONCE)
    generation = Generation(name, samples, size, classes)
    metrics |= generation.run(
      data,
      sample,
      classifier,
      run.as_drawn.encode if codes else None,
    )
  return metrics


def kinds(which: list[str] | None, generator: bool) -> tuple[str, ...]:
  """What to measure, checked.

  Raises:
    ConfigError: unknown, or not possible.
  """
  if not which:
    return KINDS if generator else KINDS[:1]
  for kind in which:
    if kind not in KINDS:
      raise ConfigError(f"--which='{kind}' is unknown.{suggest(kind, KINDS)}")
  if 'generation' in which and not generator:
    raise ConfigError(
      '--which=generation needs a run that trained a generator; this --workdir '
      'holds a tokenizer: name the workdir of a generator, or take '
      '--which=reconstruction'
    )
  return tuple(k for k in KINDS if k in which)


def table(metrics: Metrics) -> str:
  """Names and figures in two columns."""
  width = max(len(name) for name in metrics)
  return '\n'.join(
    f'{name:<{width}}  {value:>10.4f}' for name, value in metrics.items()
  )
