"""Annotations that state and check the valid values of fields and flags.

    heads: Few
    dropout: Below1 = 0.0
    std: AtLeast0 | None = None

`build` checks every field of a config against its annotation. An `int` must not
be a bool, a `float` must fit into float32, and text must not contain NUL. Other
annotations, and arrays, are not checked.
"""

import argparse
import collections.abc
import dataclasses
import functools
import math
import numbers
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np

_LARGEST = float(np.finfo(np.float32).max)
_INT32 = 2**31 - 1
_WHOLE = 'a whole number, '


@dataclasses.dataclass(frozen=True)
class Range:
  """An interval of numbers, without NaN and infinities.

  Attributes:
    low, high: the ends.
    above: exclude `low`.
    below: exclude `high`.
    or_zero: include 0.
  """

  low: float = -_LARGEST
  high: float = _LARGEST
  above: bool = False
  below: bool = False
  or_zero: bool = False

  def __contains__(self, x: Any) -> bool:
    if self.or_zero and x == 0:
      return True
    low = x > self.low if self.above else x >= self.low
    return bool(low and (x < self.high if self.below else x <= self.high))

  def __str__(self) -> str:
    zero = '0, or ' if self.or_zero else ''
    if self.low == -_LARGEST and self.high == _LARGEST:
      return 'a finite number'
    if self.high in (_INT32, _LARGEST):
      return zero + (
        f'more than {self.low:g}' if self.above else f'{self.low:g} or more'
      )
    if isinstance(self.high, int) and not (self.above or self.below):
      return f'{zero}{self.low} to {self.high}'
    ends = '(' if self.above else '[', ')' if self.below else ']'
    return f'{zero}a number in {ends[0]}{self.low:g}, {self.high:g}{ends[1]}'


class NotEmpty:
  """Tuples of one or more."""

  def __contains__(self, x: Any) -> bool:
    return isinstance(x, (tuple, list)) and len(x) > 0


class Floating:
  """Compute dtypes, by name or type."""

  names = ('float32', 'bfloat16', 'float16')

  def __contains__(self, x: Any) -> bool:
    name = x if isinstance(x, str) else getattr(x, 'name', None)
    name = name or getattr(getattr(x, 'dtype', None), 'name', None)
    return (name or getattr(x, '__name__', '')) in self.names

  def __str__(self) -> str:
    return ', '.join(self.names[:-1]) + f' or {self.names[-1]}'


Count = Annotated[int, Range(1, _INT32)]
Natural = Annotated[int, Range(0, _INT32)]
# Lengths of Python loops.
Few = Annotated[int, Range(1, 10_000)]
FewOr0 = Annotated[int, Range(0, 10_000)]
# Of a stack; negative numbers count from its end.
Layer = Annotated[int, Range(-10_000, 10_000)]
Width = Annotated[int, Range(1, 2**20)]
NOT_EMPTY = NotEmpty()
Fews = Annotated[tuple[Few, ...], NOT_EMPTY]
Widths = Annotated[tuple[Width, ...], NOT_EMPTY]
Names = Annotated[tuple[str, ...], NOT_EMPTY]
# Number of samples: of one call, and in all.
Batch = Annotated[int, Range(1, 2**16)]
Many = Annotated[int, Range(1, 10**7)]
# Side of an image, a patch or a grid.
Side = Annotated[int, Range(1, 2**14)]
Byte = Annotated[int, Range(0, 255)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Share = Annotated[float, Range(0, 1)]
# Dropout and EMA decays.
Below1 = Annotated[float, Range(0, 1, below=True)]
AtLeast0 = Annotated[float, Range(0)]
Finite = Annotated[float, Range()]
Positive = Annotated[float, Range(0, above=True)]
Guidance = Annotated[float, Range(0, 10_000)]
# Logits divided by a smaller temperature exceed float32.
Temperature = Annotated[float, Range(1e-6, 1e6, or_zero=True)]
Dtype = Annotated[Any, Floating()]


# Values that are no parts; a block without a type is a dict.
_SCALARS = (bool, int, float, complex, str, bytes, type(None), type(...))
_PLAIN = (*_SCALARS, tuple, list, set, dict)


def fault(value: Any, kind: Any) -> str:
  """'' if a value satisfies an annotation; else 'wanted 1 or more' or the like.

  Args:
    value: anything.
    kind: an annotation.
  """
  if _fits(value, kind):
    return ''
  texts = wanted(kind)
  if not isinstance(value, numbers.Real) or isinstance(value, bool):
    return f'wanted {texts}'
  if not (isinstance(value, numbers.Integral) or math.isfinite(value)):
    return f'wanted a finite number: {texts}'
  if value == value // 1:  # it is whole, so that is not the fault
    texts = texts.removeprefix(_WHOLE)
  limits = filter(None, map(_limits, _members(kind)))
  highest: Any = max((r.high for r in limits), default=0)
  # The text omits these upper ends.
  if highest in (_INT32, _LARGEST) and value > highest:
    most = highest if isinstance(highest, int) else f'{highest:.3g}'
    texts += f', {most} at most'
  return f'wanted {texts}'


def wanted(kind: Any) -> str:
  """An annotation in words, '' for Any: '0 or more, or None'."""
  if kind is Any:
    return ''
  return ', or '.join(dict.fromkeys(map(_text, _members(kind))))


def kinds(target: Any) -> dict[str, Any]:
  """Annotations of the fields of a class or the arguments of a function."""
  if isinstance(target, type) and not dataclasses.is_dataclass(target):
    target = target.__init__
  try:
    return typing.get_type_hints(target, include_extras=True)
  except (NameError, TypeError, AttributeError):
    return {}  # annotations for type checkers only


def number(kind: Any) -> Callable[[str], Any]:
  """An argparse `type` that parses and checks an int or float annotation."""
  base = typing.get_args(kind)[0]

  def read(text: str) -> Any:
    try:
      value = base(text)
    except ValueError:
      value = text
    wrong = fault(value, kind)
    if wrong:
      raise argparse.ArgumentTypeError(f'={shown(text)[1:-1]}: {wrong}')
    return value

  return read


def shown(value: Any) -> str:
  """The repr of a value, shortened to a line."""
  text = repr(value)
  return text if len(text) <= 80 else f'{text[:60]}...'


def _members(kind):
  """The members of a union; another annotation is its own only member."""
  if typing.get_origin(kind) in (typing.Union, types.UnionType):
    return [m for part in typing.get_args(kind) for m in _members(part)]
  return [kind]


def _limits(kind):
  """The `Range` of a numeric annotation, None for others."""
  if kind in (int, float):
    return Range(-(2**63), 2**63 - 1) if kind is int else Range()
  if typing.get_origin(kind) is Annotated:
    found = kind.__metadata__[0]
    return found if isinstance(found, Range) else None
  return None


def _fits(value, kind) -> bool:
  if kind is Any or isinstance(kind, typing.TypeVar):
    return True
  members = _members(kind)
  if len(members) > 1:
    return any(_fits(value, part) for part in members)
  if isinstance(value, str) and '\0' in value:
    return False
  limits, origin = _limits(kind), typing.get_origin(kind)
  if limits is not None:
    return _is_number(value, _base(kind)) and (
      not isinstance(value, numbers.Real) or value in limits
    )
  if origin is Annotated:
    return value in kind.__metadata__[0] and _fits(value, _base(kind))
  if origin is Literal:
    return value in typing.get_args(kind)
  if kind in (bool, str):
    return isinstance(value, kind)
  if kind in (None, type(None)):
    return value is None
  if kind is tuple or origin is tuple:
    return _fits_tuple(value, typing.get_args(kind))
  if origin is collections.abc.Callable:
    return callable(value)
  if collections.abc.Mapping in (kind, origin):
    return isinstance(value, collections.abc.Mapping) or hasattr(value, 'items')
  # A class or Protocol wants a part. A plain value is not a part, nor is a
  # template of a Flax module, whose annotation is `Callable`.
  no_part = isinstance(value, (*_PLAIN, functools.partial))
  return not (no_part and isinstance(kind, type)) or _is(value, kind)


def _is(value, kind) -> bool:
  try:
    return isinstance(value, kind)
  except TypeError:  # a Protocol for type checkers only
    return False


def _base(kind):
  return typing.get_args(kind)[0] if typing.get_args(kind) else kind


def _is_number(value, base) -> bool:
  if isinstance(value, (bool, np.bool_)):
    return False
  if isinstance(value, numbers.Real):
    whole = isinstance(value, numbers.Integral)
    return whole if base is int else whole or math.isfinite(value)
  return hasattr(value, 'dtype') and hasattr(value, 'aval')  # of JAX


def _fits_tuple(value, args) -> bool:
  if not isinstance(value, (tuple, list)):
    return False
  if len(args) == 2 and args[1] is Ellipsis:
    return all(_fits(x, args[0]) for x in value)
  return not args or (len(value) == len(args) and all(map(_fits, value, args)))


def _text(kind) -> str:
  """An annotation in words."""
  limits, origin = _limits(kind), typing.get_origin(kind)
  if limits is not None:
    whole = _WHOLE if _base(kind) is int else ''
    if kind is int:
      return 'a whole number'
    return whole + str(limits)
  if origin is Annotated and isinstance(kind.__metadata__[0], NotEmpty):
    return 'a tuple of 1 or more' + _text(_base(kind)).removeprefix('a tuple')
  if origin is Annotated:
    return str(kind.__metadata__[0])
  if origin is Literal:
    return ' or '.join(map(repr, typing.get_args(kind)))
  if kind is bool:
    return 'True or False'
  if kind is str:
    return 'text without a NUL byte'
  if kind in (None, type(None)):
    return 'None'
  if kind is tuple or origin is tuple:
    return _text_of_tuple(typing.get_args(kind))
  if collections.abc.Mapping in (kind, origin):
    return 'a block'
  return "a block with a 'type'"


def _text_of_tuple(args) -> str:
  if len(args) == 2 and args[1] is Ellipsis:
    inner = ' or '.join(map(_text, _members(args[0])))
    return f'a tuple, each {inner}'
  if not args:
    return 'a tuple'
  return f'a tuple of {len(args)}, each ' + ' or '.join(
    dict.fromkeys(_text(m) for a in args for m in _members(a))
  )
