"""Says what this machine has, and which feature lacks what.

    arvision doctor
    arvision doctor --json

Looks at versions, devices, memory, data and folders. '-' marks what is optional
and absent, '!' what stops runs; an arrow points to the line that mends it. The
last line says whether all is well. Nothing is downloaded.
"""

import argparse
import json
import os

from arvision.commands import common
from arvision.errors import ConfigError


def main(argv: list[str]) -> None:
  """`arvision doctor`: prints the report."""
  flags, overrides = common.parse(parser(), argv)
  if overrides:
    raise ConfigError(f"'--config.{overrides[0]}': doctor looks at no config")
  # A training beside this one may hold the memory of the device.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  from arvision.runs import doctor  # it imports JAX

  found = doctor.examine()
  if flags.json:
    print(json.dumps(doctor.to_json(found), indent=2))
  else:
    print(doctor.text(found))


def parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  flags = common.parser('doctor', __doc__)
  flags.add_argument(
    '--json', action='store_true', help='print the report as JSON'
  )
  return flags
