"""Sampling throughput: transformer and decoder in separate rows.

    python -m benchmarks.sampling
    python -m benchmarks.sampling --only=digits --repeats=10
    python -m benchmarks.sampling --only=bar --json=out.json

Models with random weights, in the compute dtype of their configs: the digits VAR,
VAR-d16 at 256 px with batch 1 and 8, and BAR-B at 256 px whose tokens are one
patch, squares of 2 x 2 and of 4 x 4 patches. Every row is one compiled
program. Its time is the best of the repeats; compilation is reported
separately. Every row has a matmul peak of the same dtype and run: on a shared
machine, throughput means little without it.
"""

import functools

from arvision.runs import hardware
from benchmarks import common

COLUMNS = {
  'model': 'model:<17s',
  'part': 'part:<12s',
  'dtype': 'dtype:<9s',
  'batch': 'batch:5d',
  'tokens': 'tokens:6d',
  'images_per_second': 'images/s:10.2f',
  'seconds': 'seconds:9.3f',
  'first_call_seconds': 'first call:11.2f',
  'matmul_peak_gflops': 'matmul GFLOP/s:15.0f',
}


def main():
  parser = common.parser(__doc__)
  parser.add_argument('--only', choices=('digits', 'd16', 'bar'))
  args = parser.parse_args()
  common.use_threads(args.threads)
  import jax

  from arvision.configs.bar import imagenet256 as bar
  from arvision.configs.bar import tiny as bar_tiny
  from arvision.configs.var import digits, imagenet256, tiny
  from benchmarks import ours

  cases = {
    'digits': [('VAR, digits', digits.get_config(), (1, 100))],
    'd16': [('VAR-d16, 256 px', imagenet256.get_config('d16'), (1, 8))],
    'bar': [
      (f'BAR-{name}, 256 px', bar.get_config(name), (1,))
      for name in ('B', 'B_2', 'B_4')
    ],
  }
  smaller = {'bar': bar_tiny}
  chosen = [
    (
      name,
      smaller.get(key, tiny).get_config() if args.quick else config,
      batches,
    )
    for key, several in cases.items()
    if args.only in (None, key)
    for name, config, batches in several
  ]
  table = common.Table(COLUMNS)
  for name, config, batches in chosen:
    dtype = config.backbone.get('dtype', 'float32')
    generator = ours.Generator.create(ours.of_dtype(config, dtype))
    for batch in batches:
      parts = {
        'transformer': generator.sampling(batch),
        'decoder': generator.decoder(batch),
      }
      for part, (function, inputs) in parts.items():
        run = functools.partial(jax.jit(function), *inputs)
        peak = hardware.matmul_peak(dtype, 256 if args.quick else 2048)
        first, seconds = common.best(run, args.repeats)
        table.add(
          model=name,
          part=part,
          dtype=dtype,
          batch=batch,
          tokens=batch * generator.tokenizer.spec.length,
          images_per_second=batch / seconds,
          seconds=seconds,
          first_call_seconds=first,
          matmul_peak_gflops=peak,
        )
  table.save(args.json)


if __name__ == '__main__':
  main()
