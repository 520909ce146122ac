"""Where the time of our side of a row of `benchmarks.twins` goes.

    python -m benchmarks.profile xar.generate --threads=2
    python -m benchmarks.profile var.train --dtype=bfloat16 --batch=2 --top=30

One run of the compiled program is traced, after one that is not. First rows are
kinds of work, then the operations that take longest:

    products    matrix products and convolutions, with what is fused to them
    copies      copies and transposes of arrays
    writes      of some rows of a larger array: caches, stacks that loops keep
    fills       arrays of one number, where sums over a loop start from
    casts       from one dtype to another
    sums        reductions and scans: softmax, norms
    rest        all else, mostly fused operations on single numbers

`seconds` are of all threads that work on operations of their own; the threads that
help with one operation are not counted, so the sum may be less than cores x wall.
"""

import collections
import glob
import re
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks import common, twins

COLUMNS = {
  'kind': 'kind:<9s',
  'seconds': 'seconds:9.3f',
  'share': '%:5.1f',
  'calls': 'calls:8d',
  'shape': 'shape:<26s',
  'where': 'where:<s',
}

# The first with a word that begins the primitive, or is in the name, counts.
KINDS = {
  'writes': ('dynamic-update-slice', 'scatter'),
  'copies': ('transpose', 'copy'),
  'sums': ('reduce', 'cumsum', 'cumlogsumexp', 'cummax'),
  'fills': ('wrapped_broadcast', 'broadcast.'),
  'casts': ('wrapped_convert', 'convert.'),
}
# Operations that hold others.
_HOLDERS = ('while', 'call', 'conditional')


class Operation(NamedTuple):
  """An instruction of a compiled program.

  Attributes:
    shape: of what it gives, 'f32[8,16]'.
    path: JAX's name of it: modules, and the primitive at the end.
    multiplies: whether it is a product or convolution, or one is fused into it.
  """

  shape: str
  path: str
  multiplies: bool


_LINE = re.compile(r'\s+(?:ROOT )?%([\w.-]+) = \(?([\w\[\],]+)\S* (.*)')


def operations(program: str) -> dict[str, Operation]:
  """Name -> operation, of a compiled program as text.

  What a product is fused into has the product's path.
  """
  found, inside, computation = {}, {}, ''
  for line in program.splitlines():
    if head := re.match(r'(?:ENTRY )?%([\w.-]+) \(', line):
      computation = head[1]
    if not (match := _LINE.match(line)):
      continue
    name, shape, rest = match.groups()
    path = re.search(r'op_name="([^"]*)"', rest)
    path = path[1] if path else ''
    multiplies = bool(re.match(r'(dot|convolution)\(', rest)) or (
      rest.startswith('custom-call(') and path.endswith(('dot_general', 'conv'))
    )
    if called := re.search(r'calls=%([\w.-]+)', rest):
      path, multiplies = inside.get(called[1], (path, multiplies))
    if multiplies:
      inside[computation] = path, True
    found[name] = Operation(shape, path, multiplies)
  return found


def kind(name: str, op: Operation) -> str:
  """What an operation does: 'products', one of KINDS, or 'rest'.

  Args:
    name: the compiler's, which tells what was fused.
    op: what else is known.
  """
  if op.multiplies:
    return 'products'
  primitive = op.path.rsplit('/', 1)[-1]
  for some, words in KINDS.items():
    if primitive.startswith(words) or any(w in f'{name}.' for w in words):
      return some
  return 'rest'


def where(path: str) -> str:
  """The end of a path, without what every path has; gradients are named."""
  dropped = ('while', 'body', 'closed_call', 'checkpoint', 'jit(run)')
  parts = [p for p in path.split('/') if p and p not in dropped]
  text = '/'.join(parts[-4:])
  return f'd {text}' if 'transpose(' in path else text


def events(run: Any) -> Iterator[tuple[str, float]]:
  """Operations of a call and the seconds of each, one by one."""
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
        if name and not name.startswith(_HOLDERS):
          yield name, event.duration_ns / 1e9


def rows(
  spent: Iterator[tuple[str, float]], program: str, top: int
) -> list[dict[str, Any]]:
  """Kinds, and the `top` operations that take longest.

  Args:
    spent: operations and seconds, see `events`.
    program: compiled, as text.
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
