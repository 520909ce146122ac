"""Trains every family on scikit-learn's digits and writes a table.

    python launch/families.py
    python launch/families.py --only=VAR,RAR --output=runs/families

Families share tokenizers. After an interruption, the same command resumes and
ends with the same table. Writes docs/families.md, with grids and curves in
docs/images/families; `--docs` names another folder. Keeps the lines of families
that are not in --output; every line says on which machine it was made.
"""

import dataclasses
import importlib
import pathlib
import re
import shutil
from collections.abc import Sequence

from training import complete, open_runs, parser, where

from arvision import catalog
from arvision.evals import plots
from arvision.sweeps.points import slug
from arvision.sweeps.runs import Job, Runs
from arvision.training.writers import LOG, read_log

SAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Family:
  """A generator and the tokenizers it needs.

  Attributes:
    name: name in the table.
    generator: its config.
    tokenizers: configs in order of training; the last is the generator's. None
      for a generator of pixels.
    start: config of the generator whose weights it starts with, '' for none.
  """

  name: str
  generator: str
  tokenizers: tuple[str, ...]
  start: str = ''


def config_of(name: str):
  """The config of a name, 'titok/digits_tokenizer:legacy'."""
  name, _, variant = name.partition(':')
  module = importlib.import_module(f'arvision.configs.{name.replace("/", ".")}')
  return module.get_config(variant) if variant else module.get_config()


def teacher(config) -> str | None:
  """The folder of the tokenizer that one is trained from, None for none."""
  return config.get('frozen', {}).get('teacher')


def found() -> tuple[Family, ...]:
  """The generators of digits of every paper.

  A config module may list variants in `FAMILIES` (name in the table ->
  variant). Without it the module is one family with the name of its paper.
  `STARTS` (variant -> another one) says whose weights a variant starts with.
  """
  names, papers = {}, catalog.papers()
  for entry in catalog.entries():
    for variant in ('', *entry.variants):
      name = f'{entry.name}:{variant}' if variant else entry.name
      names['runs/' + name.replace(':', '_')] = name
  families = []
  for name in catalog.names():
    if not re.search('/digits(?!_tokenizer)', name):
      continue
    module = importlib.import_module(
      f'arvision.configs.{name.replace("/", ".")}'
    )
    paper = papers[name.split('/')[0]]['name']
    for title, variant in getattr(module, 'FAMILIES', {paper: ''}).items():
      generator = f'{name}:{variant}' if variant else name
      folder, tokenizers = config_of(generator).frozen.get('tokenizer'), ()
      while folder:
        tokenizers = (names[folder], *tokenizers)
        folder = teacher(config_of(names[folder]))
        if tokenizers[0] == 'titok/digits_tokenizer:legacy':
          folder = 'runs/titok/digits_tokenizer_legacy_warmup'  # `--init_from`
      start = getattr(module, 'STARTS', {}).get(variant, '')
      start = start and f'{name}:{start}'
      families.append(Family(title, generator, tokenizers, start))
  return tuple(families)


FAMILIES = found()


def jobs(runs: Runs, families: Sequence[Family]) -> list[Job]:
  """The runs of families: their tokenizers, starts and generators."""
  found: dict[str, Job] = {}
  for family in families:
    for before, config in zip((None, *family.tokenizers), family.tokenizers):
      flag = '--init_from'
      if teacher(config_of(config)):
        flag = '--config.frozen.teacher'
      flags = [f'{flag}={runs.folder(before)}'] if before else []
      needs = [before] if before else []
      found.setdefault(slug(config), _job(config, flags, needs))
    needs = [*family.tokenizers[-1:]]
    flags = [f'--config.frozen.tokenizer={runs.folder(x)}' for x in needs]
    if family.start:
      found.setdefault(slug(family.start), _job(family.start, flags, needs))
      needs += [family.start]
      flags += [f'--init_from={runs.folder(family.start)}', '--init_partial']
    name = slug(family.generator)
    after = (
      runs.sampling(name),
      runs.evaluation(name, f'--samples={SAMPLES}'),
    )
    found[name] = _job(family.generator, flags, needs, after)
  return list(found.values())


def _job(config, flags, needs, after=()):
  train = (f'--config={config}', *flags)
  return Job(slug(config), train, tuple(map(slug, needs)), after)


def losses(folder: pathlib.Path) -> dict[str, list]:
  """(step, loss) pairs in training and on held-out digits."""
  found: dict[str, list] = {'training': [], 'held out': []}
  for line in read_log(folder / LOG)[0]:
    for name, key in (('training', 'loss'), ('held out', 'held_out/loss')):
      if key in line:
        found[name].append((line['step'], line[key]))
  return found


def row(runs: Runs, family: Family, images: pathlib.Path) -> str:
  """A family's line without the machine; writes its pictures to `images`."""
  folder = runs.folder(family.generator)
  figures = runs.figures(family.generator)
  name = slug(family.generator)
  shutil.copy(runs.grid(family.generator), images / f'{name}.png')
  chart = plots.lines(losses(folder), 'step', '', size=(300, 170))
  (images / f'{name}.svg').write_text(plots.svg(chart), encoding='utf-8')
  minutes = [runs.seconds(config) / 60 for config in family.tokenizers]
  stages = filter(None, (family.start, family.generator))
  own = sum(map(runs.seconds, stages)) / 60
  times = ' + '.join(f'{m:.1f}' for m in (*minutes, own))
  whole = f' = {sum(minutes) + own:.1f}' if minutes else ''
  counts = [
    runs.parameters(x) / 1e6
    for x in (*family.tokenizers[-1:], family.generator)
  ]
  cells = (
    f'{family.name}<br>`{family.generator}`',
    ' + '.join(f'{count:.2f} M' for count in counts),
    times + whole,
    f'![loss](images/families/{name}.svg)',
    f'{100 * figures["class_accuracy"]:.1f} %',
    f'{figures["frechet"]:.2f} ({figures["frechet_of_held_out"]:.2f})',
    _memorised(figures),
    f'{figures["sampling_images_per_second"]:.0f}',
    f'![samples](images/families/{name}.png)',
  )
  return f'| {" | ".join(cells)} |'


def _memorised(figures):
  share = figures.get('memorised')
  return '–' if share is None else f'{100 * share:.1f} %'


def table(page: pathlib.Path) -> dict[str, tuple[str, str]]:
  """Generator -> its line in a page without the last cell, and its machine."""
  text = page.read_text(encoding='utf-8') if page.exists() else ''
  machines = dict(re.findall(r'^(\d+)\. (.+)$', text, re.MULTILINE))
  lines = re.findall(r'^(\|.*<br>`([^`]+)`.*) (\d+) \|$', text, re.MULTILINE)
  return {config: (line, machines[number]) for line, config, number in lines}


def written(rows: list[tuple[str, str]]) -> str:
  """The page of lines without the last cell, and their machines."""
  machines = list(dict.fromkeys(machine for _, machine in rows))
  numbers = {machine: i for i, machine in enumerate(machines, 1)}
  head = HEAD.format(
    samples=SAMPLES,
    machines='\n'.join(f'{i}. {machine}' for machine, i in numbers.items()),
  )
  lines = [f'{line} {numbers[machine]} |' for line, machine in rows]
  return head + '\n'.join(lines) + '\n'


HEAD = """# Every family on digits

Made by `python launch/families.py`. Digits of 8 × 8 px, the small config of every
family, {samples:,} samples. The last column is the machine:

{machines}

Parameters and minutes are those of the tokenizer or tokenizers and of the
generator; minutes are wall time with start and compilation. A tokenizer that
several families share counts in each. Curves are of the generator's loss: blue in
training, orange on held-out digits. Class accuracy is the share of samples that
a classifier (99 % right on held-out digits) takes for the class that was asked
for; the Fréchet distance is over the features of that classifier, of sets of as many
samples as there are held-out digits, in brackets that of these; memorised samples
have all codes of a training image, where tokens are codes; images/s are of sampling
and decoding with batch 100.

Five seeds of one config and one tokenizer, VAR's, differ by ± 0.2 % in class
accuracy and ± 0.04 in Fréchet distance (standard deviations, [ablations/seeds.md](ablations/seeds.md)).

| family | parameters | minutes | loss | class accuracy | Fréchet | memorised | images/s | samples | machine |
|---|---|---|---|---|---|---|---|---|---|
"""


def main() -> None:
  flags = parser(__doc__, 'runs/families')
  flags.add_argument(
    '--only', default='', help='names of families with a comma between'
  )
  flags.add_argument(
    '--beside', default='', help='what else the machine did, for the page'
  )
  args = flags.parse_args()
  # Names may contain commas, so configs are accepted too.
  wanted = [part.strip() for part in args.only.split(',') if part.strip()]
  names = {f.generator: f for f in FAMILIES} | {f.name: f for f in FAMILIES}
  unknown = [name for name in wanted if name not in names]
  if unknown:
    flags.error(f'--only={unknown[0]}: there are {", ".join(names)}')
  chosen = [names[name] for name in wanted] or FAMILIES
  runs = open_runs(args.output)
  complete(runs, jobs(runs, chosen))
  images = args.docs / 'images' / 'families'
  images.mkdir(parents=True, exist_ok=True)
  page = args.docs / 'families.md'
  rows, machine = table(page), where() + (args.beside and f'; {args.beside}')
  for family in FAMILIES:
    if runs.finished(family.generator):
      rows[family.generator] = row(runs, family, images), machine
  lines = [rows[f.generator] for f in FAMILIES if f.generator in rows]
  page.write_text(written(lines), encoding='utf-8')
  print(f'\n{page}: {len(lines)} of {len(FAMILIES)} families')


if __name__ == '__main__':
  main()
