"""Prints a script for a shell, which then completes commands and flags.

    eval "$(arvision completion bash)"
    eval "$(arvision completion zsh)"
    arvision completion fish | source

A line of these, in the file that your shell reads when it starts, completes
commands, flags, their choices, and the names of configs.
"""

import argparse

from arvision.commands import common, shells
from arvision.errors import ConfigError


def main(argv: list[str]) -> None:
  """`arvision completion`: prints the script."""
  flags, overrides = common.parse(parser(), argv)
  if overrides:
    raise ConfigError(f"'--config.{overrides[0]}': wanted bash, zsh or fish")
  print(shells.script(flags.shell))


def parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  flags = common.parser('completion', __doc__)
  flags.add_argument(
    'shell', choices=tuple(shells.SCRIPTS), help='the shell that reads it'
  )
  return flags
