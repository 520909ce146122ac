"""Fewer denoising steps for late tokens (DiSA): speed and quality.

    python launch/annealing.py

Trains the generators of `launch/families.py` where needed, and samples from
each with a constant number of denoising steps and with the published schedule
of its family. Writes docs/annealing.md; `--docs` names another folder.

Source: arXiv 2505.20297.
"""

import dataclasses

from training import complete, open_runs, parser, where

from arvision.sweeps.points import slug
from arvision.sweeps.runs import Job, Runs, Step

SAMPLES = 1000
TOKENIZER = 'mar/digits_tokenizer'


@dataclasses.dataclass(frozen=True)
class Case:
  """A generator whose denoising steps are annealed.

  Attributes:
    name: name in the table.
    generator: its config.
    key: config key of the counts.
    first, last: published denoising steps at the first and the last AR step.
  """

  name: str
  generator: str
  key: str
  first: int
  last: int


CASES = (
  Case('MAR', 'mar/digits', 'head.counts', 50, 5),
  Case('FlowAR', 'flowar/digits', 'head.counts', 25, 15),
  Case('xAR', 'xar/digits', 'sampler.counts', 50, 15),
)


def step(runs: Runs, case: Case, last: int) -> Step:
  """Evaluates with `last` denoising steps at the last AR step."""
  return runs.evaluation(
    case.generator,
    f'--samples={SAMPLES}',
    f'--config.{case.key}.first={case.first}',
    f'--config.{case.key}.last={last}',
    label=label(case, last),
  )


def label(case: Case, last: int) -> str:
  """The name of the figures of `step`."""
  return f'eval_{case.first}_to_{last}'


def jobs(runs: Runs) -> list[Job]:
  """The tokenizer, and the generators with their evaluations."""
  tokenizer = f'--config.frozen.tokenizer={runs.folder(TOKENIZER)}'
  return [
    Job(slug(TOKENIZER), (f'--config={TOKENIZER}',)),
    *(
      Job(
        slug(case.generator),
        (f'--config={case.generator}', tokenizer),
        (slug(TOKENIZER),),
        tuple(step(runs, case, last) for last in (case.first, case.last)),
      )
      for case in CASES
    ),
  ]


HEAD = """# Annealing the inner steps

Late tokens are nearly determined by the earlier ones, so they can be denoised
in fewer steps (DiSA, arXiv 2505.20297). Made by `python launch/annealing.py`
on {where}, from the trained models of
[families.md](families.md): {samples:,} samples of digits each, with a constant number of
inner steps, and with the published schedule of the family. Images/s are of
sampling and decoding with batch 100.

| family | inner steps | images/s | class accuracy | Fréchet |
|---|--:|--:|--:|--:|
"""


def main() -> None:
  args = parser(__doc__, 'runs/families').parse_args()
  runs = open_runs(args.output)
  complete(runs, jobs(runs))
  lines = []
  for case in CASES:
    for last in (case.first, case.last):
      found = runs.figures(case.generator, label(case, last))
      speed = found['sampling_images_per_second']
      cells = (
        case.name,
        f'{case.first}' if last == case.first else f'{case.first} to {last}',
        f'{speed:.0f}',
        f'{100 * found["class_accuracy"]:.1f} %',
        f'{found["frechet"]:.2f} ({found["frechet_of_held_out"]:.2f})',
      )
      lines.append(f'| {" | ".join(cells)} |')
  page = args.docs / 'annealing.md'
  head = HEAD.format(where=where(), samples=SAMPLES)
  page.write_text(head + '\n'.join(lines) + '\n', encoding='utf-8')
  print(f'\n{page}: {len(CASES)} families')


if __name__ == '__main__':
  main()
