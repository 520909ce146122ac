"""Prints a config, whole, or how it differs from another one.

    arvision config var/imagenet256:d30
    arvision config var/imagenet256:d30 --diff var/imagenet256:d16

`--config.KEY=VALUE` changes it before.
"""

import argparse

from arvision.commands import common
from arvision.training import differences


def main(argv: list[str]) -> int:
  """`arvision config`: a line for every key, as --config.KEY takes it."""
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
    'config', metavar='NAME[:ARG]', help="a config, 'var/digits', or a file"
  )
  flags.add_argument(
    '--diff',
    metavar='NAME[:ARG]',
    help='print only the keys whose values are others in this config',
  )
  return flags
