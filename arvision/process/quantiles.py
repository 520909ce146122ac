"""Quantization levels at the quantiles of a standard normal distribution.

Source: arXiv 2503.16430; YuqingWang1029/TokenBridge, models/tokenbridge.py.
"""

import math
import statistics

import numpy as np


def boundaries(levels: int, span: float) -> np.ndarray:
  """(levels + 1,) float64 boundaries of intervals of equal probability.

  Args:
    levels: number of intervals.
    span: outer boundaries, in standard deviations.
  """
  inverse = statistics.NormalDist().inv_cdf
  inner = [inverse(i / levels) for i in range(1, levels)]
  return np.clip([-span, *inner, span], -span, span)


def centres(levels: int, span: float) -> np.ndarray:
  """(levels,) float64 conditional means in the intervals of `boundaries`."""
  ends = boundaries(levels, span)
  density = np.exp(-0.5 * ends**2) / math.sqrt(2 * math.pi)
  below = np.array([0.5 * math.erf(x / math.sqrt(2)) for x in ends])
  # Intervals beyond the span are empty; avoids dividing by 0 there.
  share = np.maximum(np.diff(below), 1e-10)
  return -np.diff(density) / share
