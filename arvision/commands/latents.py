"""Measures the scale of the latents of a continuous tokenizer.

    arvision latents --workdir=runs/mar/digits_tokenizer

Prints the --config.KEY that gives the latents a standard deviation of 1.
"""

import argparse
import json
import pathlib
from typing import Any

from arvision.commands import run_flags
from arvision.ranges import Batch, Natural, Seed, number
from arvision.runs import memory, targets
from arvision.runs.latents import measure, setting


def main(argv: list[str]) -> None:
  """`arvision latents`: writes <workdir>/latents.json and prints it."""
  flags, run = run_flags.open_run(parser(), argv)
  path = pathlib.Path(flags.workdir) / 'latents.json'
  targets.check_file(path)
  with memory.explained(f'{flags.batch_size} images at once'):
    found = measure(run, flags.images, flags.batch_size, flags.seed)
  found |= setting(found, flags.shift)
  print(table(found))
  targets.write_text(path, json.dumps(found, indent=2) + '\n')
  print(f'\n{path}')


def parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  flags = run_flags.parser('latents', __doc__)
  flags.add_argument(
    '--images',
    '--number',
    type=number(Natural),
    default=0,
    help='number of training images; 0 is all (0)',
  )
  flags.add_argument(
    '--shift',
    action='store_true',
    help='also subtract the mean of every channel',
  )
  flags.add_argument(
    '--batch_size', type=number(Batch), default=64, help='images per call (64)'
  )
  flags.add_argument(
    '--seed',
    type=number(Seed),
    default=0,
    help='seed of the sampled latents (0)',
  )
  return flags


def table(found: dict[str, Any]) -> str:
  """The output of the command."""
  lines = [
    f'latents of {found["images"]} training images',
    f'{"channel":<7}{"mean":>10}{"std":>10}',
  ]
  channels = zip(found['channel_mean'], found['channel_std'])
  rows = [*enumerate(channels), ('all', (found['mean'], found['std']))]
  lines += [f'{i:<7}{mean:>10.4f}{std:>10.4f}' for i, (mean, std) in rows]
  line = f'--config.tokenizer.quantizer.scale={found["scale"]:.4g}'
  if 'shift' in found:
    means = ','.join(f'{x:.4g}' for x in found['shift'])
    line += f" --config.tokenizer.quantizer.shift='({means},)'"
  return '\n'.join([*lines, '', line])
