"""Converts between official weights and our parameters, both ways.

A `Row` maps one of our parameters to an official tensor and its layout there.
The `Table` of a family makes the rows for the parameters of a config, so that
one table serves all sizes and variants.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import flax.traverse_util
import numpy as np

from arvision.errors import DataError

# Arrays, or tensors of a file that `np.asarray` reads.
Weights = dict[str, Any]
Shape = tuple[int, ...]
Grids = tuple[tuple[int, int], ...]


class Form(Protocol):
  """The layout of an official tensor, relative to our parameter."""

  def shape(self, ours: Shape) -> Shape:
    """The official shape of a parameter of our shape."""

  def inward(self, w: np.ndarray, ours: Shape) -> np.ndarray:
    """Official array -> ours."""

  def outward(self, p: np.ndarray) -> np.ndarray:
    """Our array -> official."""


@dataclasses.dataclass(frozen=True)
class Identity:
  """The same elements in the same order, with additional axes of length 1.

  Attributes:
    before, after: number of leading and trailing axes of length 1 in the
      official tensor.
    flat: whether its other axes are flattened.
  """

  before: int = 0
  after: int = 0
  flat: bool = False

  def shape(self, ours):
    inner = (int(np.prod(ours)),) if self.flat else ours
    return (1,) * self.before + inner + (1,) * self.after

  def inward(self, w, ours):
    return w.reshape(ours)

  def outward(self, p):
    return p.reshape(self.shape(p.shape))


@dataclasses.dataclass(frozen=True)
class Linear:
  """torch's (out, in) -> (*in, *out).

  Attributes:
    inputs: number of our input axes; 0 for a bias, which is flat in torch.
    chunks: permutation of our first output axis: the official index of every
      entry; () for the same order.
    after: trailing axes of length 1 in torch (2 for a 1 x 1 convolution).
  """

  inputs: int = 1
  chunks: tuple[int, ...] = ()
  after: int = 0

  def shape(self, ours):
    i = self.inputs
    out = int(np.prod(ours[i:]))
    flat = (out, int(np.prod(ours[:i]))) if i else (out,)
    return flat + (1,) * self.after

  def inward(self, w, ours):
    p = w.reshape(w.shape[: w.ndim - self.after]).T.reshape(ours)
    return p.take(self.chunks, self.inputs) if self.chunks else p

  def outward(self, p):
    if self.chunks:
      p = p.take(np.argsort(self.chunks), self.inputs)
    shape = self.shape(p.shape)
    flat = shape[: len(shape) - self.after]
    return p.reshape(flat[::-1]).T.reshape(shape)


@dataclasses.dataclass(frozen=True)
class Conv:
  """torch's (out, in, height, width) -> (height, width, in, out)."""

  def shape(self, ours):
    return ours[3], ours[2], ours[0], ours[1]

  def inward(self, w, ours):
    return w.transpose(2, 3, 1, 0)

  def outward(self, p):
    return p.transpose(3, 2, 0, 1)


@dataclasses.dataclass(frozen=True)
class Map:
  """torch's (1, channels, height, width) -> (height, width, channels)."""

  def shape(self, ours):
    return 1, ours[2], ours[0], ours[1]

  def inward(self, w, ours):
    return w[0].transpose(1, 2, 0)

  def outward(self, p):
    return p.transpose(2, 0, 1)[None]


@dataclasses.dataclass(frozen=True)
class Row:
  """Maps one of our parameters to official tensors.

  Attributes:
    path: path of the parameter, 'backbone/input/linear/kernel'.
    key: official key; '{i}' is the number of a layer of a stacked parameter.
    form: layout of the official tensor.
    start, total: offset of the parameter along the first axis of an official
      tensor with several parameters, and the length of that axis; None if it
      has no others.
    first: number of the first layer; None if the only layer has no number.
    parts: values of '{part}' in the key, for tensors to concatenate along their
      first axis.
    last: key of a separate tensor for the last entry along the first axis; ''
      for none.
  """

  path: str
  key: str
  form: Form = Identity()
  start: int = 0
  total: int | None = None
  first: int | None = 0
  parts: tuple[str, ...] = ('',)
  added: str = ''
  last: str = ''

  def keys(self, ours: Shape) -> list[str]:
    """The official keys of a parameter of our shape."""
    return [key for keys in self._keys(ours) for key in keys]

  def _keys(self, ours):
    """The keys of every layer."""
    layers: Iterable = ('',)
    if '{i}' in self.key and self.first is not None:
      layers = range(self.first, self.first + ours[0])
    keys = [self.key, *([self.last] if self.last else [])]
    return [
      [
        key.replace('{i}', str(i)).replace('{part}', part)
        for key in keys
        for part in self.parts
      ]
      for i in layers
    ]

  def official(self, ours: Shape) -> dict[str, Shape]:
    """Shapes of the official tensors by key."""
    first, *rest = self.form.shape(self._layer(ours))
    first = (self.total or first) // len(self.parts)
    found = dict.fromkeys(self.keys(ours), (first, *rest))
    if self.last:
      found = {self.key: (first - 1, *rest), self.last: (1, *rest)}
    return found

  def _layer(self, ours):
    return ours[1:] if '{i}' in self.key else ours

  def inward(self, weights: Mapping[str, Any], ours: Shape):
    """Our parameter, float32, from the official tensors."""
    p = np.empty(ours, np.float32)
    # Reads one tensor of the file at a time.
    layers = p if '{i}' in self.key else [p]
    for layer, keys in zip(layers, self._keys(ours)):
      stop = self.start + self.form.shape(self._layer(ours))[0]
      parts = [np.asarray(weights[key]) for key in keys]
      w = np.concatenate(parts) if len(parts) > 1 else parts[0]
      if self.added in weights:
        w = w + np.asarray(weights[self.added])[:1]
      layer[...] = self.form.inward(w[self.start : stop], self._layer(ours))
    return p

  def outward(self, p: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """(official key, this parameter's part of the tensor) pairs."""
    layers = p if '{i}' in self.key else [p]
    for keys, layer in zip(self._keys(p.shape), layers):
      cuts: Any = [-1] if self.last else len(keys)
      yield from zip(keys, np.split(self.form.outward(layer), cuts))


class Table(Protocol):
  """The weights of a released family.

  A family whose weights may come in several files, each with some of them, has
  `files`, a table for each.

  Attributes:
    name: name in words.
    wrapping: dotted path of dicts around the weights in the release, '' for
      none; with a dot at its end, a prefix of their keys.
    hints: (pattern of official keys, config keys that may explain a mismatch).
  """

  name: str
  wrapping: str
  hints: tuple[tuple[str, str], ...]

  def rows(self, ours: Mapping[str, Shape]) -> list[Row]:
    """The rows of our parameters that the family has.

    Args:
      ours: path -> shape.
    """

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    """The official buffers: tensors that are derived or count something.

    Args:
      weights: the official weights without buffers.
      grids: grids of the tokens, as in `TokenSpec`.
    """

  def derived(self, key: str) -> bool:
    """Whether an official key is a buffer, which is not imported."""


def paths(shapes: Any) -> dict[str, Shape]:
  """Shapes of a tree of arrays or shapes, by path 'a/b/c'."""
  flat = flax.traverse_util.flatten_dict(shapes, sep='/')
  return {path: tuple(leaf.shape) for path, leaf in flat.items()}


def to_params(table: Table, weights: Weights, shapes: Any) -> Any:
  """Converts official weights to a tree of float32 arrays like `shapes`.

  Raises:
    DataError: missing or unexpected keys or wrong shapes, listed together with
      config keys that may explain them; or numbers that are not finite.
  """
  ours = paths(shapes)
  rows = table.rows(ours)
  check(table, rows, weights, ours)
  params = {}
  broken = []
  for row in rows:
    params[row.path] = p = row.inward(weights, ours[row.path])
    # The sum takes no memory, but can overflow although all numbers are finite.
    with np.errstate(all='ignore'):
      finite = np.isfinite(p.sum()) or np.isfinite(p).all()
    if not finite:
      broken.append(row.path)
  if broken:
    raise DataError(f'numbers that are not finite: {", ".join(broken)}')
  return flax.traverse_util.unflatten_dict(params, sep='/')


def to_weights(table: Table, params: Any, grids: Grids) -> Weights:
  """Converts a tree of parameters to official weights, buffers included.

  Args:
    table: table of the family.
    params: tree of arrays.
    grids: grids of the tokens, as in `TokenSpec`.
  """
  flat = flax.traverse_util.flatten_dict(params, sep='/')
  parts: dict[str, dict[int, np.ndarray]] = {}
  for row in table.rows(paths(params)):
    for key, w in row.outward(np.asarray(flat[row.path])):
      parts.setdefault(key, {})[row.start] = w
  weights = {
    key: np.concatenate([w[i] for i in sorted(w)]) if len(w) > 1 else w[0]
    for key, w in parts.items()
  }
  return weights | table.buffers(weights, grids)


def check(
  table: Table, rows: list[Row], weights: Weights, ours: Mapping[str, Shape]
) -> None:
  """Checks the keys and shapes of official weights; see `to_params`."""
  wanted = {
    key: shape
    for row in rows
    for key, shape in row.official(ours[row.path]).items()
  }
  missing = [key for key in wanted if key not in weights]
  known = {*wanted, *(row.added for row in rows)}
  over = [k for k in weights if k not in known and not table.derived(k)]
  shaped = [
    key
    for key, shape in wanted.items()
    if key in weights and np.shape(weights[key]) != shape
  ]
  imaginary = [
    key for key in wanted if key in weights and weights[key].dtype.kind == 'c'
  ]
  unknown = sorted({*ours} - {row.path for row in rows})
  if not (missing or over or shaped or imaginary or unknown):
    return
  shapes = lambda key: f' {np.shape(weights[key])}, wanted {wanted[key]}'
  lines = [
    *_listed('missing', missing),
    *_listed('left over', over),
    *_listed('of another shape', shaped, shapes),
    *_listed('of complex numbers', imaginary),
    *(f'  not in any release: parameter {path}' for path in unknown),
  ]
  keys = [*missing, *over, *shaped]
  hints = dict.fromkeys(
    text
    for pattern, text in table.hints
    if any(re.search(pattern, key) for key in keys)
  )
  text = f'not the weights of this {table.name}:\n' + '\n'.join(lines)
  if hints:
    text += '\nlook at ' + '; '.join(hints)
  raise DataError(text)


def _listed(what, keys, more: Callable[[str], str] = lambda key: ''):
  """One line for all keys that only differ in the number of a layer."""
  groups: dict[tuple[str, str], list[int]] = {}
  for key in keys:
    number = re.search(r'\d+', key)
    name = re.sub(r'\d+', '*', key, count=1)
    at = int(number[0]) if number else -1
    groups.setdefault((name, more(key)), []).append(at)
  for (name, text), numbers in groups.items():
    yield f'  {what}: {name.replace("*", _span(numbers), 1)}{text}'


def _span(numbers):
  low, high = min(numbers), max(numbers)
  if len(numbers) == 1:
    return str(low)
  if len(numbers) == high - low + 1:
    return f'{{{low}..{high}}}'
  return '{' + ','.join(map(str, sorted(numbers))) + '}'


def dense(
  path: str,
  key: str,
  inputs: int = 1,
  bias: bool = True,
  chunks: tuple[int, ...] = (),
) -> Iterator[Row]:
  """Rows of the kernel and bias of a linear layer; see `Linear`."""
  yield Row(f'{path}/kernel', f'{key}.weight', Linear(inputs, chunks))
  if bias:
    yield Row(f'{path}/bias', f'{key}.bias', Linear(0, chunks))


def norm(path: str, key: str) -> Iterator[Row]:
  """Rows of the scale and bias of a norm."""
  yield Row(f'{path}/scale', f'{key}.weight')
  yield Row(f'{path}/bias', f'{key}.bias')


def in_thirds(
  ours: Mapping[str, Shape], attention: str, key: str
) -> Iterator[Row]:
  """Rows of the biases of q, k and v, which share one official vector."""
  for i, name in enumerate('qkv'):
    path = f'{attention}/{name}_bias'
    _, heads, head = ours.get(path, (0, 0, 0))
    width = heads * head
    yield Row(path, key, Identity(flat=True), start=i * width, total=3 * width)


def block(ours: Mapping[str, Shape], path: str, key: str) -> Iterator[Row]:
  """Rows of a transformer block with timm's names, one tensor for q, k and v.

  Args:
    ours: path -> shape.
    path: of our block.
    key: of the official one.
  """
  attention = f'{path}/attention'
  yield from norm(f'{path}/norm1', f'{key}.norm1')
  yield from norm(f'{path}/norm2', f'{key}.norm2')
  yield Row(f'{attention}/qkv/kernel', f'{key}.attn.qkv.weight', Linear())
  yield from in_thirds(ours, attention, f'{key}.attn.qkv.bias')
  yield from dense(f'{attention}/out', f'{key}.attn.proj', inputs=2)
  yield from dense(f'{path}/mlp/fc1', f'{key}.mlp.fc1')
  yield from dense(f'{path}/mlp/fc2', f'{key}.mlp.fc2')
