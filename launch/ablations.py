"""Compares variants of a model on scikit-learn's digits, with paired seeds.

    python launch/ablations.py --study=orders
    python launch/ablations.py --study=entities --seeds=0,1,2

Trains every variant once per seed, over one tokenizer. After an interruption,
the same command resumes and ends with the same table. Writes
docs/ablations/<study>.md and its plot; `--docs` names another folder.
"""

import dataclasses
import pathlib
import shutil

from training import Runs, parameters, parser, where

from arvision.evals import plots

SAMPLES = 1000
# Guidance scales to choose the best from.
SCALES = (1.0, 1.5, 2.0)


@dataclasses.dataclass(frozen=True)
class Study:
  """Variants to compare.

  Attributes:
    title: title of the page.
    question: what varies and what does not, in words.
    tokenizer: config of the common tokenizer.
    variants: name in the table -> config.
    flags: flags of `arvision train` for all variants.
    scale: config key of the guidance scale, to choose the best of `SCALES`; '':
      do not choose.
  """

  title: str
  question: str
  tokenizer: str
  variants: dict[str, str]
  flags: tuple[str, ...] = ()
  scale: str = ''


# Two seeds of every variant train within half an hour.
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
  'seeds': Study(
    'What a seed changes',
    'One config and one tokenizer; runs differ in the seed alone. Differences '
    'between single runs that are not larger than these mean nothing.',
    'var/digits_tokenizer',
    {'VAR': 'var/digits'},
  ),
}


@dataclasses.dataclass(frozen=True)
class Measured:
  """The results of a variant.

  Attributes:
    figures: headline of `arvision eval` of every seed.
    grid: samples of the first seed.
    parameters: number of parameters of the generator.
    scale: guidance scale, None for that of the config.
  """

  figures: list[dict[str, float]]
  grid: pathlib.Path
  parameters: int
  scale: float | None = None

  def mean(self, key: str) -> float:
    return sum(f[key] for f in self.figures) / len(self.figures)

  def text(self, key: str, digits: int, scale: float = 1) -> str:
    """'mean ± standard deviation' over the seeds."""
    values = [scale * f[key] for f in self.figures]
    mean, spread = plots.mean_and_spread(values)
    text = f'{mean:.{digits}f}'
    return f'{text} ± {spread:.{digits}f}' if len(values) > 1 else text


def measure(runs: Runs, study: Study, seeds: list[int]) -> dict[str, Measured]:
  """Trains and evaluates all variants: name -> results."""
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
      (_sampled(runs, study, config, seeds, scale) for scale in _scales(study)),
      key=lambda found: found.mean('frechet'),
    )
    for name, config in study.variants.items()
  }


def _scales(study):
  return SCALES if study.scale else (None,)


def _sampled(runs, study, config, seeds, scale):
  """The results of a variant with a guidance scale."""
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
    'Figures are means over the seeds ± their standard deviation (n - 1), of '
    f'speeds means.{guided} The last column is the mean over '
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
      f'{here.text("class_accuracy", 1, 100)} %',
      f'{here.text("frechet", 2)} ({here.mean("frechet_of_held_out"):.2f})',
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
  flags = parser(__doc__, 'runs/ablations', 'docs/ablations')
  flags.add_argument('--study', required=True, choices=list(STUDIES))
  flags.add_argument('--seeds', default='0,1', metavar='LIST')
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
  chart = plots.dots(distances, 'Fréchet distance, a dot for every seed')
  (images / 'frechet.svg').write_text(plots.svg(chart), encoding='utf-8')
  text = page(study, args.study, found, seeds)
  file = args.docs / f'{args.study}.md'
  file.write_text(text, encoding='utf-8')
  print(f'\n{file}: {len(found)} variants, {len(seeds)} seeds')


if __name__ == '__main__':
  main()
