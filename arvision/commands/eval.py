"""Evaluates reconstructions of a tokenizer and samples of a generator."""

import argparse
import json
import pathlib
import time

import jax

from arvision.commands import run_flags
from arvision.evals import cache
from arvision.evals.base import Metrics
from arvision.evals.protocol import headline
from arvision.parallel import host
from arvision.ranges import Batch, Many, number
from arvision.runs import targets
from arvision.runs.evaluate import evaluate


def main(argv: list[str]) -> None:
  """`arvision eval`: writes <workdir>/eval.json and prints a table."""
  flags, run = run_flags.open_run(parser(), argv, several=True)
  path = flags.output or pathlib.Path(flags.workdir) / 'eval.json'
  flag = '--output' if flags.output else '--workdir'
  targets.check_file(path, flag)
  if run.model is not None:
    targets.check_folder(cache.folder_of(flags.classifiers), '--classifiers')
  host.say(f'evaluating {run_flags.weights_of(run)}')
  start = time.time()
  metrics = evaluate(
    run,
    which=flags.which.split(',') if flags.which else None,
    sampling=run_flags.sampling(flags),
    classifiers=flags.classifiers,
    samples=flags.samples,
    batch_size=flags.batch_size,
  )
  record = {
    'step': int(run.step),
    'ema': run.ema,
    'sampling': {**run_flags.sampling(flags), 'samples': flags.samples},
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
  flags = run_flags.parser('eval', __doc__)
  flags.add_argument(
    '--which',
    default='',
    metavar='LIST',
    help='names of config.evals, separated by commas; a config without evals '
    'has reconstruction and generation; default: all that the run supports',
  )
  flags.add_argument(
    '--samples',
    type=number(Many),
    help='number of samples; default: that of config.evals, 1000',
  )
  flags.add_argument(
    '--batch_size',
    type=number(Batch),
    help='images per call; default: that of config.evals, or up to 100 as fit '
    'into memory',
  )
  flags.add_argument(
    '--output',
    type=pathlib.Path,
    metavar='FILE',
    help='JSON file; default: <workdir>/eval.json, which reports read',
  )
  flags.add_argument(
    '--classifiers',
    type=pathlib.Path,
    default=None,
    metavar='DIR',
    help='cache of trained classifiers; default: ~/.cache/arvision/classifiers',
  )
  run_flags.add_sampling(flags)
  return flags


def table(metrics: Metrics) -> str:
  """Names and values in two columns."""
  width = max(len(name) for name in metrics)
  return '\n'.join(
    f'{name:<{width}}  {value:>10.4f}' for name, value in metrics.items()
  )
