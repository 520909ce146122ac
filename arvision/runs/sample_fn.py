"""Samples images with a trained generator."""

import dataclasses
from typing import Any

import numpy as np

from arvision.errors import ConfigError
from arvision.ranges import Seed
from arvision.runs.memory import Rows
from arvision.runs.prompts import Prompts


@dataclasses.dataclass(frozen=True, eq=False)
class SampleFn:
  """Samples images: tokens first, which another program then decodes.

  Attributes:
    run: a `TrainedRun`.
    tokens: samples the tokens.
    prompts: prompts that labels index; None where the condition reads labels.
    null: whether a label may equal the number of classes, for no class.
    seed: seed of decoders that sample.
  """

  run: Any
  tokens: Rows
  prompts: Prompts | None = None
  null: bool = False
  seed: Seed = 0

  def __call__(
    self, labels: Any, index: Any = None, picture: Any = None
  ) -> tuple[np.ndarray, np.ndarray]:
    """Samples images.

    Args:
      labels: (b,) int32 classes, or indices of prompts.
      index: (b,) int32 indices of the images, which choose their random
        numbers; None for 0, 1, ...
      picture: (images, mask of kept tokens), see `TrainedRun.edit_fn`.

    Returns:
      images (b, H, W, C) float32 in [-1, 1], tokens (b, t) int32 or (b, t, c).

    Raises:
      ConfigError: a label is out of range, or memory ran out.
    """
    labels = _numbers('labels', labels, self._labels)
    index = np.arange(len(labels)) if index is None else index
    index = _numbers('index', index, 2**31)
    if len(labels) != len(index):
      raise ConfigError(
        f'labels has {len(labels)} elements and index has {len(index)}: wanted '
        'the same number'
      )
    inputs = self._inputs(labels)
    tokens = self.tokens(self._held, (inputs, index, picture))
    decode = self.run.as_sampled.decode
    return decode(tokens, index, self.seed, inputs), tokens

  def fit(self, count: int) -> int:
    """The largest batch of at most `count` images that fits into memory."""
    one = np.zeros(1, np.int32)
    return self.tokens.fit(self._held, (self._inputs(one), one, None), count)

  @property
  def _labels(self):
    """Number of valid labels."""
    if self.prompts:
      return len(self.prompts.names)
    # An unconditional model ignores labels.
    model: Any = self.run.model
    classes = getattr(model.condition, 'classes', 0)
    return (classes or 2**31 - 1) + self.null

  @property
  def _held(self):
    return self.run.params, self.run.variables

  def _inputs(self, labels):
    return self.prompts.take(labels) if self.prompts else {'label': labels}


def _numbers(name, values, count):
  """Values as (b,) int32, checked to be integers from 0 to count - 1.

  Raises:
    ConfigError: they are not.
  """
  array = np.asarray(values)
  if array.ndim != 1 or array.dtype.kind not in 'iu' or not len(array):
    raise ConfigError(
      f'{name}: wanted a list of integers, got {array.dtype} of shape '
      f'{array.shape}'
    )
  wrong = array[(array < 0) | (array >= count)]
  if len(wrong):
    raise ConfigError(f'{name}: wanted 0 to {count - 1}, got {wrong[0]}')
  return array.astype(np.int32)
