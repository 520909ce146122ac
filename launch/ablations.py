"""Compares variants of one model on scikit-learn's digits, seeds paired.

    python launch/ablations.py --study=orders
    python launch/ablations.py --study=entities --seeds=0,1,2

Every variant is trained once for every seed, over one tokenizer. What was stopped
goes on, what is done is not done again: the command that was interrupted, given
once more, ends with the same table. It is written to docs/ablations/<study>.md
with its plot beside it; `--docs` names another folder.
"""

import argparse
import dataclasses
import pathlib
import shutil

from training import Runs, parameters, where

from arvision.evals import chart

SAMPLES = 1000
# Of guidance.
SCALES = (1.0, 1.5, 2.0)


@dataclasses.dataclass(frozen=True)
class Study:
  """Variants that are compared.

  Attributes:
    title: of the page.
    question: what is varied, and what is not.
    tokenizer: config, shared by all.
    variants: name in the table -> config.
    flags: of `arvision train`, for all variants.
    scale: key of the scale of guidance, where the best of `SCALES` is taken.
  """

  title: str
  question: str
  tokenizer: str
  variants: dict[str, str]
  flags: tuple[str, ...] = ()
  scale: str = ''


# So that two seeds of every variant are done within half an hour.
SHORTER = ('--config.train.duration.epochs=40',)
STUDIES = {
  'orders': Study(
    'Orders of prediction',
    'One transformer over the codes of one plain VQ, at equal depth, width and '
    'schedule: next token, next diagonal, next scale, many tokens at once.',
    'llamagen/digits_tokenizer',
    {
      'next token': 'ablations/orders:token',
      'next diagonal': 'ablations/orders:diagonal',
      'next scale': 'ablations/orders:scale',
      'masked': 'ablations/orders:masked',
    },
    scale='sampler.guidance.scale',
  ),
  'entities': Study(
    'The entities of xAR',
    'What one step of xAR brings from noise to data, over one KL tokenizer: a cell '
    'of 2 × 2 latents, one latent, every second one, the whole latent at three '
    'sizes, the whole latent at once.',
    'mar/digits_tokenizer',
    {
      'cell': 'xar/digits:cell',
      'token': 'xar/digits:token',
      'subsample': 'xar/digits:subsample',
      'scale': 'xar/digits:scale',
      'image': 'xar/digits:image',
    },
    flags=SHORTER,
  ),
  'heads': Study(
    'Heads over latents',
    'One masked transformer over one KL tokenizer, at equal depth, width and '
    'schedule, whose tokens are drawn by diffusion (MAR), by flow matching with the '
    'same MLP, and in levels, channel by channel (TokenBridge).',
    'mar/digits_tokenizer',
    {
      'diffusion': 'ablations/heads:diffusion',
      'flow': 'ablations/heads:flow',
      'categorical': 'ablations/heads:categorical',
    },
    flags=SHORTER,
    scale='sampler.guidance.end',
  ),
  'contexts': Study(
    'What xAR sees of the past in training',
    'Cells of xAR over one KL tokenizer, whose past in training is as noisy as it '
    'happens to be, clean (teacher forcing), less noisy than the cell, or noisier.',
    'mar/digits_tokenizer',
    {
      'independent': 'xar/digits:cell',
      'clean': 'xar/digits:clean',
      'rising': 'xar/digits:rising',
      'falling': 'xar/digits:falling',
    },
    flags=SHORTER,
  ),
}


@dataclasses.dataclass(frozen=True)
class Measured:
  """A variant.

  Attributes:
    figures: the headline of `arvision eval` of every seed.
    grid: picture of the first seed.
    parameters: of the generator.
    scale: of guidance, or None for that of the config.
  """

  figures: list[dict[str, float]]
  grid: pathlib.Path
  parameters: int
  scale: float | None = None

  def mean(self, key: str) -> float:
    return sum(f[key] for f in self.figures) / len(self.figures)


def measure(runs: Runs, study: Study, seeds: list[int]) -> dict[str, Measured]:
  """Trains what is not there; variant -> what came out."""
  runs.train(study.tokenizer)
  flags = (
    f'--config.frozen.tokenizer={runs.folder(study.tokenizer)}',
    *study.flags,
  )
  for seed in seeds:
    for config in study.variants.values():
      name = f'{config}_seed{seed}'
      runs.train(config, *flags, f'--config.seed={seed}', name=name)
  return {
    name: min(
      (_drawn(runs, study, config, seeds, scale) for scale in _scales(study)),
      key=lambda found: found.mean('frechet'),
    )
    for name, config in study.variants.items()
  }


def _scales(study):
  return SCALES if study.scale else (None,)


def _drawn(runs, study, config, seeds, scale):
  """A variant with a scale of guidance."""
  names = [f'{config}_seed{seed}' for seed in seeds]
  flags, suffix = (), ''
  if scale is not None:
    flags, suffix = (f'--config.{study.scale}={scale}',), f'_guidance_{scale}'
  return Measured(
    [runs.evaluate(n, SAMPLES, *flags, label=f'eval{suffix}') for n in names],
    runs.grid(names[0], *flags, label=f'grid{suffix}'),
    parameters(runs.folder(names[0])),
    scale,
  )


def page(study: Study, name: str, found: dict[str, Measured], seeds) -> str:
  """The table of a study as Markdown."""
  first, *_ = found
  guided = ''
  if study.scale:
    every = ', '.join(f'{scale:g}' for scale in SCALES)
    guided = (
      f' The scale of guidance is that of {every} with the smallest mean '
      'Fréchet distance.'
    )
  lines = [
    f'# {study.title}',
    '',
    f'{study.question} Made by `python launch/ablations.py --study={name} '
    f'--seeds={",".join(map(str, seeds))}` on {where()}; {SAMPLES:,} samples of '
    'digits for each row and seed.',
    '',
    f'Figures are means over the seeds.{guided} The last column is the mean over '
    f'the seeds of the difference in Fréchet distance to "{first}" with the same '
    'seed, and the smallest and the largest of these differences. Distances are '
    'over the features of a classifier of digits, in brackets that of held-out '
    'digits.',
    '',
    f'| variant | parameters |{" guidance |" if guided else ""} class accuracy '
    f'| Fréchet | images/s | samples | Fréchet against {first} |',
    f'|---|--:|{"--:|" if guided else ""}--:|--:|--:|---|--:|',
  ]
  for variant, here in found.items():
    pairs = [
      a['frechet'] - b['frechet']
      for a, b in zip(here.figures, found[first].figures)
    ]
    against = '–'
    if variant != first:
      mean = sum(pairs) / len(pairs)
      against = f'{mean:+.2f} ({min(pairs):+.2f} to {max(pairs):+.2f})'
    cells = (
      variant,
      f'{here.parameters / 1e6:.2f} M',
      *([f'{here.scale:g}'] if guided else []),
      f'{100 * here.mean("class_accuracy"):.1f} %',
      f'{here.mean("frechet"):.2f} ({here.mean("frechet_of_held_out"):.2f})',
      f'{here.mean("sampling_images_per_second"):.0f}',
      f'![samples]({name}/{_file(variant)}.png)',
      against,
    )
    lines.append(f'| {" | ".join(cells)} |')
  lines += ['', f'![Fréchet distance of every seed]({name}/frechet.svg)', '']
  return '\n'.join(lines)


def _file(variant):
  return variant.replace(' ', '_').replace(',', '')


def main() -> None:
  flags = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  flags.add_argument('--study', required=True, choices=list(STUDIES))
  flags.add_argument('--seeds', default='0,1', metavar='LIST')
  flags.add_argument(
    '--output', type=pathlib.Path, default=pathlib.Path('runs/ablations')
  )
  flags.add_argument(
    '--docs', type=pathlib.Path, default=pathlib.Path('docs/ablations')
  )
  args = flags.parse_args()
  try:
    seeds = list(dict.fromkeys(int(seed) for seed in args.seeds.split(',')))
  except ValueError:
    flags.error(f'--seeds={args.seeds}: wanted numbers with a comma between')
  study, runs = STUDIES[args.study], Runs(args.output)
  found = measure(runs, study, seeds)
  images = args.docs / args.study
  images.mkdir(parents=True, exist_ok=True)
  for variant, here in found.items():
    shutil.copy(here.grid, images / f'{_file(variant)}.png')
  distances = {k: [f['frechet'] for f in v.figures] for k, v in found.items()}
  svg = chart.dot_chart(distances, 'Fréchet distance, a dot for every seed')
  (images / 'frechet.svg').write_text(chart.styled(svg) + '\n')
  text = page(study, args.study, found, seeds)
  file = args.docs / f'{args.study}.md'
  file.write_text(text, encoding='utf-8')
  print(f'\n{file}: {len(found)} variants, {len(seeds)} seeds')


if __name__ == '__main__':
  main()
