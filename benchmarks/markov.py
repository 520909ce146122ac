"""HMAR beside VAR: training steps, sampling, and the cache.

    python -m benchmarks.markov
    python -m benchmarks.markov --side=512 --batch=1 --dtype=float32 --json=out.json

Models of one size with random weights, in the compute dtype of their configs or in
`--dtype`, one after another in one process: VAR-d16, HMAR-d16 in its first stage
(scales see themselves alone), and HMAR-d16 as released (the second stage trains the
end for masked tokens; sampling has 14 passes). Training steps are over stored
tokens. Sampling is of the transformer alone. Times are the best of the repeats;
compilation is not in them. `ratio` is the time of VAR over that of the row;
`cache` is what sampling keeps of earlier scales. On a shared machine throughput
means little without the matmul peak beside it.
"""

import functools

from arvision.runs import hardware
from benchmarks import common

COLUMNS = {
  'model': 'model:<18s',
  'part': 'part:<13s',
  'dtype': 'dtype:<9s',
  'side': 'side:5d',
  'batch': 'batch:5d',
  'seconds': 'seconds:9.3f',
  'ratio': 'ratio:6.2f',
  'cache_mib': 'cache MiB:10.1f',
  'first_call_seconds': 'first call:11.2f',
  'matmul_peak_gflops': 'matmul GFLOP/s:15.0f',
}


def main():
  parser = common.parser(__doc__)
  parser.add_argument('--side', type=int, default=256, choices=(256, 512, 1024))
  parser.add_argument('--batch', type=int, default=4)
  parser.add_argument('--only', choices=('training', 'sampling'))
  parser.add_argument(
    '--dtype', choices=('float32', 'bfloat16'), help="instead of the configs'"
  )
  args = parser.parse_args()
  common.use_threads(args.threads)
  import jax

  from arvision.configs.hmar import imagenet256, tiny
  from arvision.configs.var import imagenet256 as var
  from arvision.configs.var import tiny as var_tiny
  from arvision.configs.var import tokenizer
  from benchmarks import ours

  models = {
    'VAR-d16': (var.get_config('d16'), var_tiny.get_config()),
    'HMAR-d16, stage 1': (
      imagenet256.get_config('d16_nsp'),
      tiny.get_config('nsp'),
    ),
    'HMAR-d16': (imagenet256.get_config('d16'), tiny.get_config()),
  }

  def sized(config):
    """The config at the side that was asked for."""
    own = config.backbone.get('dtype', 'float32')
    config = ours.of_dtype(config, args.dtype or own)
    scales = tokenizer.SIDES[str(args.side)]
    if not args.quick:
      config.layout.scales = config.tokenizer.scales = scales
      config.data.size = (args.side, args.side)
      if 'passes' in config.sampler:
        few = config.sampler.passes[:3]
        config.sampler.passes = (*few, *((n * n,) for n in scales[3:]))
    return config

  table, first = common.Table(COLUMNS), {}

  def add(name, part, config, run, **more):
    dtype = config.backbone.dtype
    peak = hardware.matmul_peak(dtype, 256 if args.quick else 2048)
    call, seconds = common.best(run, args.repeats)
    table.add(
      model=name,
      part=part,
      dtype=dtype,
      side=config.data.size[0],
      batch=args.batch,
      seconds=seconds,
      ratio=first.setdefault(part, seconds) / seconds,
      first_call_seconds=call,
      matmul_peak_gflops=peak,
      **more,
    )

  for name, configs in models.items():
    config = sized(configs[args.quick])
    if args.only != 'sampling':
      function, inputs = ours.training(config, args.batch)
      run = functools.partial(jax.jit(function), *inputs)
      add(name, 'training step', config, run)
      del run, inputs
    if args.only != 'training':
      generator = ours.Generator.create(config)
      function, inputs = generator.sampling(args.batch)
      run = functools.partial(jax.jit(function), *inputs)
      model = generator.model
      cache = jax.eval_shape(
        lambda model=model: model.backbone.empty_cache(
          2 * args.batch, model.layout
        )
      )
      held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(cache))
      add(name, 'sampling', config, run, cache_mib=held / 2**20)
      del run, inputs, generator
  table.save(args.json)


if __name__ == '__main__':
  main()
