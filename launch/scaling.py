"""Fits scaling laws of three orders of prediction on Fashion-MNIST.

    python launch/scaling.py

Trains two tokenizers and, for every order, six depths of `ablations/sizes`;
predicts the loss of a seventh, and trains it. After an interruption, the same
command resumes. Writes docs/scaling.md and its plot; `--docs` names another
folder.
"""

import json

from training import arvision, complete, open_runs, parser, where

from arvision.runs.scaling import Fit, Point, Prediction, chart
from arvision.sweeps.points import slug
from arvision.sweeps.runs import Job

CONFIG = 'ablations/sizes'
DEPTHS = (1, 2, 3, 4, 5, 6)
NEXT = 7
TOKENIZERS = {
  'scale': 'var/fashion_mnist_tokenizer',
  'token': 'llamagen/fashion_mnist_tokenizer',
  'masked': 'llamagen/fashion_mnist_tokenizer',
}
NAMES = {'scale': 'next scale', 'token': 'next token', 'masked': 'masked'}
HEAD = """# Scaling laws

Made by `python launch/scaling.py` on {where}. Fashion-MNIST at 32 px, the orders of
`ablations/sizes`: VAR, LlamaGen and MaskGIT at depths 1 to 6, 16 times as wide as
deep. All sizes of an order see {tokens}. The loss is that of the 10,000 held-out
pictures after training, in nats per predicted code. Parameters are those of the
backbone, without tables of embeddings.

![held-out loss over parameters](images/scaling.svg)

The law is L = (β N)^α, fitted by least squares to the six smaller models;
intervals are 95 % of 1,000 bootstrap resamples of the models, r is the
correlation of log N and log L. The prediction was written down before the seventh
model was trained.

| order | α | β | r | depth 7: predicted | measured | error |
|---|---|---|---|---|---|---|
"""
TABLE = """

| order, depth | parameters | held-out loss |
|---|--:|--:|
"""


def main() -> None:
  args = parser(__doc__, 'runs/scaling').parse_args()
  runs = open_runs(args.output)
  found = {}
  for order, tokenizer in TOKENIZERS.items():
    complete(runs, [Job(slug(tokenizer), (f'--config={tokenizer}',))])
    output = args.output / order
    arvision(
      'scaling',
      f'--config={CONFIG}',
      '--sizes=' + ','.join(f'{order}_{depth}' for depth in DEPTHS),
      f'--next={order}_{NEXT}',
      f'--output={output}',
      f'--config.frozen.tokenizer={runs.folder(tokenizer)}',
    )
    found[order] = json.loads((output / 'scaling.json').read_text())
  images = args.docs / 'images'
  images.mkdir(parents=True, exist_ok=True)
  (images / 'scaling.svg').write_text(plot(found) + '\n')
  page = args.docs / 'scaling.md'
  page.write_text(text(found), encoding='utf-8')
  print(f'\n{page}')


def read(record: dict) -> tuple[list[Point], Fit, Prediction]:
  """Points, law and prediction along the number of parameters."""
  points = [
    Point(p['name'], p['parameters'], p['tokens'], p['loss'])
    for p in record['points']
  ]
  along = lambda entries: next(e for e in entries if e['axis'] == 'parameters')
  ahead = {k: v for k, v in along(record['next']).items() if k != 'error'}
  return points, Fit(**along(record['laws'])), Prediction(**ahead)


def plot(found: dict[str, dict]) -> str:
  laws = {NAMES[order]: read(record) for order, record in found.items()}
  return chart(
    {name: (points, law) for name, (points, law, _) in laws.items()},
    {name: [ahead] for name, (_, _, ahead) in laws.items()},
  )


def text(found: dict[str, dict]) -> str:
  seen = []
  rows, sizes = [], []
  for order, record in found.items():
    points, law, ahead = read(record)
    seen.append(f'{points[0].tokens / 1e6:.1f} M tokens ({NAMES[order]})')
    low, high = law.alpha_range
    between = '{:.3f} to {:.3f}'.format(*ahead.interval)
    cells = (
      NAMES[order],
      f'{law.alpha:.4f} ({low:.4f} to {high:.4f})',
      f'{law.beta:.2e}',
      f'{law.correlation:.4f}',
      f'{ahead.loss:.4f} ({between})',
      f'{ahead.measured:.4f}',
      f'{100 * ahead.error:+.2f} %',
    )
    rows.append(f'| {" | ".join(cells)} |')
    measured = Point(ahead.name, int(ahead.x), 0, ahead.measured)
    for point in (*points, measured):
      depth = point.name.split('_')[1]
      sizes.append(
        f'| {NAMES[order]}, {depth} | {point.parameters:,} | {point.loss:.4f} |'
      )
  head = HEAD.format(where=where(), tokens=', '.join(seen))
  return head + '\n'.join(rows) + TABLE + '\n'.join(sizes) + '\n'


if __name__ == '__main__':
  main()
