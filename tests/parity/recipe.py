"""Recorded numbers of official implementations, and their weights."""

import json
import pathlib
import zlib

import numpy as np

CASES = pathlib.Path(__file__).parent / 'cases'


def load(case: str) -> tuple[dict, dict[str, np.ndarray]]:
  """meta.json and the arrays of io.npz of a case."""
  meta = json.loads((CASES / case / 'meta.json').read_text())
  with np.load(CASES / case / 'io.npz') as arrays:
    return meta, dict(arrays)


def weights(meta: dict) -> dict[str, np.ndarray]:
  """The official state dict: official key -> array in torch's layout.

  Every tensor has its own stream of numpy's frozen legacy generator, seeded
  by the CRC-32 of '<weights_seed>:<key>'. Counters and other tensors without
  a distribution are left out.
  """
  drawn = {}
  for key, entry in meta['weights'].items():
    if 'std' not in entry:
      continue
    code = zlib.crc32(f'{meta["weights_seed"]}:{key}'.encode())
    normal = np.random.RandomState(code).standard_normal(entry['shape'])
    drawn[key] = np.float32(entry['mean'] + entry['std'] * normal)
  return drawn


def nhwc(x: np.ndarray) -> np.ndarray:
  """(..., c, h, w) -> (..., h, w, c)."""
  return np.moveaxis(x, -3, -1)


def close(name: str, got, wanted, limit: float) -> None:
  """Asserts that max|difference| / max|wanted| is within the limit."""
  got, wanted = np.asarray(got), np.asarray(wanted)
  assert got.shape == wanted.shape, (name, got.shape, wanted.shape)
  error = np.abs(got - wanted).max() / np.abs(wanted).max()
  print(f'{name}: {error:.1e}')
  assert error <= limit, f'{name}: {error:.1e} over {limit:.0e}'
