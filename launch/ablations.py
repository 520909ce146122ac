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

from training import Runs, where

from arvision.evals import chart

SAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Study:
  """Variants that are compared.

  Attributes:
    title: of the page.
    question: what is varied, and what is not.
    tokenizer: config under configs/digits, shared by all.
    variants: name in the table -> config under configs/digits.
  """

  title: str
  question: str
  tokenizer: str
  variants: dict[str, str]


STUDIES = {
  'orders': Study(
    'Orders of prediction',
    'One transformer over the codes of one plain VQ, at equal depth, width and '
    'schedule: next token, next diagonal, next scale, many tokens at once.',
    'vq',
    {
      'next token': 'orders:token',
      'next diagonal': 'orders:diagonal',
      'next scale': 'orders:scale',
      'masked': 'orders:masked',
    },
  ),
  'entities': Study(
    'The entities of xAR',
    'What one step of xAR brings from noise to data, over one KL tokenizer: a cell '
    'of 2 × 2 latents, one latent, every second one, the whole latent at three '
    'sizes, the whole latent at once.',
    'kl',
    {
      'cell': 'xar:cell',
      'token': 'xar:token',
      'subsample': 'xar:subsample',
      'scale': 'xar:scale',
      'image': 'xar:image',
    },
  ),
  'heads': Study(
    'Heads over latents',
    'One masked transformer over one KL tokenizer, at equal depth, width and '
    'schedule, whose tokens are drawn by diffusion (MAR), by flow matching with the '
    'same MLP, and in levels, channel by channel (TokenBridge).',
    'kl',
    {
      'diffusion': 'heads:diffusion',
      'flow': 'heads:flow',
      'categorical': 'heads:categorical',
    },
  ),
  'contexts': Study(
    'What xAR sees of the past in training',
    'Cells of xAR over one KL tokenizer, whose past in training is as noisy as it '
    'happens to be, clean (teacher forcing), less noisy than the cell, or noisier.',
    'kl',
    {
      'independent': 'xar:cell',
      'clean': 'xar:clean',
      'rising': 'xar:rising',
      'falling': 'xar:falling',
    },
  ),
}


def measure(runs: Runs, study: Study, seeds: list[int]) -> dict[str, list]:
  """Variant -> the headline figures of every seed."""
  runs.train(study.tokenizer)
  tokenizer = runs.folder(study.tokenizer)
  found: dict[str, list] = {}
  for seed in seeds:
    for name, config in study.variants.items():
      run = f'{config}_seed{seed}'
      runs.train(
        config,
        f'--config.tokenizer_workdir={tokenizer}',
        f'--config.seed={seed}',
        name=run,
      )
      found.setdefault(name, []).append(runs.measure(run, SAMPLES))
  return found


def page(study: Study, name: str, found: dict[str, list], seeds: list) -> str:
  """The table of a study as Markdown."""
  first, *_ = found

  def mean(figures, key):
    return sum(f[key] for f in figures) / len(figures)

  lines = [
    f'# {study.title}',
    '',
    f'{study.question} Made by `python launch/ablations.py --study={name} '
    f'--seeds={",".join(map(str, seeds))}` on {where()}; {SAMPLES:,} samples of '
    'digits for each row and seed.',
    '',
    'Figures are means over the seeds. The last column is the mean over the seeds '
    f'of the difference in Fréchet distance to "{first}" with the same seed, and '
    'the smallest and the largest of these differences. Distances are over the '
    'features of a classifier of digits, in brackets that of held-out digits.',
    '',
    '| variant | class accuracy | Fréchet | images/s | samples '
    f'| Fréchet against {first} |',
    '|---|--:|--:|--:|---|--:|',
  ]
  for variant, figures in found.items():
    pairs = [a['frechet'] - b['frechet'] for a, b in zip(figures, found[first])]
    against = '–'
    if variant != first:
      against = f'{sum(pairs) / len(pairs):+.2f} ({min(pairs):+.2f} to {max(pairs):+.2f})'
    cells = (
      variant,
      f'{100 * mean(figures, "class_accuracy"):.1f} %',
      f'{mean(figures, "frechet"):.2f} '
      f'({mean(figures, "frechet_of_held_out"):.2f})',
      f'{mean(figures, "sampling_images_per_second"):.0f}',
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
  for variant, config in study.variants.items():
    grid = runs.folder(f'{config}_seed{seeds[0]}') / 'samples' / 'grid'
    shutil.copy(grid / 'grid.png', images / f'{_file(variant)}.png')
  distances = {k: [f['frechet'] for f in v] for k, v in found.items()}
  svg = chart.dot_chart(distances, 'Fréchet distance, a dot for every seed')
  (images / 'frechet.svg').write_text(chart.styled(svg) + '\n')
  text = page(study, args.study, found, seeds)
  file = args.docs / f'{args.study}.md'
  file.write_text(text, encoding='utf-8')
  print(f'\n{file}: {len(found)} variants, {len(seeds)} seeds')


if __name__ == '__main__':
  main()
