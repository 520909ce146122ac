"""Imports released PyTorch weights, to sample, evaluate and fine-tune.

    arvision import --config=var/tokenizer \\
      --source=vae_ch160v4096z32.pth --workdir=runs/var-tokenizer
    arvision import --config=var/imagenet256:d16 --source=var_d16.pth \\
      --workdir=runs/var-d16

The run is sampled, evaluated and fine-tuned like one that was trained here.
"""

import argparse

from arvision.commands import common
from arvision.runs import targets
from arvision.runs.released import import_weights
from arvision.tasks import assemble


def main(argv: list[str]) -> None:
  """`arvision import`: fills --workdir."""
  flags, overrides = common.parse(parser(), argv)
  config = common.load_config(flags.config, overrides)
  if assemble.open_classes(config):
    config = assemble.complete(config, assemble.make_data(config))
  targets.check_folder(flags.workdir)
  with targets.filling(flags.workdir):
    summary = import_weights(config, flags.source, flags.workdir, flags.weights)
  print(summary)
  print(
    f'{flags.workdir} is ready for sample and eval; to fine-tune: '
    f'arvision train --init_from={flags.workdir}'
  )


def parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  flags = common.parser('import', __doc__)
  common.add_config(flags)
  flags.add_argument(
    '--source',
    required=True,
    action='append',
    metavar='FILE',
    help='.safetensors file, or file of torch.save (.pth, .pt, .ckpt, .bin), '
    'also hf:owner/name/file[@revision] of the Hugging Face hub; code in it is '
    'not executed, and torch is not needed. Given again where a model comes in '
    'several files (HMAR)',
  )
  flags.add_argument(
    '--workdir', required=True, metavar='DIR', help='a folder without a run'
  )
  flags.add_argument(
    '--weights',
    metavar='PLACE',
    help="place in the file, such as 'model_ema' or 'trainer.var_wo_ddp'; "
    'default: the place with the official keys, running averages first',
  )
  return flags
