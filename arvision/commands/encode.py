"""Encodes a data set into shards of tokens, for training.

    arvision encode --workdir=runs/var/digits_tokenizer --output=data/tokens

A generator that trains on cached tokens runs no tokenizer in its steps.
"""

import argparse
import pathlib

from arvision.commands import run_flags
from arvision.data.preparation import VIEWS
from arvision.ranges import Batch, Few, number
from arvision.runs import targets
from arvision.runs.encode import encode


def main(argv: list[str]) -> None:
  """`arvision encode`: writes --output with the tokenizer of --workdir."""
  flags, run = run_flags.open_run(parser(), argv)
  targets.check_folder(flags.output, '--output')
  with targets.writing(flags.output, '--output'):
    counts = encode(
      run, flags.output, flags.views, flags.batch_size, flags.shards
    )
  print(f'{flags.output}: {counts}')
  print(
    "to train on it: --config.data.type='data.latents.CachedTokens' "
    f"--config.data.path='{flags.output}'"
  )


def parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  flags = run_flags.parser('encode', __doc__)
  flags.add_argument(
    '--output',
    required=True,
    type=pathlib.Path,
    metavar='DIR',
    help='a new or empty folder',
  )
  flags.add_argument(
    '--views',
    choices=VIEWS,
    default='center',
    help='views of every training image: the centre crop; the centre crop and '
    'its mirror image; or five crops and their mirror images (center)',
  )
  flags.add_argument(
    '--batch_size', type=number(Batch), default=64, help='views per call (64)'
  )
  flags.add_argument(
    '--shards', type=number(Few), default=16, help='files per split (16)'
  )
  return flags
