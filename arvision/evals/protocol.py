"""Protocols: how scores are made, and the names of metrics.

Scores are only comparable if they have the same protocol, so the name of a
metric contains it: `<figure>/<protocol>`, for example
`frechet/classifier-digits-8px-1000`.
"""

import dataclasses
import hashlib
import json
import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any

from arvision.data.pipeline import Images
from arvision.errors import ConfigError

# Repetitions differ in it alone, and can be compared.
_NOT_COMPARED = ('seed',)


@dataclasses.dataclass(frozen=True)
class Protocol:
  """Everything that a score depends on besides the model.

  Attributes:
    extractor: network of the features and its variant, for example
      'inception-adm'; 'pixels' without a network.
    weights: SHA-256 of its weights in hex; '' without a network.
    resize: filter that brings images to the size of the network, for example
      'tf1-bilinear'; '' if images keep their size.
    reference: short name of the reference set, see `data_name`.
    reference_digest: SHA-256 of the reference images or statistics in hex.
    split: split of the reference set: 'train', 'held-out', or '' for a file.
    images: number of images that are scored.
    reference_images: number of reference images, 0 if a file does not say.
    labels: how classes are drawn: 'balanced', 'random', or '' if unknown.
    order: order of the images: 'sampled', 'shuffled', 'file', or '' for figures
      that do not depend on it.
    seed: of the labels, the order and the samples; None if unknown.
    rounding: how images become integers: 'round', 'truncate', 'none' if they
      stay floats, or '' if they were integers.
    method: options of the figure itself, for example 'blocks of 5000'; '' for
      figures without options.
  """

  extractor: str
  reference: str
  images: int
  weights: str = ''
  resize: str = ''
  reference_digest: str = ''
  split: str = ''
  reference_images: int = 0
  labels: str = ''
  order: str = 'sampled'
  seed: int | None = None
  rounding: str = 'round'
  method: str = ''

  @property
  def name(self) -> str:
    """`<extractor>-<reference>-<images>-<digest>`, for the names of metrics."""
    return f'{self.extractor}-{self.reference}-{self.images}-{self.digest}'

  @property
  def digest(self) -> str:
    """8 hex digits of all that is compared."""
    text = json.dumps(self._compared(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]

  def facts(self) -> dict[str, Any]:
    """All fields as JSON values, written beside every result."""
    return dataclasses.asdict(self)

  def _compared(self):
    return {k: v for k, v in self.facts().items() if k not in _NOT_COMPARED}


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
  """Lines 'field: a, b' of what makes scores incomparable; [] if nothing.

  Args:
    a, b: `Protocol.facts()`, perhaps read from files.
  """
  keys = [k for k in {**a, **b} if k not in _NOT_COMPARED]
  return [
    f'{k}: {a.get(k)!r}, {b.get(k)!r}' for k in keys if a.get(k) != b.get(k)
  ]


def check_same(
  a: Mapping[str, Any], b: Mapping[str, Any], names: tuple[str, str]
) -> None:
  """Refuses to compare scores of different protocols.

  Args:
    a, b: see `differences`.
    names: names of the two results, for the error.

  Raises:
    ConfigError: it names every difference.
  """
  found = differences(a, b)
  if found:
    raise ConfigError(
      f'{names[0]} and {names[1]} were measured by different protocols: '
      + '; '.join(found)
    )


def check_same_figures(
  a: Mapping[str, Any],
  b: Mapping[str, Any],
  names: tuple[str, str],
  figures: Collection[str] | None = None,
) -> None:
  """Refuses to compare two evaluations with figures of different protocols.

  Args:
    a, b: contents of `eval.json`. Figures of only one of them, and those
      without facts, which older versions wrote, are not compared.
    names: names of the two, for the error.
    figures: figures to compare; None for all.

  Raises:
    ConfigError: see `check_same`.
  """
  theirs = _by_figure(b)
  for figure, facts in _by_figure(a).items():
    if figure in theirs and (figures is None or figure in figures):
      one, two = (f'{figure} of {name}' for name in names)
      check_same(facts, theirs[figure], (one, two))


def _by_figure(evaluation):
  """Figure -> facts of its protocol, the first if it has several."""
  protocols = evaluation.get('protocols', {})
  found: dict[str, Mapping[str, Any]] = {}
  for name in evaluation.get('metrics', {}):
    figure, *protocol = name.split('/')[:2]
    facts = protocols.get(protocol[0]) if protocol else None
    if isinstance(facts, Mapping):
      found.setdefault(figure, facts)
  return found


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
    source: the block `config.data.source`, or its type as text. A source of
      files is named after the last part of its path, others after their class.

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
    metrics: `<figure>/<protocol>` -> value, or `<figure>/<protocol>/<scale>`
      for figures of every scale of a tokenizer.

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
