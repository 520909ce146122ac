"""Compares variants of a model on small images, with paired seeds.

    python launch/ablations.py --study=orders
    python launch/ablations.py --study=entities --seeds=0,1,2

Trains every variant once per seed, over one tokenizer. After an interruption,
the same command resumes and ends with the same table. Writes
docs/ablations/<study>.md and its plot; `--docs` names another folder.
"""

import dataclasses
import pathlib
import shutil

from training import complete, open_runs, parser, where

from arvision.evals import plots
from arvision.runs import tables
from arvision.sweeps.points import slug
from arvision.sweeps.runs import Job, Runs

SAMPLES = 1000
_MANY = f'--samples={SAMPLES}'
BAND = '[What a seed changes](seeds.md) has five seeds of one config.'
# Columns that are not numbers.
WORDS = ('variant', 'samples')
# Guidance scales to choose the best from.
SCALES = (1.0, 1.5, 2.0)


@dataclasses.dataclass(frozen=True)
class Study:
  """Variants to compare.

  Attributes:
    title: title of the page.
    question: what varies and what does not, in words.
    tokenizer: config of the common tokenizer; or of every variant's own, which is
      trained once per seed and has columns of its own.
    variants: name in the table -> config.
    flags: flags of `arvision train` for all variants.
    scale: config key of the guidance scale, to choose the best of `SCALES`; '':
      do not choose.
    data: what the images are.
    evaluation: variant -> flags of `arvision eval` for its tokenizer, where the
      generator binds it with another quantiser than that of training.
  """

  title: str
  question: str
  tokenizer: str | dict[str, str]
  variants: dict[str, str]
  flags: tuple[str, ...] = ()
  scale: str = ''
  data: str = 'digits'
  evaluation: dict[str, tuple[str, ...]] = dataclasses.field(
    default_factory=dict
  )


QUANTIZERS = ('lookup', 'lfq', 'bsq', 'fsq', 'bernoulli', 'levels')
# Cuts the latents of a trained KL tokenizer into levels.
LEVELS = (
  '--config.tokenizer.quantizer.type=quantizers.levels.Levels',
  '--config.tokenizer.quantizer.levels=4',
  '--config.tokenizer.quantizer.low=-3.0',
  '--config.tokenizer.quantizer.high=3.0',
)
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
  'bits': Study(
    'Heads over the bits of a token',
    'One transformer over the eight bits of one FSQ tokenizer, at equal depth, '
    'width and schedule: one id of 256, two ids of 16 (sub-codes, ELM), eight bits '
    '(Infinity), and bits that an MLP unmasks in four steps (BAR).',
    'ablations/quantizers_tokenizer:bits',
    {
      'one id': 'ablations/bits:one',
      'two ids': 'ablations/bits:two',
      'eight bits': 'ablations/bits:eight',
      'masked bits': 'ablations/bits:masked',
    },
    scale='sampler.guidance.scale',
  ),
  'quantizers': Study(
    'Quantisers',
    'One autoencoder with six quantisers, all of eight bits per token: a table of '
    '256 codes, lookup-free bits, bits on a sphere, four channels of four levels '
    '(FSQ), sampled bits (Bernoulli), and quantiles of a KL tokenizer. A transformer '
    'of equal depth, width and schedule over the tokens of each.',
    {name: f'ablations/quantizers_tokenizer:{name}' for name in QUANTIZERS},
    {name: f'ablations/quantizers:{name}' for name in QUANTIZERS},
    flags=SHORTER,
    scale='sampler.guidance.scale',
    evaluation={'levels': LEVELS},
  ),
  'bitwise': Study(
    'Codes, bits, and flipped bits',
    'One next-scale transformer at equal depth, width and schedule, over 256 codes '
    'per token (VAR), and over eight bits per token of the same scales (Infinity), '
    'without and with self-correction of flipped bits.',
    {
      'codes': 'var/fashion_mnist_tokenizer',
      'bits': 'infinity/fashion_mnist_tokenizer',
      'flipped bits': 'infinity/fashion_mnist_tokenizer',
    },
    {
      'codes': 'ablations/bitwise:codes',
      'bits': 'ablations/bitwise:bits',
      'flipped bits': 'ablations/bitwise:flips',
    },
    flags=('--config.train.duration.epochs=0.75',),
    scale='sampler.guidance.end',
    data='Fashion-MNIST',
  ),
  'optimizers': Study(
    'AdamW and Lion',
    'LlamaGen over one plain VQ, trained by AdamW and by Lion for equally many '
    'steps, each at three learning rates. Lion has ten times the weight decay.',
    'llamagen/digits_tokenizer',
    {
      'AdamW, 2e-3': 'lion/digits:adamw-2e-3',
      'AdamW, 1e-3': 'lion/digits:adamw-1e-3',
      'AdamW, 4e-3': 'lion/digits:adamw-4e-3',
      'Lion, 1e-4': 'lion/digits:lion-1e-4',
      'Lion, 2e-4': 'lion/digits:lion-2e-4',
      'Lion, 4e-4': 'lion/digits:lion-4e-4',
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
    minutes: of its training, mean over the seeds.
    scale: guidance scale, None for that of the config.
    tokenizers: headline of the variant's own tokenizers, one per seed.
  """

  figures: list[dict[str, float]]
  grid: pathlib.Path
  parameters: int
  minutes: float
  scale: float | None = None
  tokenizers: list[dict] = dataclasses.field(default_factory=list)

  def mean(self, key: str) -> float:
    return sum(f[key] for f in self.figures) / len(self.figures)

  @property
  def distances(self) -> dict[int, float]:
    """The Fréchet distance of every seed."""
    return {i: f['frechet'] for i, f in enumerate(self.figures)}

  def text(self, key: str, digits: int, scale: float = 1) -> str:
    return tables.over_seeds([scale * f[key] for f in self.figures], digits)


def jobs(runs: Runs, study: Study, seeds: list[int]) -> list[Job]:
  """The runs of a study: tokenizers, and all variants once per seed."""
  found: dict[str, Job] = {}
  for seed in seeds:
    for variant, config in study.variants.items():
      tokenizer = _tokenizer(runs, study, variant, seed)
      found.setdefault(tokenizer.name, tokenizer)
      name, after = _seeded(config, seed), []
      for flags, suffix in _settings(study):
        label = f'eval{suffix}'
        after.append(runs.evaluation(name, _MANY, *flags, label=label))
        if seed == seeds[0]:
          after.append(runs.sampling(name, *flags, label=f'grid{suffix}'))
      found[name] = Job(
        name,
        (
          f'--config={config}',
          f'--config.frozen.tokenizer={runs.folder(tokenizer.name)}',
          *study.flags,
          f'--config.seed={seed}',
        ),
        (tokenizer.name,),
        tuple(after),
      )
  return list(found.values())


def _tokenizer(runs, study, variant, seed):
  """The job of the tokenizer of a variant."""
  if isinstance(study.tokenizer, str):
    return Job(slug(study.tokenizer), (f'--config={study.tokenizer}',))
  config = study.tokenizer[variant]
  name = _seeded(config, seed)
  flags = study.evaluation.get(variant, ())
  return Job(
    name,
    (f'--config={config}', f'--config.seed={seed}'),
    after=(runs.evaluation(name, _MANY, *flags),),
  )


def measure(runs: Runs, study: Study, seeds: list[int]) -> dict[str, Measured]:
  """The results of all variants: name -> that of its best guidance scale."""
  return {
    name: min(
      (_sampled(runs, study, name, seeds, scale) for scale in _scales(study)),
      key=lambda found: found.mean('frechet'),
    )
    for name in study.variants
  }


def _seeded(config, seed):
  return slug(f'{config}_seed{seed}')


def _scales(study):
  return SCALES if study.scale else (None,)


def _setting(study, scale):
  """Flags of a guidance scale, and the end of the names of its figures."""
  if scale is None:
    return (), ''
  return (f'--config.{study.scale}={scale}',), f'_guidance_{scale}'


def _settings(study):
  return [_setting(study, scale) for scale in _scales(study)]


def _sampled(runs, study, variant, seeds, scale):
  """The results of a variant with a guidance scale."""
  names = [_seeded(study.variants[variant], seed) for seed in seeds]
  _, suffix = _setting(study, scale)
  return Measured(
    [runs.figures(name, f'eval{suffix}') for name in names],
    runs.grid(names[0], f'grid{suffix}'),
    runs.parameters(names[0]),
    sum(map(runs.seconds, names)) / len(names) / 60,
    scale,
    _of_tokenizers(runs, study, variant, seeds),
  )


def _of_tokenizers(runs, study, variant, seeds):
  if isinstance(study.tokenizer, str):
    return []
  return [
    runs.figures(_seeded(study.tokenizer[variant], seed)) for seed in seeds
  ]


def page(
  study: Study, name: str, found: dict[str, Measured], seeds, beside: str
) -> str:
  """The table of a study as Markdown; `beside` is what else ran."""
  first, *_ = found
  guided = ''
  if study.scale:
    every = ', '.join(f'{scale:g}' for scale in SCALES)
    guided = (
      f' The scale of guidance is that of {every} with the smallest mean '
      'Fréchet distance.'
    )
  rows = [_row(name, variant, here, found) for variant, here in found.items()]
  lines = [
    f'# {study.title}',
    '',
    f'{study.question} Made by `python launch/ablations.py --study={name} '
    f'--seeds={",".join(map(str, seeds))}` on {where()}{beside and ", " + beside}; '
    f'{SAMPLES:,} samples of '
    f'{study.data} for each row and seed.',
    '',
    'Figures are means over the seeds ± their standard deviation (n - 1), of '
    f'speeds and of the minutes of training means.{guided} The last column is the mean over '
    f'the seeds of the difference in Fréchet distance to "{first}" with the same '
    'seed, and the smallest and the largest of these differences. Distances are '
    f'over the features of a classifier of {study.data}, in brackets that of '
    f'held-out {study.data}.',
    *([] if name == 'seeds' else ['', BAND]),
    '',
    *tables.markdown(rows, WORDS),
  ]
  lines += ['', f'![Fréchet distance of every seed]({name}/frechet.svg)', '']
  return '\n'.join(lines)


def _row(study, variant, here, found):
  """Heading -> cell."""
  first, *_ = found
  pairs = tables.paired(found[first].distances, here.distances)
  against = pairs.text(2) if pairs and variant != first else '–'
  row = {'variant': variant}
  if here.tokenizers:
    quality = [f['psnr_db'] for f in here.tokenizers]
    row['PSNR'] = f'{tables.over_seeds(quality, 1)} dB'
    # One scale, or several and 'all' after them.
    usage = [[*f['codebook_usage'].values()] for f in here.tokenizers]
    used = [100 * values[-1] for values in usage]
    row['codes used'] = f'{tables.over_seeds(used, 0)} %'
  row['parameters'] = f'{here.parameters / 1e6:.2f} M'
  row['minutes'] = f'{here.minutes:.1f}'
  if here.scale is not None:
    row['guidance'] = f'{here.scale:g}'
  held_out = here.mean('frechet_of_held_out')
  return row | {
    'class accuracy': f'{here.text("class_accuracy", 1, 100)} %',
    'Fréchet': f'{here.text("frechet", 2)} ({held_out:.2f})',
    'images/s': f'{here.mean("sampling_images_per_second"):.0f}',
    'samples': f'![samples]({study}/{_file(variant)}.png)',
    f'Fréchet against {first}': against,
  }


def _file(variant):
  return variant.replace(' ', '_').replace(',', '')


def main() -> None:
  flags = parser(__doc__, 'runs/ablations', 'docs/ablations')
  flags.add_argument('--study', required=True, choices=list(STUDIES))
  flags.add_argument('--seeds', default='0,1', metavar='LIST')
  flags.add_argument(
    '--beside',
    default='',
    metavar='WORDS',
    help='what else ran on the machine, for the page',
  )
  args = flags.parse_args()
  try:
    seeds = list(dict.fromkeys(int(seed) for seed in args.seeds.split(',')))
  except ValueError:
    flags.error(f'--seeds={args.seeds}: wanted numbers with a comma between')
  study, runs = STUDIES[args.study], open_runs(args.output)
  complete(runs, jobs(runs, study, seeds))
  found = measure(runs, study, seeds)
  images = args.docs / args.study
  images.mkdir(parents=True, exist_ok=True)
  for variant, here in found.items():
    shutil.copy(here.grid, images / f'{_file(variant)}.png')
  distances = {k: [*v.distances.values()] for k, v in found.items()}
  chart = plots.dots(distances, 'Fréchet distance, a dot for every seed')
  (images / 'frechet.svg').write_text(plots.svg(chart), encoding='utf-8')
  text = page(study, args.study, found, seeds, args.beside)
  file = args.docs / f'{args.study}.md'
  file.write_text(text, encoding='utf-8')
  print(f'\n{file}: {len(found)} variants, {len(seeds)} seeds')


if __name__ == '__main__':
  main()
