"""What an evaluator is, and how its figures are named.

A figure is only worth comparing with figures of the same protocol, so the name
of a metric says what was measured on what: `<figure>/<protocol>`, such as
`frechet/classifier-digits-8px-1000`. Inception FID would have another name.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from arvision.data.pipeline import Images

Metrics = dict[str, float]


class Evaluator(Protocol):
  """A frozen dataclass: its fields say how to measure, `run` measures.

  `run` takes the data and the functions of the model under test, never a
  config, and returns name -> figure. It is deterministic: everything random
  comes from a seed among the fields or from the model's own function.
  """

  def run(self, data: Any, *functions: Any) -> Metrics:
    """One measurement."""


def data_name(block: Mapping, digest: str) -> str:
  """What the names of metrics call data: never the same for two.

  Args:
    block: `config.data`.
    digest: of the data, see `data.base.Data`. Its first 8 digits follow the
      name, but for a source of ours without fields, whose pictures come with
      the package, that is split as usual.
  """
  source = block.get('source', block)
  name = dataset_name(source)
  bundled = [*source] == ['type'] and source['type'].startswith('data.')
  usual = Images.held_out_share
  if bundled and block.get('held_out_share', usual) == usual:
    return name
  return f'{name}-{digest[:8]}'


def dataset_name(source: Mapping | str) -> str:
  """A short name of a data source for people, not always its own.

  Args:
    source: the block `config.data.source`, or its type as text. A source that
      reads files is named by the last part of its path, other sources by
      their class.

  Returns:
    lower case letters of any script, digits and '-'.
  """
  if isinstance(source, str):
    return _plain(source.rsplit('.', 1)[-1])
  for key in ('path', 'folder', 'builder', 'name'):
    value = source.get(key)
    if value and isinstance(value, str):
      return _plain(value.rstrip('/').rsplit('/', 1)[-1])
  return _plain(str(source.get('type', 'data')).rsplit('.', 1)[-1])


def _plain(text):
  words = re.sub(r'([a-z])([A-Z])', r'\1-\2', text)
  words = unicodedata.normalize('NFC', words.lower())
  return re.sub(r'[\W_]+', '-', words).strip('-') or 'data'


def size_name(shape: tuple[int, int, int]) -> str:
  """(8, 8, 1) -> '8px', (16, 24, 3) -> '16x24px'."""
  height, width = shape[:2]
  return f'{height}px' if height == width else f'{height}x{width}px'


def headline(metrics: Mapping[str, float]) -> dict[str, Any]:
  """The figures without their protocols, for tables and summaries.

  Args:
    metrics: `<figure>/<protocol>` -> value, or `<figure>/<protocol>/<scale>`
      for figures that every scale of a tokenizer has.

  Returns:
    figure -> value, or figure -> {scale: value}.

  Raises:
    ValueError: one figure under two protocols, which must not share a column.
  """
  result: dict[str, Any] = {}
  protocols: dict[str, str] = {}
  for name, value in metrics.items():
    figure, protocol, *scale = name.split('/')
    if protocols.setdefault(figure, protocol) != protocol:
      raise ValueError(
        f"'{figure}' was measured as '{protocols[figure]}' and as "
        f"'{protocol}': give one of them another name"
      )
    if scale:
      result.setdefault(figure, {})['/'.join(scale)] = value
    else:
      result[figure] = value
  return result


def pad(array: np.ndarray, size: int) -> np.ndarray:
  """Repeats the last row until there are `size`, so that shapes stay equal."""
  missing = size - len(array)
  if missing <= 0:
    return array
  return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
