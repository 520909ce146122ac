"""Plans the published models on TPU slices and writes a table.

    python launch/plans.py
    python launch/plans.py --only=VAR-d30 --limit=1
    python launch/plans.py --limit=0

Nothing runs on a TPU, see `arvision plan --help`; a large model takes minutes
to compile. Plans are cached, so an interrupted command resumes. The table in
docs/parallelism.md is rewritten after every plan. Lines of plans that are no
longer cached, because the source has changed, stay. `--limit=0` only rewrites
the table.
"""

import argparse
import dataclasses
import pathlib
import re
import subprocess
import sys

from arvision.commands import common
from arvision.configs.var import tokenizer
from arvision.plan import topology
from arvision.plan.answer import Question
from arvision.plan.report import Plan, gib, mesh_text

BEGIN, END = '<!-- plans: begin -->', '<!-- plans: end -->'


@dataclasses.dataclass(frozen=True)
class Case:
  """A line of the table.

  Attributes:
    name: name of the model.
    config: its config.
    where: topology.
    overrides: 'key=value' of the config.
    kind: 'train' or 'sample'.
    cached: whether batches hold tokens, as in the config's docstring.
  """

  name: str
  config: str
  where: str
  overrides: tuple[str, ...]
  kind: str = 'train'
  cached: bool = False

  @property
  def label(self) -> str:
    what = 'sampling' if self.kind == 'sample' else 'training'
    return f'{self.name}, {what} | {self.where}'

  @property
  def question(self) -> Question:
    config = common.load_config(self.config, self.overrides)
    where = topology.parse(self.where)
    return Question(self.config, config, where, self.kind, self.cached)

  def flags(self) -> list[str]:
    found = [
      f'--config={self.config}',
      f'--topology={self.where}',
      f'--program={self.kind}',
      *(f'--config.{text}' for text in self.overrides),
    ]
    return [*found, '--cached'] if self.cached else found


# 8 shards of the parameters in all slices: they stay wide enough to be gathered
# without padding, and the traffic along `data`, the gradient of a shard, does
# not grow with the number of chips.
BLOCK = ('mesh.fsdp=8',)
# Two chips share the heads of an image: 768 images are no multiple of 512, and
# some models have few tokens per chip for the weights that it reads.
PAIRS = (*BLOCK, 'mesh.tensor=2')
# LlamaGen-3B has 256 images for 256 and 512 chips. Eight chips share the heads,
# and each gathers and reads an eighth of the weights.
EIGHTS = (*BLOCK, 'mesh.tensor=8')
MODELS = {
  'VAR-d30': ('configs/var/imagenet256.py:d30', False),
  'LlamaGen-3B': ('configs/llamagen/imagenet256.py:3B', True),
  'VAR-d24': ('configs/var/imagenet256.py:d24', False),
  'VAR-d16': ('configs/var/imagenet256.py:d16', False),
  'VAR-d20': ('configs/var/imagenet256.py:d20', False),
  'xAR-H': ('configs/xar/imagenet256.py:H', True),
  'MAR-H': ('configs/mar/imagenet256.py:H', True),
  'FlowAR-H': ('configs/flowar/imagenet256.py:H', False),
}
# Weak scaling with one image per chip, from 64 to 4,096 chips.
LARGE = 'VAR-d60'
SLICES = {'v5p:8x8x8': 512, 'v5p:16x16x16': 4096, 'v5p:4x4x4': 64}
# What scales that see themselves alone save, with the number of tokens.
MARKOV = {
  'VAR-d16': 'configs/var/imagenet256.py:d16',
  'HMAR-d16 (stage 1)': 'configs/hmar/imagenet256.py:d16_nsp',
}
MARKOV_SIDES = ('512', '1024')
MARKOV_WHERE = 'v5p:4x4x4'


def cases() -> list[Case]:
  """All lines, the most important first."""
  found = []
  for where in ('v5p:4x4x4', 'v5p:8x8x8', 'v6e:16x16', 'v5e:16x16'):
    for name, (config, cached) in MODELS.items():
      found.append(Case(name, config, where, _mesh(name, where), cached=cached))
    if where == 'v5p:4x4x4':
      found += [_large(*slice) for slice in SLICES.items()]
  for name, (config, _) in MODELS.items():
    found.append(Case(name, config, 'v5p:4x4x4', ('mesh.fsdp=1',), 'sample'))
  return found + [_markov(n, s) for s in MARKOV_SIDES for n in MARKOV]


def _mesh(name, where):
  if name == 'LlamaGen-3B':
    return PAIRS if where == 'v5p:4x4x4' else EIGHTS
  few = name.startswith('VAR') and where == 'v5p:8x8x8'
  return PAIRS if few else BLOCK


def _large(where, chips):
  mesh = (*BLOCK, f'data.batch_size={chips}')
  return Case(LARGE, 'configs/var/imagenet1024.py:d60', where, mesh)


def _markov(name, side):
  scales = f'{tokenizer.SIDES[side]}'
  overrides = (
    *BLOCK,
    f'data.size=({side}, {side})',
    f'layout.scales={scales}',
    f'tokenizer.scales={scales}',
  )
  name = f'{name} at {side} px'
  return Case(
    name, MARKOV[name.split(' at ')[0]], MARKOV_WHERE, overrides, cached=True
  )


def row(plan: Plan, case: Case) -> str:
  """A line of the table."""
  head = f'{case.label} | {mesh_text(plan.mesh)} | {plan.images:,}'
  size = f'{plan.parameters / 1e6:,.0f} M'
  found = plan.prediction
  if found is None:
    return f'| {head} | {size} | does not fit: {plan.refusal} | | | | | |'
  total = gib(plan.memory['total'])
  total += '' if plan.fits else ', does not fit'
  terms = (found.compute, found.memory, found.collectives)
  times = ' / '.join(f'{1e3 * seconds:,.1f}' for seconds in terms)
  cells = (
    head,
    size,
    total,
    gib(plan.moved),
    f'{times} = {1e3 * found.step:,.1f}',
    f'{found.images_per_second:,.0f}',
    f'{100 * found.mfu:.0f} %',
    found.bound,
  )
  return f'| {" | ".join(cells)} |'


HEAD = """Made by `python launch/plans.py` with {versions}. Bytes are of one chip; ms
are predicted: compute / memory / collectives = step.

| program | topology | mesh | images | parameters | memory | sent | ms | images/s | MFU | largest term |
|---|---|---|---|---|---|---|---|---|---|---|
"""


def write(page: pathlib.Path, chosen: list[Case]) -> int:
  """Writes the table between its marks; returns the number of lines."""
  text = page.read_text(encoding='utf-8')
  before, rest = text.split(BEGIN)
  table, after = rest.split(END)
  lines = {
    ' | '.join(line.split(' | ')[:2]).removeprefix('| '): line
    for line in table.splitlines()
    if re.match(r'\| .*, (training|sampling) \|', line)
  }
  versions = re.findall(r'with (jax .*?)\. Bytes', table)
  for case in chosen:
    path = case.question.path()
    if path.exists():
      plan = Plan.load(path)
      lines[case.label] = row(plan, case)
      versions = [', '.join(f'{k} {v}' for k, v in plan.versions.items())]
  order = [case.label for case in cases() if case.label in lines]
  if order:
    head = HEAD.format(versions=versions[0])
    table = head + '\n'.join(lines[label] for label in order) + '\n'
    table += _weak_scaling(lines) + _markov_ratios(lines)
    page.write_text(f'{before}{BEGIN}\n{table}{END}{after}', encoding='utf-8')
  return len(order)


def _weak_scaling(lines) -> str:
  """A sentence on the bytes that a chip sends in slices of growing size."""
  sent = {}
  for where, chips in sorted(SLICES.items(), key=lambda pair: pair[1]):
    cells = lines.get(f'{LARGE}, training | {where}', '').split(' | ')
    if len(cells) < 7 or not cells[6].endswith(' GiB'):
      return ''
    sent[chips] = float(cells[6].removesuffix(' GiB').replace(',', ''))
  each = ', '.join(f'{n:,.2f} GiB on {chips:,}' for chips, n in sent.items())
  more = max(sent.values()) / min(sent.values()) - 1
  return (
    f'\nWeak scaling of {LARGE}, one image on a chip: a chip sends {each}; the '
    f'largest is {100 * more:.1f} % above the smallest.\n'
  )


def _markov_ratios(lines) -> str:
  """A sentence on the predicted steps of VAR over those of HMAR."""
  ratios = {}
  for side in MARKOV_SIDES:
    cells = [
      lines.get(f'{_markov(n, side).label}', '').split(' | ') for n in MARKOV
    ]
    if any(len(x) < 8 or ' = ' not in x[7] for x in cells):
      return ''
    full, own = (float(x[7].split(' = ')[1].replace(',', '')) for x in cells)
    ratios[side] = f'{full / own:.2f} at {side} px'
  return (
    '\nA step of VAR-d16 over one of HMAR-d16 in its first stage, over stored '
    f'tokens: {", ".join(ratios.values())}.\n'
  )


def main() -> None:
  flags = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  flags.add_argument('--docs', type=pathlib.Path, default=pathlib.Path('docs'))
  flags.add_argument('--only', default='', help='names of models')
  flags.add_argument('--limit', type=int, help='compile at most so many now')
  args = flags.parse_args()
  wanted = [name for name in args.only.split(',') if name]
  names = list(dict.fromkeys(case.name for case in cases()))
  for name in wanted:
    if name not in names:
      flags.error(f'--only={name}: there are {", ".join(names)}')
  chosen = [case for case in cases() if not wanted or case.name in wanted]
  page = args.docs / 'parallelism.md'
  missing = [case for case in chosen if not case.question.path().exists()]
  for case in missing[: args.limit]:
    print(f'\n== {case.label}', flush=True)
    command = [sys.executable, '-m', 'arvision', 'plan', *case.flags()]
    done = subprocess.run(command)
    if done.returncode > 1:
      sys.exit(done.returncode)
    write(page, chosen)
  count = write(page, chosen)
  print(f'\n{page}: {count} of {len(cases())} plans')


if __name__ == '__main__':
  main()
