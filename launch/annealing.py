"""Fewer inner steps for late tokens (DiSA): speed and quality before and after.

    python launch/annealing.py

takes the generators of `launch/families.py`, trains what is not there, and draws
from each with as many inner steps at every step and with the published schedule of
its family. It writes docs/annealing.md; `--docs` names another folder.

Source: arXiv 2505.20297.
"""

import argparse
import dataclasses
import pathlib

from training import Runs, where

SAMPLES = 1000
TOKENIZER = 'mar/digits_tokenizer'


@dataclasses.dataclass(frozen=True)
class Case:
  """A generator whose inner steps are annealed.

  Attributes:
    name: in the table.
    generator: config.
    key: of the counts in its config.
    first, last: inner steps at the first and at the last step, as published.
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


def figures(runs: Runs, case: Case, last: int) -> dict[str, float]:
  """The headline figures with so many inner steps at the last step."""
  return runs.evaluate(
    case.generator,
    SAMPLES,
    f'--config.{case.key}.first={case.first}',
    f'--config.{case.key}.last={last}',
    label=f'eval_{case.first}_to_{last}',
  )


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
  flags = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  flags.add_argument(
    '--output', type=pathlib.Path, default=pathlib.Path('runs/families')
  )
  flags.add_argument('--docs', type=pathlib.Path, default=pathlib.Path('docs'))
  args = flags.parse_args()
  runs = Runs(args.output)
  runs.train(TOKENIZER)
  lines = []
  for case in CASES:
    tokenizer = runs.folder(TOKENIZER)
    runs.train(case.generator, f'--config.tokenizer_workdir={tokenizer}')
    for last in (case.first, case.last):
      found = figures(runs, case, last)
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
