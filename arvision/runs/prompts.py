"""Captions that a generator is asked for."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from arvision.data.base import Data
from arvision.data.text import Text, read_features
from arvision.errors import ConfigError

_BATCH = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Prompts:
  """A numbered list of captions.

  Attributes:
    names: what to call them.
    inputs: of the condition, leading axis = captions.
  """

  names: tuple[str, ...]
  inputs: dict[str, np.ndarray]

  def take(self, numbers: Any) -> dict[str, np.ndarray]:
    """The inputs of a batch; numbers (b,) int32."""
    numbers = np.asarray(numbers)
    return {k: x[numbers] for k, x in self.inputs.items()}


def of_captions(text: Text, captions: Sequence[str]) -> Prompts:
  """Prompts of captions that somebody typed.

  Raises:
    ConfigError: `text` reads features from files.
  """
  rows = [text.of_caption(caption) for caption in captions]
  return Prompts(tuple(captions), text.pack(rows))


def of_files(text: Text, paths: Sequence[str]) -> Prompts:
  """Prompts of files of features, see `data.text.Stored`.

  Raises:
    DataError: not such a file.
  """
  rows = [read_features(path, text.channels) for path in paths]
  return Prompts(tuple(str(path) for path in paths), text.pack(rows))


def of_classes(data: Data, keys: Sequence[str]) -> Prompts:
  """For every class what its first example brings.

  Examples are looked for among those held out, then in the training split.

  Args:
    data: of the run.
    keys: of a batch, what the condition reads.

  Raises:
    ConfigError: a class without an example, for want of features of a caption.
  """
  found: dict[int, dict[str, Any]] = {}
  names = data.classes
  for images in (data.held_out, data.train_pass):
    if images == data.held_out and not data.held_out_examples:
      continue
    for batch in images(_BATCH):
      for i in np.flatnonzero(batch['weight'] > 0):
        example = {k: batch[k][i] for k in keys}
        found.setdefault(int(batch['label'][i]), example)
      if len(found) == len(names):
        inputs = {
          key: np.stack([found[c][key] for c in range(len(names))])
          for key in keys
        }
        return Prompts(tuple(names), inputs)
  lost = [name for c, name in enumerate(names) if c not in found]
  raise ConfigError(
    f'no caption with features for {len(lost)} of {len(names)} classes: '
    f'{", ".join(lost[:5])}; look at config.data.text'
  )
