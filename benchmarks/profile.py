"""Profiles our side of a row of `benchmarks.twins`.

    python -m benchmarks.profile xar.generate --threads=2
    python -m benchmarks.profile var.train --dtype=bfloat16 --batch=2 --top=30

Traces one run of the compiled program after a warm-up. The first rows are kinds
of work, the others the operations that take longest:

    products    matrix products and convolutions, with the operations fused to them
    copies      copies and transposes of arrays
    writes      updates of a part of a larger array: caches, stacked results of loops
    fills       constant arrays, such as the start of a sum over a loop
    casts       from one dtype to another
    sums        reductions and scans: softmax, norms
    rest        all else, mostly fused elementwise operations

`seconds` are summed over threads that run operations of their own. Threads that
help with one operation are not counted, so the sum may be less than cores x
wall.
"""

import collections
import glob
import re
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from arvision.plan import hlo
from benchmarks import common, twins

COLUMNS = {
  'kind': 'kind:<9s',
  'seconds': 'seconds:9.3f',
  'share': '%:5.1f',
  'calls': 'calls:8d',
  'shape': 'shape:<26s',
  'where': 'where:<s',
}

# Words that start the primitive or occur in the name; the first match counts.
KINDS = {
  'writes': ('dynamic-update-slice', 'scatter'),
  'copies': ('transpose', 'copy'),
  'sums': ('reduce', 'cumsum', 'cumlogsumexp', 'cummax'),
  'fills': ('wrapped_broadcast', 'broadcast.'),
  'casts': ('wrapped_convert', 'convert.'),
}
# Operations that contain others.
_CONTAINERS = ('while', 'call', 'conditional')


class Operation(NamedTuple):
  """An instruction of a compiled program.

  Attributes:
    shape: shape of the result, 'f32[8,16]'; of a tuple the first.
    path: JAX's name stack: modules, and the primitive at the end.
    multiplies: whether it is, or contains, a product or convolution.
  """

  shape: str
  path: str
  multiplies: bool


def operations(program: str) -> dict[str, Operation]:
  """Name -> operation of a compiled program, `compiled.as_text()`.

  A fusion with a product has the path of the product.
  """
  found, products = {}, {}
  for name, instructions in hlo.Program(program).computations.items():
    for x in instructions.values():
      path = re.search(r'op_name="([^"]*)"', x.rest)
      path = path[1] if path else ''
      multiplies = x.opcode in ('dot', 'convolution') or (
        x.opcode == 'custom-call' and path.endswith(('dot_general', 'conv'))
      )
      if x.called('calls') in products:
        path, multiplies = products[x.called('calls')], True
      if multiplies:
        products[name] = path
      shape = re.search(r'\w+\[[\d,]*\]', x.shape)
      found[x.name] = Operation(shape[0] if shape else '', path, multiplies)
  return found


def kind(name: str, op: Operation) -> str:
  """The kind of an operation: 'products', one of KINDS, or 'rest'.

  Args:
    name: name of the instruction, which lists fused operations.
    op: the operation.
  """
  if op.multiplies:
    return 'products'
  primitive = op.path.rsplit('/', 1)[-1]
  for some, words in KINDS.items():
    if primitive.startswith(words) or any(w in f'{name}.' for w in words):
      return some
  return 'rest'


def where(path: str) -> str:
  """The end of a path, without common parts; 'd' in front marks gradients."""
  dropped = ('while', 'body', 'closed_call', 'checkpoint', 'jit(run)')
  parts = [p for p in path.split('/') if p and p not in dropped]
  text = '/'.join(parts[-4:])
  return f'd {text}' if 'transpose(' in path else text


def events(run: Any) -> Iterator[tuple[str, float]]:
  """(name, seconds) of every operation that a call executes."""
  import jax

  options = jax.profiler.ProfileOptions()
  options.host_tracer_level, options.python_tracer_level = 2, 0
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder, profiler_options=options):
      jax.block_until_ready(run())
    (file,) = glob.glob(f'{folder}/**/*.xplane.pb', recursive=True)
    data = jax.profiler.ProfileData.from_file(file)
  for plane in data.planes:
    for line in plane.lines:
      for event in line.events:
        name = dict(event.stats).get('hlo_op')
        if name and not name.startswith(_CONTAINERS):
          yield name, event.duration_ns / 1e9


def rows(
  spent: Iterator[tuple[str, float]], program: str, top: int
) -> list[dict[str, Any]]:
  """Rows of all kinds, and of the `top` operations that take longest.

  Args:
    spent: (name, seconds), see `events`.
    program: `compiled.as_text()`.
    top: number of operations.
  """
  known, none = operations(program), Operation('', '', False)
  seconds, calls = collections.Counter(), collections.Counter()
  for name, time in spent:
    op = known.get(name, none)
    for key in ((kind(name, op), '', ''), _key(name, op)):
      seconds[key] += time
      calls[key] += 1
  whole = sum(time for (_, shape, end), time in seconds.items() if not end)
  made = [
    {
      'kind': key[0],
      'seconds': time,
      'share': 100 * time / whole,
      'calls': calls[key],
      'shape': key[1],
      'where': key[2],
    }
    for key, time in seconds.most_common()
  ]
  kinds = [row for row in made if not row['where']]
  return kinds + [row for row in made if row['where']][:top]


def _key(name, op):
  return kind(name, op), op.shape, where(op.path) or name


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
  parser = common.parser(__doc__)
  parser.set_defaults(repeats=1)
  parser.add_argument('row', choices=twins.ROWS, help='of benchmarks.twins')
  parser.add_argument('--dtype', choices=common.DTYPES, default='float32')
  parser.add_argument('--batch', type=int, help='by default the least')
  parser.add_argument('--depth', type=int, help='layers')
  parser.add_argument('--top', type=int, default=20, help='operations to show')
  args = parser.parse_args(argv)
  common.use_threads(args.threads)
  row = twins.ROWS[args.row]
  config = twins.config_of(row, args.dtype, args.quick, args.depth)
  batch = args.batch or row.batches[0]
  ours = twins.our_side(row, config, batch)
  _, wall = common.best(ours.run, args.repeats)
  table = common.Table(
    COLUMNS, row=args.row, dtype=args.dtype, batch=batch, seconds=f'{wall:.3f}'
  )
  for one in rows(events(ours.run), ours.program(), args.top):
    table.add(**one)
  table.save(args.json)
  return table.rows


if __name__ == '__main__':
  main()
