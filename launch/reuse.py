"""Masked samplers that reuse keys and values (ReCAP): speed and quality.

    python launch/reuse.py

Trains MaskGIT and MAR on Fashion-MNIST where needed, and samples from each with its
own sampler and with the one that reuses, in the same number of steps, with several
seeds. Writes docs/reuse.md; `--docs` names another folder.

Source: arXiv 2505.19089.
"""

import dataclasses
import statistics

from training import complete, open_runs, parser, where

from arvision.sweeps.points import slug
from arvision.sweeps.runs import Job, Runs

SAMPLES = 1000
SEEDS = (0, 1, 2)


@dataclasses.dataclass(frozen=True)
class Case:
  """A generator that is sampled in two ways.

  Attributes:
    name: name in the table.
    tokenizer, generator: configs.
    sampler: type of the sampler that reuses.
    more: its further fields.
  """

  name: str
  tokenizer: str
  generator: str
  sampler: str
  more: tuple[str, ...] = ()

  def flags(self, full_steps: int) -> tuple[str, ...]:
    """The flags of the sampler that reuses one step after every full one."""
    fields = (
      f'type=samplers.recap.{self.sampler}',
      f'full_steps={full_steps}',
      *self.more,
    )
    return tuple(f'--config.sampler.{field}' for field in fields)


CASES = (
  Case(
    'MaskGIT',
    'llamagen/fashion_mnist_tokenizer',
    'maskgit/fashion_mnist',
    'ReuseMasked',
  ),
  Case(
    'MAR',
    'mar/fashion_mnist_tokenizer',
    'mar/fashion_mnist',
    'ReuseRandomOrder',
    ('share=0.4', 'prefix_again=true', 'least_masked=0'),
  ),
)
# Name of a way to sample -> first steps that are full passes; None: all.
WAYS = {'all full': None, 'half full, then every second': 16}


def label(full_steps: int | None, seed: int) -> str:
  """Name of the figures of a way to sample."""
  way = '' if full_steps is None else f'_reuse_{full_steps}'
  return f'eval{way}_seed{seed}'


def jobs(runs: Runs) -> list[Job]:
  """The tokenizers and generators, and the evaluations of both ways."""
  found = []
  for case in CASES:
    tokenizer = slug(case.tokenizer)
    found.append(Job(tokenizer, (f'--config={case.tokenizer}',)))
    train = (
      f'--config={case.generator}',
      f'--config.frozen.tokenizer={runs.folder(tokenizer)}',
    )
    after = tuple(
      runs.evaluation(
        case.generator,
        f'--samples={SAMPLES}',
        f'--seed={seed}',
        *(() if full_steps is None else case.flags(full_steps)),
        label=label(full_steps, seed),
      )
      for full_steps in WAYS.values()
      for seed in SEEDS
    )
    found.append(Job(slug(case.generator), train, (tokenizer,), after))
  return found


def band(values: list[float], form: str) -> str:
  """The mean, and the least and the largest of the seeds."""
  mean, low, high = statistics.mean(values), min(values), max(values)
  return f'{mean:{form}} ({low:{form}} to {high:{form}})'


HEAD = """# Reusing keys and values in masked sampling

ReCAP (arXiv 2505.19089) follows a full pass of a masked model by cheap ones, which
compute only the tokens that they sample. Made by `python launch/reuse.py` on {where}:
{samples:,} samples of Fashion-MNIST in 32 steps with each of the seeds {seeds}; the
mean, the least and the largest. Images/s are of sampling and decoding.

| model | passes | images/s | class accuracy | Fréchet |
|---|---|--:|--:|--:|
"""


def main() -> None:
  args = parser(__doc__, 'runs/reuse').parse_args()
  runs = open_runs(args.output)
  complete(runs, jobs(runs))
  lines = []
  for case in CASES:
    for way, full_steps in WAYS.items():
      found = [
        runs.figures(case.generator, label(full_steps, seed)) for seed in SEEDS
      ]
      speed = [x['sampling_images_per_second'] for x in found]
      right = [100 * x['class_accuracy'] for x in found]
      far = [x['frechet'] for x in found]
      cells = (
        case.name,
        way,
        band(speed, '.0f'),
        band(right, '.1f') + ' %',
        band(far, '.2f'),
      )
      lines.append(f'| {" | ".join(cells)} |')
  page = args.docs / 'reuse.md'
  head = HEAD.format(
    where=where(), samples=SAMPLES, seeds=', '.join(map(str, SEEDS))
  )
  page.write_text(head + '\n'.join(lines) + '\n', encoding='utf-8')
  print(f'\n{page}: {len(CASES)} models')


if __name__ == '__main__':
  main()
