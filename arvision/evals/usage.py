"""Usage of the codes of a tokenizer, and of the bits or levels in them."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from arvision.structs import Array

# Distinct codes, sorted, and how often each occurs.
Counted = tuple[np.ndarray, np.ndarray]


class Usage:
  """Counts codes and their digits at every scale.

  Attributes:
    names: of the scales: '1x1', '2x2', ..., with the index in front if grids
      repeat.
  """

  def __init__(
    self,
    grids: Sequence[Sequence[int]],
    radices: Sequence[int],
    digits: Callable[[Array], Array],
  ):
    """Starts with no tokens.

    Args:
      grids: see `TokenSpec.grids`.
      radices, digits: see `tokenizers.base.Tokenizer`.
    """
    names = ['x'.join(map(str, grid)) for grid in grids]
    if len(set(names)) < len(names):
      names = [f'{i}-{name}' for i, name in enumerate(names)]
    self.names = names
    self._ends = np.cumsum([math.prod(grid) for grid in grids])[:-1]
    self._digits = digits
    self._scales = [_Scale(radices) for _ in grids]

  def add(self, values: np.ndarray) -> None:
    """Counts further tokens (b, t) or (b, t, parts), int32."""
    for scale, part in zip(self._scales, np.split(values, self._ends, axis=1)):
      digits = np.asarray(self._digits(part))
      scale.add(digits.reshape(-1, digits.shape[-1]))

  def figures(self) -> Iterator[tuple[str, str, float]]:
    """(figure, scale, value) of every scale, and of 'all' if there are more.

    `codebook_usage`: share of the codes that occur.
    `codebook_reach`: largest usage possible with that many tokens.
    `codebook_perplexity`: exp of the entropy of the codes: 1 for a collapsed
      scale, the number of codes for uniform ones.
    `bit_usage`: share of the bits that take both values.
    `bit_entropy`: least entropy of a bit, in bits.
    `level_usage`, `level_entropy`: the same of digits with other radices. A
      digit with one value counts 0, one with all values 1; entropies are
      divided by that of uniform values.
    """
    found = dict(zip(self.names, self._scales))
    if len(found) > 1:
      found['all'] = _Scale.joined(self._scales)
    for name, scale in found.items():
      for figure, value in scale.figures().items():
        yield figure, name, float(value)


class _Scale:
  """Counts of one scale."""

  def __init__(self, radices):
    self.radices = tuple(radices)
    self.table = np.zeros((len(self.radices), max(self.radices)), np.int64)
    # Codes of earlier tokens; each entry is at least twice the next one, so
    # that a code is sorted a few times only.
    self.codes: list[Counted] = []

  @classmethod
  def joined(cls, scales):
    whole = cls(scales[0].radices)
    whole.table = sum(scale.table for scale in scales)
    whole.codes = [pair for scale in scales for pair in scale.codes]
    return whole

  def add(self, rows):
    """Counts codes (n, digits)."""
    starts = np.arange(len(self.radices)) * self.table.shape[1]
    counts = np.bincount((rows + starts).ravel(), minlength=self.table.size)
    self.table += counts.reshape(self.table.shape)
    if len(self.radices) == 1:
      return  # the table has the codes
    self.codes.append(np.unique(_keys(rows, self.radices), return_counts=True))
    while len(self.codes) > 1 and 2 * _size(self.codes, -1) > _size(
      self.codes, -2
    ):
      self.codes[-2:] = [_merged(self.codes[-2:])]

  def figures(self):
    counts = self.table[0]
    if self.codes:
      counts = _merged(self.codes)[1]
    counts, size = counts[counts > 0], math.prod(self.radices)
    share = counts / counts.sum()
    found = {
      'codebook_usage': len(counts) / size,
      'codebook_perplexity': np.exp(-np.sum(share * np.log(share))),
      'codebook_reach': min(int(counts.sum()), size) / size,
    }
    bits = set(self.radices) == {2}
    if bits or len(self.radices) > 1:
      kind = 'bit' if bits else 'level'
      radices = np.array(self.radices)
      others = (self.table > 0).sum(1) - 1
      share = self.table / self.table.sum(1, keepdims=True)
      nats = np.abs(np.sum(share * np.log(np.where(share > 0, share, 1)), 1))
      found[f'{kind}_usage'] = np.mean(others / (radices - 1))
      found[f'{kind}_entropy'] = np.min(nats / np.log(radices))
    return found


def _size(codes, i):
  return len(codes[i][0])


def _merged(codes: Sequence[Counted]) -> Counted:
  keys, counts = (np.concatenate(x) for x in zip(*codes))
  keys, inverse = np.unique(keys, return_inverse=True)
  return keys, np.bincount(inverse.ravel(), counts).astype(np.int64)


def _keys(rows, radices):
  """A key for every code (n, digits): a number, or bytes if that is too large."""
  if math.prod(radices) < 2**63:
    basis = np.cumprod([1, *radices[:-1]], dtype=np.int64)
    return rows.astype(np.int64) @ basis
  rows = np.ascontiguousarray(rows, np.int32)
  return rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize)))[:, 0]
