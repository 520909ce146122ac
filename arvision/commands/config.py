"""Prints a config, or its differences from another config.

    arvision config var/imagenet256:d30
    arvision config var/imagenet256:d30 --diff var/imagenet256:d16

`--config.KEY=VALUE` sets a key first. `arvision train --dry_run` prints the
config as a run would have it, and what the run would do.
"""

import argparse

from arvision.commands import common
from arvision.training import differences


def main(argv: list[str]) -> int:
  """`arvision config`: prints a line 'config.KEY=VALUE' per key."""
  flags, overrides = common.parse(parser(), argv)
  config = common.load_config(flags.config, overrides)
  if flags.diff:
    other = common.load_config(flags.diff)
    for key, (there, here) in differences.changes(other, config).items():
      print(f'{key}: {here!r}, {there!r} in {flags.diff}')
  else:
    plain = config.copy_and_resolve_references().to_dict()
    for key, value in differences.flat(plain, 'config'):
      print(f'{key}={value!r}')
  return 0


def parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  flags = common.parser('config', __doc__)
  flags.add_argument(
    'config',
    metavar='NAME[:ARG]',
    help="name of a config such as 'var/digits', or a config file",
  )
  flags.add_argument(
    '--diff',
    metavar='NAME[:ARG]',
    help='only print keys with other values in this config',
  )
  return flags
