"""Exports the weights of a run in the format of the PyTorch release.

    arvision export --workdir=runs/var/digits --output=digits_var.pth

The PyTorch code of the release reads the file, and so does `arvision import`.
"""

import argparse

from arvision.commands import run_flags
from arvision.runs import targets
from arvision.runs.released import export_weights


def main(argv: list[str]) -> None:
  """`arvision export`: writes --output."""
  flags, run = run_flags.open_run(parser(), argv)
  targets.check_file(flags.output, '--output')
  with targets.writing(flags.output, '--output'):
    summary = export_weights(run, flags.output)
  print(summary)


def parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  flags = run_flags.parser('export', __doc__)
  flags.add_argument(
    '--output',
    required=True,
    metavar='FILE',
    help='a .safetensors file, or .pth, .pt, .ckpt or .bin for torch.load',
  )
  return flags
