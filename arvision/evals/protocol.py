"""What an evaluator is, and how its figures are named.

A figure is only worth comparing with figures of the same protocol, so the name
of a metric says what was measured on what: `<figure>/<protocol>`, such as
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
  """What an evaluator may use of a trained run.

  Attributes:
    data: the images that it learnt from.
    name: of the data, for the names of metrics.
    spec: of the tokenizer.
    encode: (b, H, W, C) in [-1, 1] -> (b, t) int32 codes or (b, t, c) latents.
    decode: the other way.
    sample_fn: images per call, or None -> a `generation.SampleFn`; None for a
      run that does not sample.
    encode_sampled: images -> the codes that `sample_fn` would give of them;
      None for continuous tokens.
    classes: that samples can be asked for; 0 for an unconditional model.
    classifier: recipe -> a trained classifier of the data; None where it has
      one class.
    say: is told how it goes.
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

  It is deterministic: everything random comes from a seed among its fields or
  from the run's own functions.

  Attributes:
    needs: fields of `Run` without which it cannot measure.
    every: duration between two measurements in training; None for none, and
      for `arvision eval` alone.
  """

  needs: ClassVar[tuple[str, ...]]
  every: Mapping[str, float] | None

  def __call__(self, run: Run) -> Iterator[tuple[str, float]]:
    """Yields names and figures, see above for the names."""


# What a config has that states no evaluator.
_DEFAULTS = {
  'reconstruction': {'type': 'evals.reconstruction.Reconstruction'},
  'generation': {'type': 'evals.generation.Generation'},
}


def evaluators(config: Any) -> dict[str, Evaluator]:
  """The evaluators of a config by name.

  Raises:
    ConfigError: a block that is no evaluator.
  """
  stated = {k: v for k, v in config.get('evals', {}).items() if k != 'every'}
  found = {}
  for name, block in (stated or _DEFAULTS).items():
    check(block, Mapping, f'config.evals.{name}')
    found[name] = build(block, f'evals.{name}')
    if not hasattr(found[name], 'needs'):
      raise ConfigError(
        f'config.evals.{name}.type={block["type"]!r} is no evaluator: it has no '
        "'needs', see evals.protocol.Evaluator"
      )
  return found


def possible(evaluator: Evaluator, run: Run) -> bool:
  """Whether a run has what an evaluator needs."""
  return all(getattr(run, name) is not None for name in evaluator.needs)


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
    figure -> value, or figure -> {scale: value}. Of a figure with several
    protocols, which must not share a column, that of the first.
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
  """Repeats the last row until there are `size`, so that shapes stay equal."""
  missing = size - len(array)
  if missing <= 0:
    return array
  return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
