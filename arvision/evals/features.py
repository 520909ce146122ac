"""Features of images, and the interface of the networks that compute them."""

import dataclasses
from typing import Protocol

import numpy as np


@dataclasses.dataclass(frozen=True)
class Features:
  """Features of n images, float32.

  Attributes:
    pool: (n, d) vectors of the Fréchet distance and its relatives.
    spatial: (n, s) vectors of sFID; None if the network has none.
    logits: (n, k) logits of the Inception score; None if the network has none.
  """

  pool: np.ndarray
  spatial: np.ndarray | None = None
  logits: np.ndarray | None = None


class Extractor(Protocol):
  """A network that computes features, with its weights.

  Attributes:
    name: of the network and its variant, see `Protocol.extractor`.
    resize: see `Protocol.resize`.
    weights: SHA-256 of the weights in hex.
  """

  name: str
  resize: str
  weights: str

  def __call__(self, images: np.ndarray) -> Features:
    """(n, H, W, 3) uint8 images, at their own size -> features.

    The images are divided over the local devices; any n ≥ 1 is possible, and
    the result depends neither on the batch nor on the number of devices beyond
    the rounding of float32.
    """
