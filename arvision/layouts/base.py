"""Layouts: the order of prediction, as static numpy arrays.

Layouts are compared by identity and made by cached builders, so that a jitted
function can close over one.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np

from arvision.ranges import Count, Natural, Side

NO_TOKEN = -1


def take(array: np.ndarray, index: Any) -> Any:
  """array[index] for a numpy or JAX index."""
  return index.__array_namespace__().asarray(array)[index]


class Step(NamedTuple):
  """One AR step: the slots that enter and the tokens that are predicted.

  The arrays and `s` are numpy when the step is unrolled and traced inside a
  scanned run; their shapes are static in both.

  Attributes:
    s: entity index, 0 .. steps - 1.
    index: (e,) int32 slots that enter the backbone.
    shown: (e,) int32 slots that later steps attend to: `index`, or the clean
      copies of these slots in a layout of two streams.
    tokens: (t,) int32 predicted tokens, -1 for padding.
    readout: (t, r) int32 position in `index` that predicts a token, per branch;
      -1 absent.
    extent: static; rows [0, extent) of a cache are visible.
  """

  s: Any
  index: Any
  shown: Any
  tokens: Any
  readout: Any
  extent: int

  @property
  def clean(self) -> 'Step':
    """The same step with the slots that later steps see."""
    return self._replace(index=self.shown)


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """Consecutive entities of equal shapes, scanned with one compiled body.

  Attributes:
    first: entity of the first step.
    index, shown, tokens, readout: those of every `Step`, with a leading axis
      `count`.
    extent: rows [0, extent) of a cache are visible.
  """

  first: int
  index: np.ndarray
  shown: np.ndarray
  tokens: np.ndarray
  readout: np.ndarray
  extent: int

  @property
  def count(self) -> int:
    return self.index.shape[0]

  def step(self, i: Any, xp: Any = np) -> Step:
    """The i-th step of the run; pass `jax.numpy` if i is traced."""
    arrays = self.index, self.shown, self.tokens, self.readout
    return Step(
      self.first + i, *(xp.asarray(a)[i] for a in arrays), self.extent
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
  """The order of prediction over n slots and t tokens.

  Attributes:
    prefix: number of leading slots that the condition fills; they count in n.
    entity: (n,) int32 AR step of a slot. Prefix slots may have negative
      entities; they enter with step 0.
    stream: (n,) int32, 0 clean, 1 noisy. If there is a noisy stream, it has a
      copy of every clean slot, in the same order, and tokens are read from the
      copies.
    token: (n,) int32 raster index of the token that a slot carries, -1 none.
    coords: (n, axes) float32; NaN = no position.
    readout: (t, r) int32 slot that predicts a token, per branch; -1 absent.
    grids: (height, width) of every scale that the tokenizer emits.
    window: number of past entities that are visible; 0 = own only, None = all.
      Negative entities always stay visible. See `markov`.
    longest: most entities of a scanned run. Shorter runs attend to fewer empty
      slots of the cache, but compile more programs.
    pad_to: pads every step after the first to this many slots and tokens, so
      that entities of different sizes share a scanned run. Tokens are padded
      with -1, slots with neighbouring slots: later ones are neither visible nor
      read, earlier ones are recomputed.
    prefix_aims: whether all prefix slots have the first token as their
      `target_position` (BAR), and not the last of them alone.
  """

  prefix: Natural
  entity: np.ndarray
  stream: np.ndarray
  token: np.ndarray
  coords: np.ndarray
  readout: np.ndarray
  grids: tuple[tuple[Side, Side], ...]
  window: Natural | None = None
  longest: Count | None = None
  pad_to: Count | None = None
  prefix_aims: bool = False

  @property
  def slots(self) -> int:
    return len(self.entity)

  @property
  def tokens(self) -> int:
    return len(self.readout)

  @property
  def branches(self) -> int:
    return self.readout.shape[1]

  @property
  def steps(self) -> int:
    return int(self.entity_of_token.max()) + 1

  @functools.cached_property
  def index(self) -> np.ndarray:
    return np.arange(self.slots, dtype=np.int32)

  @functools.cached_property
  def entity_of_token(self) -> np.ndarray:
    """(t,) the step at which every token is sampled."""
    return np.where(self.readout >= 0, self.entity[self.readout], -1).max(1)

  @property
  def two_streams(self) -> bool:
    return bool(self.stream.any())

  @functools.cached_property
  def clean(self) -> np.ndarray:
    """(m,) int32 slots of the clean stream: one for every row of a cache."""
    return np.flatnonzero(self.stream == 0).astype(np.int32)

  @property
  def markov(self) -> bool:
    """Whether no step sees slots of an earlier one, so that none are cached."""
    return self.window == 0 and not (self.entity < 0).any()

  @property
  def rows(self) -> int:
    """Rows of a cache: one for every clean slot, none if `markov`."""
    return 0 if self.markov else len(self.clean)

  @functools.cached_property
  def row(self) -> np.ndarray:
    """(n,) int32 row of a cache that a slot is written to.

    A noisy slot is written where its clean copy will be.
    """
    noisy = self.stream > 0
    return (
      np.where(noisy, np.cumsum(noisy), np.cumsum(~noisy)).astype(np.int32) - 1
    )

  @functools.cached_property
  def group(self) -> np.ndarray:
    """(n,) int32: entity of a clean slot, `steps` + entity of a noisy one."""
    return (self.entity + self.steps * self.stream).astype(np.int32)

  @functools.cached_property
  def target_position(self) -> np.ndarray:
    """(n,) int32 token that a slot predicts in its first branch, -1 none.

    See `prefix_aims` for prefix slots.
    """
    target = np.full(self.slots, NO_TOKEN, np.int32)
    for branch in self.readout.T[::-1]:
      there = np.flatnonzero(branch >= 0)
      target[branch[there]] = there
    if self.prefix_aims:
      target[: self.prefix] = self.order[0]
    return target

  @functools.cached_property
  def order(self) -> np.ndarray:
    """(t,) int32 tokens in order of prediction, raster order within a step."""
    return np.argsort(self.entity_of_token, kind='stable').astype(np.int32)

  @functools.cached_property
  def unorder(self) -> np.ndarray:
    """(t,) int32 inverse of `order`: x[order][unorder] == x."""
    return np.argsort(self.order).astype(np.int32)

  @functools.cached_property
  def runs(self) -> tuple[Run, ...]:
    """Consecutive entities of equal shapes, grouped into runs."""
    runs: list[list] = []
    for s in range(self.steps):
      index, shown, tokens, readout = self._step(s)
      shape = (len(index), len(tokens))
      start = bool((self.entity[index] < 0).any()) or s == 0 < self.prefix
      last = runs[-1] if runs else None
      room = self.longest is None or not last or len(last[2]) < self.longest
      if last and last[0] == shape and not (last[3] or start) and room:
        last[2].append((index, shown, tokens, readout))
      else:
        runs.append([shape, s, [(index, shown, tokens, readout)], start])
    return tuple(self._as_run(first, steps) for _, first, steps, _ in runs)

  def _step(self, s: int):
    looking = np.flatnonzero(self.stream == self.stream.max())
    entity = self.entity[looking]
    row = np.flatnonzero(entity == s if s else entity <= 0)
    tokens = np.flatnonzero(self.entity_of_token == s).astype(np.int32)
    readout = self.readout[tokens]
    if self.pad_to and s:
      first = min(row[0], len(self.clean) - self.pad_to)
      row = np.arange(first, first + self.pad_to)
      more = ((0, self.pad_to - len(tokens)),)
      tokens = np.pad(tokens, more, constant_values=NO_TOKEN)
      readout = np.pad(readout, (*more, (0, 0)), constant_values=-1)
    index = looking[row].astype(np.int32)
    number = np.full(
      self.slots + 1, -1, np.int32
    )  # the last one for readout -1
    number[index] = np.arange(len(index))
    return index, self.clean[row], tokens, number[readout]

  def _as_run(self, first, steps):
    index, shown, tokens, readout = (np.stack(arrays) for arrays in zip(*steps))
    extent = int(self.row[index].max()) + 1
    return Run(first, index, shown, tokens, readout, extent)

  def __repr__(self) -> str:
    return (
      f'Layout({self.slots} slots, {self.tokens} tokens, {self.steps} steps, '
      f'prefix {self.prefix}, grids {self.grids})'
    )
