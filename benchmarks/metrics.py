"""Seconds of the scores of pre-made features, for 50,000 images.

    python -m benchmarks.metrics
    python -m benchmarks.metrics --images=10000 --json=out.json

Features are random, with the widths of the Inception network: 2048 pooled, 2023
spatial and 1008 logits. The reference has as many images, and 10,000 of them
for precision and recall, as in the ADM evaluator. The time of FID and sFID
includes the moments of both sets. CPU seconds are those of all cores. The peak
is the largest resident memory of the process so far, with all features.
"""

import resource
import time

import numpy as np

from benchmarks import common

COLUMNS = {
  'metric': 'metric:<18s',
  'images': 'images:8d',
  'reference': 'reference:9d',
  'seconds': 'seconds:9.2f',
  'cpu_seconds': 'CPU:9.2f',
  'value': 'value:12.5g',
  'peak_gb': 'peak GB:8.2f',
}


def features(
  generator: np.random.Generator, count: int, width: int, shift: float
) -> np.ndarray:
  """(count, width) float32: mixed and then rectified, as those of a network."""
  mixing = generator.standard_normal((width, width), np.float32)
  found = np.empty((count, width), np.float32)
  for start in range(0, count, 5000):
    part = found[start : start + 5000]
    noise = generator.standard_normal(part.shape, np.float32)
    part[:] = np.maximum(noise @ mixing / np.sqrt(width) + shift, 0)
  return found


def main():
  parser = common.parser(__doc__)
  parser.add_argument('--images', type=int, default=50_000)
  args = parser.parse_args()
  common.use_threads(args.threads)
  from arvision.evals.frechet import Moments, frechet_distance
  from arvision.evals.inception_score import inception_score
  from arvision.evals.kernel_distance import kernel_distance
  from arvision.evals.manifold import manifold

  images = 1200 if args.quick else args.images
  few = min(images, 10_000)
  generator = np.random.default_rng(0)
  pool = [features(generator, images, 2048, s) for s in (0.0, 0.1)]
  spatial = [features(generator, images, 2023, s) for s in (0.0, 0.1)]
  logits = 3 * generator.standard_normal((images, 1008), np.float32)
  frechet = lambda pair: frechet_distance(*map(Moments.of, pair))
  runs = {
    'FID': lambda: frechet(pool),
    'sFID': lambda: frechet(spatial),
    'Inception score': lambda: inception_score(logits),
    'KID': lambda: kernel_distance(*pool)[0],
    'precision, recall': lambda: manifold(pool[1][:few], pool[0]).recall,
  }
  table = common.Table(COLUMNS)
  total = np.zeros(2)
  for name, run in runs.items():
    wall, cpu = time.perf_counter(), time.process_time()
    value = run()
    seconds = time.perf_counter() - wall
    cpu = time.process_time() - cpu
    total += np.array([seconds, cpu])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    table.add(
      metric=name,
      images=images,
      reference=few if 'recall' in name else images,
      seconds=seconds,
      cpu_seconds=cpu,
      value=value,
      peak_gb=peak,
    )
  table.add(
    metric='all',
    images=images,
    seconds=float(total[0]),
    cpu_seconds=float(total[1]),
  )
  table.save(args.json)


if __name__ == '__main__':
  main()
