"""Compiles a config ahead of time for a TPU slice: memory and step time.

    arvision plan --config=var/imagenet256:d30 --topology=v5p:4x4x4 \\
      --config.mesh.fsdp=8

Compiles the train step and the sampling step with the TPU compiler, on any
machine. Prints memory per device, FLOPs, communication, and a step time that is
PREDICTED from published figures of the chips. Needs the package libtpu:
pip install 'arvision[plan]'.
"""

import argparse
import json
import pathlib

from arvision.commands import common
from arvision.plan import topology
from arvision.plan.chips import CHIPS
from arvision.ranges import FewOr0, Natural, number


def main(argv: list[str]) -> int:
  """`arvision plan`: prints plans; returns 1 if a program does not fit."""
  flags, overrides = common.parse(parser(), argv)
  where = topology.parse(flags.topology)
  config = common.load_config(flags.config, overrides)
  topology.prepare(where)
  from arvision.plan import answer, report
  from arvision.tasks import assemble

  kinds = ('train', 'sample') if assemble.is_generator(config) else ('train',)
  if flags.program != 'both':
    kinds = (flags.program,)
  plans = []
  for kind in kinds:
    question = answer.Question(
      flags.config, config, where, kind, flags.cached, flags.sample_batch
    )
    if flags.search:
      found = answer.search(question, flags.search)
    else:
      found = [answer.plan(question, again=flags.again)]
    plans += found
    print('\n\n'.join(map(report.text, found)) + '\n', flush=True)
  if flags.json:
    text = json.dumps([plan.to_json() for plan in plans], indent=1)
    pathlib.Path(flags.json).write_text(text + '\n', encoding='utf-8')
  # One plan per program must fit.
  fit = dict.fromkeys(kinds, False)
  for plan in plans:
    fit[plan.kind] |= plan.fits
  return 0 if all(fit.values()) else 1


def parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  flags = common.parser('plan', __doc__)
  common.add_config(flags)
  flags.add_argument(
    '--topology',
    required=True,
    metavar='KIND:SHAPE',
    help=f'kind of chip ({", ".join(CHIPS)}) and number of chips along every '
    'axis of the interconnect: v5e:4x4, v5p:4x4x4',
  )
  flags.add_argument(
    '--program',
    choices=('both', 'train', 'sample'),
    default='both',
    help='programs to compile (both; a tokenizer only has a train step)',
  )
  flags.add_argument(
    '--cached',
    action='store_true',
    help='train on cached tokens of arvision encode instead of images',
  )
  flags.add_argument(
    '--sample_batch',
    type=number(Natural),
    default=0,
    help='global batch size of sampling; default: config.data.batch_size',
  )
  flags.add_argument(
    '--search',
    type=number(FewOr0),
    nargs='?',
    const=6,
    default=0,
    metavar='COUNT',
    help='compile the COUNT most promising meshes (6) instead of config.mesh, '
    'and list the best first',
  )
  flags.add_argument(
    '--again', action='store_true', help='compile even if a plan is cached'
  )
  flags.add_argument(
    '--json', default='', metavar='FILE', help='also write all figures as JSON'
  )
  return flags
