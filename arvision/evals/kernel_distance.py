"""Kernel distance (KID): squared MMD with a cubic polynomial kernel."""

import numpy as np

from arvision.errors import ConfigError
from arvision.evals.threads import each

# Images of a block of kernel values: 32 MB.
_BLOCK = 2000


def kernel_distance(
  a: np.ndarray,
  b: np.ndarray,
  subsets: int = 100,
  size: int = 1000,
  seed: int = 2020,
) -> tuple[float, float]:
  """Kernel distance, as the mean over random subsets.

      k(x, y) = (x·y / d + 1)³

  Every subset gives an unbiased estimate, which may be negative.

  Source: Bińkowski et al., "Demystifying MMD GANs", 2018; the subsets are those
    of torch-fidelity, whose `input1` is `a`.
  Differs: products have the dtype of the features, sums are in float64.

  Args:
    a: (n, d) features.
    b: (m, d) features.
    subsets: number of subsets.
    size: images of a subset of each side, at least 2, at most n and m.
    seed: of the subsets.

  Returns:
    mean and standard deviation (divided by `subsets`) over the subsets.
  """
  _check(a, b)
  most = min(len(a), len(b))
  if subsets < 1 or not 2 <= size <= most:
    raise ConfigError(
      f'a kernel distance over {subsets} subsets of {size} images of sets of '
      f'{len(a)} and {len(b)}: wanted 1 subset or more, of 2 to {most} images'
    )
  generator = np.random.RandomState(seed)
  chosen = [
    [generator.choice(len(x), size, replace=False) for x in (a, b)]
    for _ in range(subsets)
  ]
  values = each(
    lambda rows: unbiased_kernel_distance(a[rows[0]], b[rows[1]]), chosen
  )
  return float(np.mean(values)), float(np.std(values))


def unbiased_kernel_distance(
  a: np.ndarray, b: np.ndarray, block: int = _BLOCK
) -> float:
  """Kernel distance, as one unbiased estimate from all pairs of images.

  Its time grows with (n + m)²: it is for some 10,000 images.

  Args:
    a: (n, d) features, n ≥ 2.
    b: (m, d) features, m ≥ 2.
    block: images of a block, which changes the result by rounding only.
  """
  _check(a, b)
  if min(len(a), len(b)) < 2:
    raise ConfigError(
      f'a kernel distance of {len(a)} and {len(b)} images: wanted 2 or more of '
      'each'
    )
  within = sum(_own_mean(x, block) for x in (a, b))
  across = sum(
    kernel(x, y).sum() for x in _blocks(a, block) for y in _blocks(b, block)
  )
  return float(within - 2 * across / (len(a) * len(b)))


def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """(n, m) float64 values (x·y / d + 1)³ of (n, d) and (m, d) features."""
  value = (a @ b.T).astype(np.float64, copy=False)
  value /= a.shape[1]
  value += 1
  # The power operator is many times slower.
  cube = value * value
  cube *= value
  return cube


def _own_mean(x, block):
  """Mean of the kernel over pairs of different images."""
  total = 0.0
  parts = [*_blocks(x, block)]
  for i, part in enumerate(parts):
    own = kernel(part, part)
    total += own.sum() - np.trace(own)
    total += 2 * sum(kernel(part, other).sum() for other in parts[:i])
  return total / (len(x) * (len(x) - 1))


def _blocks(x, size):
  return (x[i : i + size] for i in range(0, len(x), size))


def _check(a, b):
  if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
    raise ValueError(
      f'features of shapes {a.shape} and {b.shape}, wanted (n, d) and (m, d)'
    )
