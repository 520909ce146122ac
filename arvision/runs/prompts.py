"""Prompts: inputs of the condition for sampling."""

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
  """A list of prompts.

  Attributes:
    names: one name per prompt.
    inputs: inputs of the condition, leading axis = prompts.
  """

  names: tuple[str, ...]
  inputs: dict[str, np.ndarray]

  def take(self, index: Any) -> dict[str, np.ndarray]:
    """The inputs of a batch; index (b,) int32 into the list."""
    index = np.asarray(index)
    return {k: x[index] for k, x in self.inputs.items()}


def of_captions(text: Text, captions: Sequence[str]) -> Prompts:
  """Prompts of captions.

  Raises:
    ConfigError: `text` has no encoder and only reads features from files.
  """
  rows = [text.of_caption(caption) for caption in captions]
  return Prompts(tuple(captions), text.pack(rows))


def of_files(text: Text, paths: Sequence[str]) -> Prompts:
  """Prompts of feature files, see `data.text.Stored`.

  Raises:
    DataError: a file is missing or has another format.
  """
  rows = [read_features(path, text.channels) for path in paths]
  return Prompts(tuple(str(path) for path in paths), text.pack(rows))


def of_classes(data: Data, keys: Sequence[str]) -> Prompts:
  """A prompt per class, from the first example of the class.

  Searches the held-out split first, and then the training split.

  Args:
    data: data of the run.
    keys: inputs of the condition, as keys of a batch.

  Raises:
    ConfigError: no example of a class has caption features.
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
