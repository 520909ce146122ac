"""Speed of models compared with the same work in plain PyTorch.

    python -m benchmarks.twins --threads=2
    python -m benchmarks.twins --only=var.generate,llamagen --repeats=5
    python -m benchmarks.twins --json=out.json

Needs torch (`pip install -e '.[dev,torch]'`). Sizes are those of the published
configs, weights are random. The two sides are timed in turns; the ratio is of
the best times. Rows:

    var.forward        logits of all 680 slots of VAR-d16, teacher forced, with
                       the canvas that its inputs come from
    var.generate       10 scales with guidance, top-k, top-p and a cache; the
                       transformer and its canvas, no decoder
    var.train          a step of VAR-d16: forward, backward, clipping, AdamW
    var.decoder        tokens to images of 256 px: the convolutional decoder
    llamagen.generate  256 tokens of LlamaGen-B with guidance and a cache
    llamagen.train     a step of LlamaGen-B with dropout and EMA
    mar.generate       256 latents of MAR-B in 64 steps of 25 diffusion steps each
    xar.generate       4 cells of xAR-B, 25 denoising steps each, with a cache

Ours is one compiled program per row. PyTorch runs eagerly: it has weights in
the dtype of the row, trains with float32 weights under autocast, attends with
`scaled_dot_product_attention` and loops over steps and layers in Python. In
bfloat16 rows our weights are float32 and cast inside the program, and our
logits are float32, PyTorch's bfloat16. A CPU without bfloat16 instructions
(`avx2`, `avx512f`) multiplies float32 faster, in PyTorch by far; ours does so
in bfloat16 rows too, see `kernels.cpu.product`. On a CPU our bfloat16 train
steps unroll the layers (`config.backbone.unroll`): in a loop, the CPU compiler
rounds all saved activations again in every iteration.

`work` is the work of PyTorch's side in GFLOP. The shares are work / seconds
over the matmul peak of the same dtype and run. `more` is our work over theirs:
on a CPU it is smaller in convolutions (`kernels.cpu.winograd`) and with masks
that hide keys (`kernels.cpu.attention`). `params` is the ratio of the numbers
of parameters. `best` rows are of the dtype that our side is faster in; their
ratio is to PyTorch's faster dtype, and `plain` to its float32. `cpu` is the
ratio of CPU times: with --threads=1 it is robust to other load; with more
threads it includes PyTorch's busy waiting.
"""

import dataclasses
import functools
import gc
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from arvision.runs import hardware
from benchmarks import common

COLUMNS = {
  'row': 'row:<18s',
  'dtype': 'dtype:<9s',
  'batch': 'batch:5d',
  'ours': 'ours s:9.3f',
  'torch': 'torch s:9.3f',
  'ratio': 'ratio:6.2f',
  'plain': 'plain:6.2f',
  'cpu': 'cpu:6.2f',
  'work': 'work:8.1f',
  'more': 'more:5.2f',
  'params': 'params:7.3f',
  'peak': 'GFLOP/s:8.0f',
  'share_ours': 'ours %:7.1f',
  'share_torch': 'torch %:7.1f',
  'first_call': '1st call:9.1f',
}


@dataclasses.dataclass(frozen=True)
class Row:
  """A kind of work.

  Attributes:
    config: module under `arvision.configs`, and its argument.
    work: 'forward', 'generate', 'train' or 'decoder'.
    batches: batch sizes.
    change: config keys that differ from the published ones.
  """

  config: tuple[str, str]
  work: str
  batches: tuple[int, ...]
  change: dict[str, Any] = dataclasses.field(default_factory=dict)


VAR = ('var.imagenet256', 'd16')
LLAMAGEN = ('llamagen.imagenet256', 'B')
ROWS = {
  'var.forward': Row(VAR, 'forward', (1, 4)),
  'var.generate': Row(VAR, 'generate', (1, 4)),
  'var.train': Row(VAR, 'train', (2,)),
  'var.decoder': Row(VAR, 'decoder', (1, 4)),
  'llamagen.generate': Row(LLAMAGEN, 'generate', (1, 8, 32)),
  'llamagen.train': Row(LLAMAGEN, 'train', (4,)),
  'mar.generate': Row(
    ('mar.imagenet256', 'B'),
    'generate',
    (1,),
    {
      'sampler.steps': 64,
      'head.counts.first': 25,
      'head.counts.last': 25,
    },
  ),
  'xar.generate': Row(
    ('xar.imagenet256', 'B'),
    'generate',
    (1, 4),
    {'sampler.counts.first': 25, 'sampler.counts.last': 25},
  ),
}


@dataclasses.dataclass(frozen=True)
class Side:
  """One of the two sides of a row.

  Attributes:
    run: does the work once.
    parameters: number of parameters.
    gflop: work of matmuls and convolutions in a run.
    program: returns the text of the compiled program; None for PyTorch.
  """

  run: Callable[[], Any]
  parameters: int
  gflop: float
  program: Callable[[], str] | None = None


def config_of(row: Row, dtype: str, quick: bool, depth: int | None) -> Any:
  """The config of a row, or a tiny one if `quick`."""
  import jax

  from benchmarks import ours

  name, size = row.config
  if quick:
    name, size = f'{name.split(".")[0]}.tiny', ''
  module = importlib.import_module(f'arvision.configs.{name}')
  config = module.get_config(size)
  config = ours.of_dtype(config, dtype)
  if not quick:
    config.update_from_flattened_dict(row.change)
  if depth:
    config.backbone.depth = depth
    if 'depth' in config.backbone.get('body', {}):
      config.backbone.body.depth = depth
  if (row.work, dtype, jax.default_backend()) == ('train', 'bfloat16', 'cpu'):
    config.backbone.unroll = config.backbone.depth
  return config


def our_side(row: Row, config: Any, batch: int) -> Side:
  """The side of arvision."""
  import jax

  from arvision.training.start import compile_lowered
  from benchmarks import ours

  if row.work == 'train':
    function, (state, *rest) = ours.training(config, batch)
    work = common.flops(function, state, *rest) / 1e9
    count = common.count(state.params)
    lowered = jax.jit(function, donate_argnums=0).lower(state, *rest)
    program = compile_lowered(lowered)
    held = [state]
    del state

    def step():
      held[0], loss = program(held[0], *rest)
      return loss

    return Side(step, count, work, program.as_text)
  generator = ours.Generator.create(config)
  kinds = {
    'forward': generator.forward,
    'generate': generator.sampling,
    'decoder': generator.decoder,
  }
  function, args = kinds[row.work](batch)
  work = common.flops(function, *args) / 1e9
  trained = generator.params
  if row.work == 'decoder':
    trained = {
      k: v
      for k, v in generator.frozen['params'].items()
      if k in ('dec', 'post_quant_conv')
    }
  jitted = jax.jit(function)
  return Side(
    functools.partial(jitted, *args),
    common.count(trained),
    work,
    lambda: jitted.lower(*args).compile().as_text(),
  )


def their_side(row: Row, config: Any, batch: int, dtype: str) -> Side:
  """The side of PyTorch."""
  import torch
  from torch.nn.attention import SDPBackend, sdpa_kernel
  from torch.utils.flop_counter import FlopCounterMode

  from benchmarks import torch_models as models

  torch.manual_seed(0)
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  kind = getattr(torch, dtype)
  labels = torch.arange(batch, device=device) % config.condition.classes
  family = row.config[0].split('.')[0]
  if row.work == 'decoder':
    model = models.Decoder(config).to(device, kind).eval()
    height, width = config.data.size
    factor = 2 ** (len(config.tokenizer.decoder.ch_mult) - 1)
    latent = torch.randn(
      batch,
      config.tokenizer.quantizer.channels,
      height // factor,
      width // factor,
      device=device,
      dtype=kind,
    )
    run = functools.partial(model, latent)
  else:
    made = {
      'var': models.VAR,
      'llamagen': models.LlamaGen,
      'mar': models.MAR,
      'xar': models.XAR,
    }
    model = made[family](config).to(device)
    if row.work in ('forward', 'train'):
      count = sum(h * w for h, w in _grids(config))
      codes = torch.zeros((batch, count), dtype=torch.long, device=device)
    if row.work == 'train':
      run = functools.partial(
        models.Training(model, config, kind).step, codes, labels
      )
    else:
      model = model.eval()
      for part in model.children():
        part.to(kind)
      for p in model.parameters():
        p.data = p.data.to(kind)
      if hasattr(model, 'rotation'):
        model.rotation = model.rotation.to(kind)
      run = functools.partial(model.generate, labels)
      if row.work == 'forward':
        run = functools.partial(torch.inference_mode()(model), codes, labels)

  def timed():
    out = run()
    if device == 'cuda':
      torch.cuda.synchronize()
    return out.float().sum().item()

  # The counter only knows unfused attention.
  with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
    timed()
  count = sum(p.numel() for p in model.parameters())
  return Side(timed, count, counter.get_total_flops() / 1e9)


def _grids(config):
  if 'scales' in config.layout:
    return [(s, s) if isinstance(s, int) else s for s in config.layout.scales]
  return [(config.layout.height, config.layout.width)]


def measure(name: str, dtype: str, batch: int, args: Any) -> dict[str, Any]:
  """A row of the table."""
  import jax

  row = ROWS[name]
  config = config_of(row, dtype, args.quick, args.depth)
  ours = our_side(row, config, batch)
  theirs = their_side(row, config, batch, dtype)
  side = 256 if args.quick else 2048
  peak = hardware.matmul_peak(dtype, side)
  sides = {'ours': ours.run, 'torch': theirs.run}
  # PyTorch's side already ran once, for the FLOP counter.
  timed = common.interleaved(sides, args.repeats, warm=('torch',))
  peak = max(peak, hardware.matmul_peak(dtype, side))
  best = {
    side: min(t.wall for t in times) for side, (_, times) in timed.items()
  }
  cpu = {side: min(t.cpu for t in times) for side, (_, times) in timed.items()}
  jax.clear_caches()
  return {
    'row': name,
    'dtype': dtype,
    'batch': batch,
    'ours': best['ours'],
    'torch': best['torch'],
    'ratio': best['torch'] / best['ours'],
    'cpu': cpu['torch'] / cpu['ours'],
    'work': theirs.gflop,
    'more': ours.gflop / theirs.gflop,
    'params': ours.parameters / theirs.parameters,
    'peak': peak,
    'share_ours': 100 * theirs.gflop / best['ours'] / peak,
    'share_torch': 100 * theirs.gflop / best['torch'] / peak,
    'first_call': timed['ours'][0].wall,
    'times': {
      side: [t._asdict() for t in times] for side, (_, times) in timed.items()
    },
  }


def best_of(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
  """The row of the faster dtype, from rows of the same work and batch."""
  if len(rows) < 2:
    return None
  mine = min(rows, key=lambda row: row['ours'])
  plain = next(row['torch'] for row in rows if row['dtype'] == 'float32')
  theirs = min(row['torch'] for row in rows)
  return {
    'row': f'{mine["row"]} best',
    'dtype': mine['dtype'],
    'batch': mine['batch'],
    'ours': mine['ours'],
    'torch': theirs,
    'ratio': theirs / mine['ours'],
    'plain': plain / mine['ours'],
  }


def chosen(only: str | None) -> Iterator[str]:
  """Names of the rows that start with one of some prefixes."""
  words = only.split(',') if only else ['']
  unknown = [w for w in words if not any(r.startswith(w) for r in ROWS)]
  if unknown:
    raise SystemExit(
      f"--only={only}: no row starts with '{unknown[0]}'; there are "
      + ', '.join(ROWS)
    )
  return (row for row in ROWS if any(row.startswith(w) for w in words))


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
  parser = common.parser(__doc__)
  parser.add_argument('--only', help='prefixes of rows, separated by commas')
  parser.add_argument('--dtypes', default=','.join(common.DTYPES))
  parser.add_argument('--batches', help='batch sizes, instead of the default')
  parser.add_argument('--depth', type=int, help='layers, to find bottlenecks')
  args = parser.parse_args(argv)
  common.use_threads(args.threads)
  about = common.use_torch(args.threads, args.repeats)
  names = list(chosen(args.only))
  table = common.Table(COLUMNS, **about)
  for name in names:
    batches = ROWS[name].batches[:1] if args.quick else ROWS[name].batches
    if args.batches:
      batches = tuple(int(b) for b in args.batches.split(','))
    for batch in batches:
      rows = []
      for dtype in args.dtypes.split(','):
        row = measure(name, dtype, batch, args)
        gc.collect()
        rows.append(row)
        table.add(**row)
      best = best_of(rows)
      if best:
        table.add(**best)
      table.save(args.json)
  return table.rows


if __name__ == '__main__':
  main()
