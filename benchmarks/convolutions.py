"""Convolutions and their gradients: ours, XLA's and PyTorch's.

    python -m benchmarks.convolutions --threads=2
    python -m benchmarks.convolutions --only=256,64 --dtypes=float32,bfloat16
    python -m benchmarks.convolutions --json=out.json

Needs torch. Shapes are those of the decoder of VAR's tokenizer, and of small
tokenizers that train on a CPU. Rows:

    output    the convolution
    input     the gradient of its input
    kernel    the gradient of its kernel

Ours is `kernels.cpu.winograd.convolve`, XLA's `jax.lax.conv_general_dilated`,
and PyTorch's `conv2d` over channels-last arrays. The three are timed in turns.
`xla` and `torch` are their best seconds over ours. GFLOP/s are the
multiplications of the direct convolution over our seconds: Winograd's
multiplies 2.25 times less, so they may exceed the matmul peak of the same run.
"""

import functools
from typing import Any

from arvision.runs import hardware
from benchmarks import common

COLUMNS = {
  'row': 'row:<7s',
  'dtype': 'dtype:<9s',
  'kernel': 'kernel:6d',
  'side': 'px:4d',
  'channels': 'in:4d',
  'features': 'out:4d',
  'batch': 'batch:5d',
  'ours': 'ours ms:9.2f',
  'xla': 'xla:6.2f',
  'torch': 'torch:6.2f',
  'gflops': 'GFLOP/s:8.0f',
  'peak': 'matmul GFLOP/s:15.0f',
}
# Kernel, side of the image, channels in and out, batch.
CASES = (
  (3, 256, 160, 160, 1),
  (3, 256, 160, 160, 4),
  (3, 128, 160, 160, 1),
  (3, 64, 320, 320, 1),
  (3, 16, 640, 640, 1),
  (3, 256, 160, 3, 1),
  (1, 256, 160, 160, 1),
  (3, 16, 128, 128, 32),
  (3, 8, 64, 64, 64),
  (1, 8, 64, 128, 64),
)
PARTS = ('output', 'input', 'kernel')


def our_side(function: Any, arrays: tuple, padding: int) -> dict[str, Any]:
  """Compiled JAX programs of the three parts."""
  import jax

  of = functools.partial(
    function, window_strides=(1, 1), padding=((padding, padding),) * 2
  )
  parts = {
    'output': lambda x, kernel, _: of(x, kernel),
    'input': lambda x, kernel, g: jax.vjp(of, x, kernel)[1](g)[0],
    'kernel': lambda x, kernel, g: jax.vjp(of, x, kernel)[1](g)[1],
  }
  return {
    name: functools.partial(jax.jit(f), *arrays) for name, f in parts.items()
  }


def their_side(arrays: tuple, padding: int) -> dict[str, Any]:
  """The same in PyTorch."""
  import numpy as np
  import torch

  dtype = getattr(torch, str(arrays[0].dtype))
  x, kernel, gradient = (
    torch.from_numpy(np.array(a, np.float32)).to(dtype) for a in arrays
  )
  x, gradient = (a.permute(0, 3, 1, 2) for a in (x, gradient))
  kernel = kernel.permute(3, 2, 0, 1).contiguous()

  def back(*wanted):
    return torch.ops.aten.convolution_backward(
      gradient,
      x,
      kernel,
      None,
      [1, 1],
      [padding, padding],
      [1, 1],
      False,
      [0, 0],
      1,
      [*wanted, False],
    )

  def output():
    with torch.inference_mode():
      return torch.nn.functional.conv2d(x, kernel, padding=padding)

  return {
    'output': output,
    'input': lambda: back(True, False),
    'kernel': lambda: back(False, True),
  }


def measure(case: tuple[int, ...], dtype: str, repeats: int):
  """Rows of one convolution."""
  import jax

  from arvision.kernels.cpu.winograd import convolve

  size, side, channels, features, batch = case
  keys = jax.random.split(jax.random.key(0), 3)
  arrays = (
    jax.random.normal(keys[0], (batch, side, side, channels), dtype),
    jax.random.normal(keys[1], (size, size, channels, features), dtype),
    jax.random.normal(keys[2], (batch, side, side, features), dtype),
  )
  xla = functools.partial(
    jax.lax.conv_general_dilated, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  padding = size // 2
  sides = {
    'ours': our_side(convolve, arrays, padding),
    'xla': our_side(xla, arrays, padding),
    'torch': their_side(arrays, padding),
  }
  work = 2 * size**2 * channels * features * batch * side**2 / 1e9
  peak = hardware.matmul_peak(dtype)
  for part in PARTS:
    runs = {name: parts[part] for name, parts in sides.items()}
    timed = common.interleaved(runs, repeats)
    best = {name: min(t.wall for t in ts) for name, (_, ts) in timed.items()}
    yield {
      'row': part,
      'dtype': dtype,
      'kernel': size,
      'side': side,
      'channels': channels,
      'features': features,
      'batch': batch,
      'ours': 1e3 * best['ours'],
      'xla': best['xla'] / best['ours'],
      'torch': best['torch'] / best['ours'],
      'gflops': work / best['ours'],
      'peak': peak,
    }


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
  parser = common.parser(__doc__)
  parser.add_argument('--only', help='sides of images, with commas between')
  parser.add_argument('--dtypes', default='float32')
  args = parser.parse_args(argv)
  common.use_threads(args.threads)
  about = common.use_torch(args.threads, args.repeats)
  sides = {c[1] for c in CASES}
  if args.only:
    sides = {int(side) for side in args.only.split(',')}
  cases = [c for c in CASES if c[1] in sides]
  if not cases:
    known = ', '.join(map(str, sorted({c[1] for c in CASES})))
    raise SystemExit(f'--only={args.only}: wanted sides among {known}')
  if args.quick:
    cases = [(3, 8, 32, 48, 2), (1, 8, 16, 8, 2)]
  table = common.Table(COLUMNS, **about)
  for case in cases:
    for dtype in args.dtypes.split(','):
      for row in measure(case, dtype, args.repeats):
        table.add(**row)
      table.save(args.json)
  return table.rows


if __name__ == '__main__':
  main()
