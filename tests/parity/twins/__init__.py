"""Networks in numpy, written from the words of the recorded cases."""

import pathlib
from typing import Any

import numpy as np

from tests.parity.case import Case


def saved(folder: pathlib.Path, arrays: dict[str, Any]) -> Case:
  """The case in a folder with `meta.json`, with these arrays; reals in float32."""
  arrays = {k: np.asarray(v) for k, v in arrays.items()}
  np.savez(
    folder / 'io.npz',
    **{k: np.float32(v) if v.dtype == float else v for k, v in arrays.items()},
  )
  return Case(folder)
