"""The interface of evaluators, and the names of their metrics.

Figures are only comparable if they have the same protocol, so the name of a
metric contains it: `<figure>/<protocol>`, for example
`frechet/classifier-digits-8px-1000`. Inception FID would have another name.
"""

import dataclasses
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from arvision.build import build, check
from arvision.data.base import Data
from arvision.data.pipeline import Images
from arvision.errors import ConfigError
from arvision.structs import TokenSpec

Metrics = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained run, as evaluators see it.

  Attributes:
    data: its training data.
    name: short name of the data, for the names of metrics.
    spec: token spec of the tokenizer.
    encode: images (b, H, W, C) in [-1, 1] -> (b, t) int32 codes or (b, t, c)
      latents.
    decode: tokens -> images.
    sample_fn: images per call, or None -> a `generation.SampleFn`; None for a
      run that cannot sample.
    encode_sampled: images -> codes of the kind that `sample_fn` returns; None for
      continuous tokens.
    classes: number of classes of the condition; 0 for an unconditional model.
    classifier: recipe -> a trained classifier of the data; None for data with one
      class.
    say: called with lines about the progress.
  """

  data: Data
  name: str
  spec: TokenSpec
  encode: Callable[[Any], Any]
  decode: Callable[[Any], Any]
  sample_fn: Callable[[int | None], Any] | None = None
  encode_sampled: Callable[[Any], Any] | None = None
  classes: int = 0
  classifier: Callable[[Any], Any] = lambda recipe: None
  say: Callable[[str], None] = lambda text: None


class Evaluator(Protocol):
  """A part that measures a run: `config.evals.<name>`, a frozen dataclass.

  It must be deterministic: random numbers come from a seed among its fields or
  from the functions of the run.

  Attributes:
    needs: fields of `Run` that must not be None.
    every: interval between evaluations in training; None: in `arvision eval`
      only.
  """

  needs: ClassVar[tuple[str, ...]]
  every: Mapping[str, float] | None

  def __call__(self, run: Run) -> Iterator[tuple[str, float]]:
    """Yields (name, value) of every metric."""


# Evaluators of a config that names none.
_DEFAULTS = {
  'reconstruction': {'type': 'evals.reconstruction.Reconstruction'},
  'generation': {'type': 'evals.generation.Generation'},
}


def evaluators(config: Any) -> dict[str, Evaluator]:
  """The evaluators of a config, by name.

  Raises:
    ConfigError: a block that is not an evaluator.
  """
  stated = {k: v for k, v in config.get('evals', {}).items() if k != 'every'}
  found = {}
  for name, block in (stated or _DEFAULTS).items():
    check(block, Mapping, f'config.evals.{name}')
    found[name] = build(block, f'evals.{name}')
    if not hasattr(found[name], 'needs'):
      raise ConfigError(
        f'config.evals.{name}.type={block["type"]!r} is no evaluator: it lacks '
        "'needs', see evals.protocol.Evaluator"
      )
  return found


def possible(evaluator: Evaluator, run: Run) -> bool:
  """Whether a run has what an evaluator needs."""
  return all(getattr(run, name) is not None for name in evaluator.needs)


def data_name(block: Mapping, digest: str) -> str:
  """The unique name of data in the names of metrics.

  Args:
    block: `config.data`.
    digest: digest of the data, see `data.base.Data`. The name ends in its first
      8 digits, except for sources without fields, whose images come with a
      package, in their default split.
  """
  source = block.get('source', block)
  name = dataset_name(source)
  bundled = [*source] == ['type'] and source['type'].startswith('data.')
  usual = Images.held_out_share
  if bundled and block.get('held_out_share', usual) == usual:
    return name
  return f'{name}-{digest[:8]}'


def dataset_name(source: Mapping | str) -> str:
  """A short name of a data source, not unique.

  Args:
    source: the block `config.data.source`, or its type as text. A source of files
      is named after the last part of its path, others after their class.

  Returns:
    lower-case letters of any script, digits and '-'.
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
  """Metrics without their protocols, for tables and summaries.

  Args:
    metrics: `<figure>/<protocol>` -> value, or `<figure>/<protocol>/<scale>` for
      figures of every scale of a tokenizer.

  Returns:
    figure -> value, or figure -> {scale: value}. If a figure has several
    protocols, only the first is kept: they must not share a column.
  """
  result: dict[str, Any] = {}
  protocols: dict[str, str] = {}
  for name, value in metrics.items():
    figure, protocol, *scale = name.split('/')
    if protocols.setdefault(figure, protocol) != protocol:
      continue
    if scale:
      result.setdefault(figure, {})['/'.join(scale)] = value
    else:
      result[figure] = value
  return result


def pad(array: np.ndarray, size: int) -> np.ndarray:
  """Pads axis 0 to `size` with copies of the last entry."""
  missing = size - len(array)
  if missing <= 0:
    return array
  return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
