"""Trains every family on scikit-learn's digits and makes a table of them.

    python launch/families.py
    python launch/families.py --only=VAR,RAR --output=runs/families

Tokenizers that families share are trained once. What was stopped goes on, what
is done is not done again: the command that was interrupted, given once more,
ends with the same table. It is written to docs/families.md, with the grids and
curves beside it in docs/images/families; `--docs` names another folder.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

from arvision.evals import chart

SAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Family:
  """A generator and the tokenizers it needs.

  Attributes:
    name: in the table.
    generator: config under configs/digits.
    tokenizers: configs, in order of training; the last one's codes are drawn.
  """

  name: str
  generator: str
  tokenizers: tuple[str, ...]


LEGACY = ('maskgit_vq:few', 'titok_warmup', 'titok_legacy')
FAMILIES = (
  Family('VAR', 'var', ('tokenizer',)),
  Family('FlexVAR', 'flexvar', ('pyramid_vq',)),
  Family('LlamaGen', 'llamagen', ('vq',)),
  Family('LlamaGen, captions', 'llamagen_t2i', ('vq',)),
  Family('NAR', 'nar', ('vq',)),
  Family('RAR', 'rar', ('maskgit_vq',)),
  Family('MaskGIT', 'maskgit', ('maskgit_vq',)),
  Family('TiTok', 'titok_uvit', ('titok',)),
  Family('TiTok, legacy', 'titok_uvit:legacy', LEGACY),
)


class Runs:
  """The runs of all families in one folder.

  Attributes:
    root: of the folder.
  """

  def __init__(self, root: pathlib.Path):
    self.root = root
    root.mkdir(parents=True, exist_ok=True)

  def folder(self, config: str) -> pathlib.Path:
    return self.root / config.replace(':', '_')

  def train(self, config: str, *flags: str) -> None:
    """Trains a config, to its end, and notes how long it took."""
    folder = self.folder(config)
    note = folder.with_suffix('.seconds.json')
    spent = json.loads(note.read_text()) if note.exists() else {'seconds': 0}
    if spent.get('done'):
      return
    begin = time.time()

    def keep(done):
      seconds = spent['seconds'] + time.time() - begin
      note.write_text(json.dumps({'seconds': seconds, 'done': done}))

    # Noted as it goes, so that the time of a run that is killed counts.
    arvision(
      'train',
      f'--config=digits/{config}',
      f'--workdir={folder}',
      *flags,
      meanwhile=lambda: keep(False),
    )
    keep(True)

  def seconds(self, config: str) -> float:
    note = self.folder(config).with_suffix('.seconds.json')
    return json.loads(note.read_text())['seconds']

  def family(self, family: Family) -> None:
    """Trains, samples and evaluates all that a family needs."""
    for before, config in zip((None, *family.tokenizers), family.tokenizers):
      flags = []
      if config == 'titok_warmup':
        flags = [f'--config.task.teacher_workdir={self.folder(before)}']
      elif before:
        flags = [f'--init_from={self.folder(before)}']
      self.train(config, *flags)
    tokenizer = self.folder(family.tokenizers[-1])
    self.train(family.generator, f'--config.tokenizer_workdir={tokenizer}')
    folder = self.folder(family.generator)
    if not (folder / 'samples' / 'grid' / 'grid.png').exists():
      arvision(
        'sample',
        f'--workdir={folder}',
        '--labels=all',
        '--number=10',
        '--batch_size=100',
        '--name=grid',
      )
    if not (folder / 'eval.json').exists():
      arvision('eval', f'--workdir={folder}', f'--samples={SAMPLES}')


def arvision(*args: str, meanwhile: Callable[[], None] = lambda: None) -> None:
  """Runs a command of this installation.

  Args:
    *args: of the command.
    meanwhile: called every few seconds.

  Raises:
    subprocess.CalledProcessError: the command failed.
  """
  command = [sys.executable, '-m', 'arvision', *args]
  print('\n== arvision', *args, flush=True)
  # See launch/experiment.sh.
  tunables = os.environ.get('GLIBC_TUNABLES', 'glibc.malloc.hugetlb=1')
  environment = {**os.environ, 'GLIBC_TUNABLES': tunables}
  with subprocess.Popen(command, env=environment) as process:
    while process.returncode is None:
      meanwhile()
      with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)
  if process.returncode:
    raise subprocess.CalledProcessError(process.returncode, command)


def parameters(folder: pathlib.Path) -> int:
  """Of a run, by the last line of its list."""
  text = (folder / 'parameters.txt').read_text()
  (line,) = (x for x in text.splitlines() if x.startswith('Total'))
  return int(line.split(':')[1].split()[0].replace(',', ''))


def losses(folder: pathlib.Path) -> dict[str, list]:
  """Name -> (step, loss) in training and on held-out digits."""
  found: dict[str, list] = {'training': [], 'held out': []}
  for text in (folder / 'log.jsonl').read_text().splitlines():
    line = json.loads(text)
    for name, key in (('training', 'loss'), ('held out', 'held_out/loss')):
      if key in line:
        found[name].append((line['step'], line[key]))
  return found


def row(runs: Runs, family: Family, images: pathlib.Path) -> str:
  """A family's line of the table; its pictures go to `images`."""
  folder = runs.folder(family.generator)
  figures = json.loads((folder / 'eval.json').read_text())['headline']
  name = family.generator.replace(':', '_')
  shutil.copy(folder / 'samples' / 'grid' / 'grid.png', images / f'{name}.png')
  svg = chart.line_chart(losses(folder), size=(300, 170))
  style = (
    '<style>.axis{font:10px sans-serif;fill:#555}.rule{stroke:#ddd}</style>'
  )
  (images / f'{name}.svg').write_text(svg.replace('>', f'>{style}', 1) + '\n')
  minutes = [runs.seconds(config) / 60 for config in family.tokenizers]
  own = runs.seconds(family.generator) / 60
  tokenizers = ' + '.join(f'{m:.1f}' for m in minutes)
  cells = (
    f'{family.name}<br>`digits/{family.generator}`',
    f'{parameters(runs.folder(family.tokenizers[-1])) / 1e6:.2f} M'
    f' + {parameters(folder) / 1e6:.2f} M',
    f'{tokenizers} + {own:.1f} = {sum(minutes) + own:.1f}',
    f'![loss](images/families/{name}.svg)',
    f'{100 * figures["class_accuracy"]:.1f} %',
    f'{figures["frechet"]:.2f} ({figures["frechet_of_held_out"]:.2f})',
    f'{100 * figures["memorised"]:.1f} %',
    f'{figures["sampling_images_per_second"]:.0f}',
    f'![samples](images/families/{name}.png)',
  )
  return f'| {" | ".join(cells)} |'


HEAD = """# Every family on digits

Made by `python launch/families.py` on {machine}, {cores} cores, jax {jax}. Digits
of 8 × 8 px, the small config of every family, {samples:,} samples.

Parameters and minutes are those of the tokenizer or tokenizers and of the
generator; minutes are wall time with start and compilation. A tokenizer that
several families share counts in each. Curves are of the generator's loss: blue in
training, orange on held-out digits. Class accuracy is the share of samples that
a classifier (99 % right on held-out digits) takes for the class that was asked
for; the Fréchet distance is over the features of that classifier, in brackets that
of the held-out digits; memorised samples have all codes of a training image;
images/s are of sampling and decoding with batch 100.

| family | parameters | minutes | loss | class accuracy | Fréchet | memorised | images/s | samples |
|---|---|---|---|---|---|---|---|---|
"""


def processor() -> str:
  """What the machine computes on."""
  import jax

  device = jax.devices()[0]
  if device.platform != 'cpu':
    return device.device_kind
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
    return next(x.split(':')[1].strip() for x in lines if 'model name' in x)
  except (OSError, StopIteration):
    return platform.processor() or platform.machine()


def main() -> None:
  flags = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  flags.add_argument(
    '--output', type=pathlib.Path, default=pathlib.Path('runs/families')
  )
  flags.add_argument('--docs', type=pathlib.Path, default=pathlib.Path('docs'))
  flags.add_argument(
    '--only', default='', help='names of families with a comma between'
  )
  args = flags.parse_args()
  # A name may have a comma in it: the configs name the families too.
  wanted = [part.strip() for part in args.only.split(',') if part.strip()]
  names = {f.generator: f for f in FAMILIES} | {f.name: f for f in FAMILIES}
  unknown = [name for name in wanted if name not in names]
  if unknown:
    flags.error(f'--only={unknown[0]}: there are {", ".join(names)}')
  chosen = [names[name] for name in wanted] or FAMILIES
  runs = Runs(args.output)
  for family in chosen:
    runs.family(family)
  import jax

  images = args.docs / 'images' / 'families'
  images.mkdir(parents=True, exist_ok=True)
  done = [
    f for f in FAMILIES if (runs.folder(f.generator) / 'eval.json').exists()
  ]
  head = HEAD.format(
    machine=processor(),
    cores=os.cpu_count(),
    jax=jax.__version__,
    samples=SAMPLES,
  )
  lines = [row(runs, family, images) for family in done]
  page = args.docs / 'families.md'
  page.write_text(head + '\n'.join(lines) + '\n', encoding='utf-8')
  print(f'\n{page}: {len(lines)} of {len(FAMILIES)} families')


if __name__ == '__main__':
  main()
