"""Fits scaling laws to runs of different sizes, and predicts larger ones.

    arvision scaling --config=ablations/sizes --sizes=scale_1,scale_2,scale_3 \\
      --output=runs/scaling
    arvision scaling --workdir=runs/a --workdir=runs/b --workdir=runs/c \\
      --output=runs/scaling

With --workdir flags, collects finished runs. With --config and --sizes, trains
the sizes first, in folders of --output; finished ones are not trained again.
"""

import argparse
import dataclasses
import json
import pathlib
from dataclasses import asdict
from typing import Any

import jax

from arvision.commands import common, run_flags
from arvision.errors import ConfigError
from arvision.parallel import host
from arvision.ranges import Seed, number
from arvision.runs import scaling, targets

REPORT = 'scaling.json'


def main(argv: list[str]) -> None:
  """`arvision scaling`: writes scaling.json and plots, and prints the laws."""
  flags, overrides = common.parse(parser(), argv)
  sizes = [s for s in (flags.sizes or '').split(',') if s]
  _check(flags, sizes, overrides)
  output = pathlib.Path(flags.output)
  targets.check_folder(output, '--output')
  names = [*sizes, flags.next] if flags.next else sizes
  configs = {
    name: common.load_config(f'{flags.config}:{name}', overrides)
    for name in names
  }
  if configs:
    host.use_compilation_cache()
    host.initialize()
  for name in sizes:
    _train(configs[name], output / name)
  points = [
    scaling.collect(pathlib.Path(f), flags.allow) for f in flags.workdir or ()
  ]
  # Their parts are those of --config, which `train` has compared.
  points += [scaling.collect(output / name, None) for name in sizes]
  laws = [
    scaling.fit(points, axis, flags.seed) for axis in scaling.axes(points)
  ]
  host.say(_table(points, laws))
  if not flags.next:
    _write(output, points, laws)
  else:
    wanted = scaling.planned(flags.next, configs[flags.next])
    ahead = scaling.predictions(points, wanted, flags.seed)
    # Written before the model is trained.
    _write(output, points, laws, ahead)
    host.say(_text(ahead))
    _train(configs[flags.next], output / flags.next)
    loss = scaling.collect(output / flags.next, None).loss
    ahead = [dataclasses.replace(p, measured=loss) for p in ahead]
    _write(output, points, laws, ahead)
    host.say(_text(ahead))
  host.say(f'{output / REPORT}')


def _table(points, laws):
  width = max(len(p.name) for p in points)
  lines = [
    f'{p.name:<{width}}  {p.parameters:>13,} parameters  {p.tokens:>15,} tokens'
    f'  held-out loss {p.loss:.4f}'
    for p in points
  ]
  for law in laws:
    text = f'L = ({law.beta:.3g} X)^{law.alpha:.4f}, X = {law.axis}'
    if law.alpha_range:
      low, high = law.alpha_range
      text += f', exponent {low:.4f} to {high:.4f} (95 % bootstrap)'
    lines.append(f'{text}, correlation {law.correlation:.4f}')
  return '\n'.join(lines)


def _text(predictions):
  lines = []
  for p in predictions:
    text = f'{p.name}, by {p.axis}: predicted loss {p.loss:.4f}'
    if p.interval:
      text += f' ({p.interval[0]:.4f} to {p.interval[1]:.4f})'
    if p.measured is not None:
      text += f', measured {p.measured:.4f}, error {100 * p.error:+.2f} %'
    lines.append(text)
  return '\n'.join(lines)


def _check(flags, sizes, overrides):
  if bool(flags.workdir) == bool(sizes):
    raise ConfigError('wanted either --workdir flags, or --config and --sizes')
  if sizes and not flags.config:
    raise ConfigError('--sizes needs --config')
  if flags.workdir and (flags.config or flags.next or overrides):
    raise ConfigError(
      '--config, --next and --config.KEY go with --sizes, not with --workdir'
    )
  if flags.next in sizes:
    raise ConfigError(f"--next='{flags.next}' is among --sizes")
  if len(sizes or flags.workdir) < scaling.LEAST:
    raise ConfigError(
      f'a scaling law needs at least {scaling.LEAST} models, got '
      f'{len(sizes or flags.workdir)}'
    )


def _train(config: Any, folder: pathlib.Path) -> None:
  # Imported after `initialize`, since it may query devices.
  from arvision.runs.train import train

  with targets.filling(folder):
    result = train(config, folder)
  if result.step < result.total:
    raise SystemExit(128 + result.signal if result.signal else 1)
  jax.clear_caches()


def _write(output, points, laws, ahead=()):
  if jax.process_index() == 0:
    record = {
      'points': [{**asdict(p), 'compute': p.compute} for p in points],
      'laws': [asdict(law) for law in laws],
      'next': [p.to_json() for p in ahead],
    }
    text = json.dumps(record, indent=2) + '\n'
    targets.write_text(output / REPORT, text, '--output')
    for law in laws:
      found = [p for p in ahead if p.axis == law.axis]
      svg = scaling.chart({output.name: (points, law)}, {output.name: found})
      targets.write_text(output / f'{law.axis}.svg', svg, '--output')


def parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  flags = common.parser('scaling', __doc__)
  common.add_config(flags, required=False)
  flags.add_argument(
    '--sizes',
    metavar='LIST',
    help='variants of --config to train, separated by commas',
  )
  flags.add_argument(
    '--next',
    metavar='SIZE',
    help='a further variant: its loss is predicted and written down, then it is '
    'trained, and the error stated',
  )
  flags.add_argument(
    '--workdir',
    action='append',
    metavar='DIR',
    help='folder of a finished run; repeat the flag',
  )
  run_flags.add_allow(flags)
  flags.add_argument(
    '--output', required=True, metavar='DIR', help='output folder'
  )
  flags.add_argument(
    '--seed', type=number(Seed), default=0, help='of the bootstrap intervals'
  )
  return flags
