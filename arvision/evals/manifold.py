"""Precision, recall, density and coverage: balls around feature vectors."""

import dataclasses
import threading
from collections.abc import Iterator
from typing import Literal

import numpy as np

from arvision.errors import ConfigError
from arvision.evals.threads import each

Precision = Literal['float32', 'float16']
# Rows of a block of distances: 16 MB in float32.
_BLOCK = 2048
# The released evaluator decides for each block of this size whether float16
# overflows.
_RELEASED_BLOCK = 10_000


@dataclasses.dataclass(frozen=True)
class Manifold:
  """How two sets of images overlap, with k neighbours.

  A ball has a vector as its centre and reaches to the k-th nearest other vector
  of its set.

  Attributes:
    precision: share of the fake vectors that are in any ball of the real ones.
    recall: share of the real vectors that are in any ball of the fake ones.
    density: mean over the fake vectors of the number of balls of the real ones
      that they are in, divided by k; it may exceed 1.
    coverage: share of the balls of the real vectors with any fake vector.
  """

  precision: float
  recall: float
  density: float
  coverage: float


def manifold(
  real: np.ndarray,
  fake: np.ndarray,
  neighbours: int = 3,
  precision: Precision = 'float32',
  block: int | None = None,
) -> Manifold:
  """Precision, recall, density and coverage of features.

  Source: Kynkäänniemi et al., "Improved precision and recall metric for
    assessing generative models", 2019, and Naeem et al., "Reliable fidelity and
    diversity metrics for generative models", 2020, with the squared distances
    of the evaluator of Dhariwal and Nichol, "Diffusion models beat GANs on
    image synthesis", 2021.
  Differs: density and coverage count a vector on the surface of a ball, as
    precision and recall do.

  Args:
    real: (n, d) features of the reference.
    fake: (m, d) features of what is measured.
    neighbours: k, less than n and m. Naeem et al. use 5, the others 3.
    precision: dtype of the distances. 'float16' computes them as the released
      evaluator does on a GPU, which changes the third decimal.
    block: rows of a block of distances; None: 2048, and 10,000 for 'float16',
      where the block matters: one that overflows is computed in float32.

  Raises:
    ConfigError: too few vectors.
  """
  width = _width(precision, block)
  real_radii = radii(real, neighbours, precision, width)
  fake_radii = radii(fake, neighbours, precision, width)
  in_real = np.zeros(len(fake), bool)
  in_fake = np.zeros(len(real), bool)
  covered = np.zeros(len(real), bool)
  lengths = [_lengths(x) for x in (real, fake)]
  lock = threading.Lock()

  def compare(rows, columns):
    squared = distances(
      real[rows],
      fake[columns],
      precision,
      (lengths[0][rows], lengths[1][columns]),
    )
    reached = (squared <= fake_radii[columns]).any(1)
    inside = squared <= real_radii[rows, None]
    by_row, by_column = inside.any(1), inside.any(0)
    with lock:
      in_fake[rows] |= reached
      covered[rows] |= by_row
      in_real[columns] |= by_column
    return int(np.count_nonzero(inside))

  spans = _spans(len(real), len(fake), width)
  pairs = sum(each(lambda span: compare(*span), spans))
  return Manifold(
    precision=float(in_real.mean()),
    recall=float(in_fake.mean()),
    density=pairs / (neighbours * len(fake)),
    coverage=float(covered.mean()),
  )


def radii(
  features: np.ndarray,
  neighbours: int = 3,
  precision: Precision = 'float32',
  block: int | None = None,
) -> np.ndarray:
  """(n,) float32 squared distances to the k-th nearest other vector.

  A vector is excluded by its rank: it is taken as nearest to itself.

  Args:
    features: (n, d).
    neighbours: k, less than n.
    precision, block: see `manifold`.
  """
  count = len(features)
  if not 1 <= neighbours < count:
    raise ConfigError(
      f'{neighbours} neighbours among {count} images: wanted 1 to {count - 1}, '
      'or more images'
    )
  best = np.full((count, neighbours + 1), np.inf, np.float32)
  lengths = _lengths(features)
  lock = threading.Lock()

  def compare(rows, columns):
    squared = distances(
      features[rows],
      features[columns],
      precision,
      (lengths[rows], lengths[columns]),
    )
    with lock:
      best[rows] = _smallest(best[rows], squared)
      if symmetric and columns.start < rows.start:
        best[columns] = _smallest(best[columns], squared.T)

  # Rounded to float16 they are not: |u|² - 2uv is rounded first.
  symmetric = precision == 'float32'
  width = _width(precision, block)
  spans = [
    (rows, columns)
    for rows, columns in _spans(count, count, width)
    if columns.start <= rows.start or not symmetric
  ]
  # Those on the diagonal first: then few of the others are small enough.
  spans.sort(key=lambda span: span[0] != span[1])
  each(lambda span: compare(*span), spans)
  return best.max(1)


@dataclasses.dataclass(frozen=True)
class Nearest:
  """Where vectors lie among balls.

  Attributes:
    inside: (m,) bool, whether a vector is in any ball.
    realism: (m,) float32, the largest radius² / (distance² + 1e-5) of all
      balls.
    index: (m,) int32, of the nearest centre.
    squared: (m,) float32, the squared distance to it.
  """

  inside: np.ndarray
  realism: np.ndarray
  index: np.ndarray
  squared: np.ndarray


def nearest(
  centres: np.ndarray,
  squared_radii: np.ndarray,
  features: np.ndarray,
  precision: Precision = 'float32',
  block: int | None = None,
) -> Nearest:
  """Looks for vectors in balls.

  Args:
    centres: (n, d).
    squared_radii: (n,), see `radii`.
    features: (m, d).
    precision, block: see `manifold`.
  """
  count = len(features)
  found = Nearest(
    inside=np.zeros(count, bool),
    realism=np.zeros(count, np.float32),
    index=np.zeros(count, np.int32),
    squared=np.full(count, np.inf, np.float32),
  )
  width = _width(precision, block)
  for rows, columns in _spans(count, len(centres), width):
    squared = distances(features[rows], centres[columns], precision)
    within = squared_radii[columns]
    found.inside[rows] |= (squared <= within).any(1)
    realism = (within / (squared + np.float32(1e-5))).max(1)
    found.realism[rows] = np.maximum(found.realism[rows], realism)
    index = squared.argmin(1)
    least = squared[np.arange(len(index)), index]
    closer = least < found.squared[rows]
    found.index[rows][closer] = index[closer] + columns.start
    found.squared[rows][closer] = least[closer]
  return found


def distances(
  a: np.ndarray,
  b: np.ndarray,
  precision: Precision = 'float32',
  lengths: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
  """(n, m) float32 squared distances of (n, d) and (m, d) vectors, at least 0.

  Args:
    a, b: the vectors.
    precision: 'float16' rounds every step to float16, with sums in float32,
      unless a distance overflows.
    lengths: squared lengths of both in float32, to save time; None computes
      them.
  """
  if precision == 'float16':
    with np.errstate(over='ignore', invalid='ignore'):
      halves = _half(a), _half(b)
      own = [_half(_half(x * x).sum(1)) for x in halves]
      rounded = _squared(*halves, *own, _half)
    if np.isfinite(rounded).all():
      return rounded
  a, b = (np.asarray(x, np.float32) for x in (a, b))
  lengths = lengths or (_lengths(a), _lengths(b))
  return _squared(a, b, *lengths, lambda x: x)


def _half(x):
  """Rounds to float16, kept as float32."""
  return np.asarray(x).astype(np.float16).astype(np.float32)


def _lengths(x):
  x = np.asarray(x, np.float32)
  parts = (x[i : i + _BLOCK] for i in range(0, len(x), _BLOCK))
  return np.concatenate([(part * part).sum(1) for part in parts])


def _squared(a, b, own_a, own_b, rounded):
  """|a|² - 2ab + |b|² in this order, at least 0."""
  value = a @ b.T
  value *= -2
  value = rounded(value)
  value += own_a[:, None]
  value = rounded(value)
  value += own_b
  value = rounded(value)
  return np.maximum(value, 0, out=value)


def _smallest(best, squared):
  """The k + 1 smallest of `best` (n, k + 1) and of `squared` (n, m), by row."""
  worst = best.max(1)
  if np.isinf(worst).any():
    both = np.concatenate([best, squared], 1)
    return np.partition(both, best.shape[1] - 1, 1)[:, : best.shape[1]]
  # Few are left, and it is faster to find them than to partition all.
  if squared.flags.c_contiguous:
    row, column = _where(squared < worst[:, None])
  else:
    other = squared.T
    column, row = _where(other < worst)
  value = squared[row, column]
  order = np.lexsort((value, row))
  row, value = row[order], value[order]
  rank = np.arange(len(row)) - np.searchsorted(row, row)
  kept = rank < best.shape[1]
  more = np.full_like(best, np.inf)
  more[row[kept], rank[kept]] = value[kept]
  return np.sort(np.concatenate([best, more], 1), 1)[:, : best.shape[1]]


def _where(mask):
  """`np.nonzero` of a contiguous matrix, several times faster."""
  return np.divmod(np.flatnonzero(mask), mask.shape[1])


def _width(precision, block):
  return block or (_RELEASED_BLOCK if precision == 'float16' else _BLOCK)


def _spans(rows: int, columns: int, size: int) -> Iterator[tuple[slice, slice]]:
  """Slices of all blocks."""
  for i in range(0, rows, size):
    for j in range(0, columns, size):
      yield slice(i, min(i + size, rows)), slice(j, min(j + size, columns))
