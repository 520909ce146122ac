"""Cached tokens: what a frozen tokenizer made of a data set, on disk."""

import dataclasses
import functools
import pathlib
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import grain
import numpy as np

from arvision.build import Checked
from arvision.data import records, stream
from arvision.data.base import Batch, facts_of_files, hex_digest
from arvision.data.split import Broken, spaced
from arvision.data.text import CAPTIONS, Text
from arvision.errors import DataError
from arvision.ranges import Count, FewOr0

KIND, VERSION = 'tokens', 1
# Uniform numbers of one visit: which view.
_DRAWS = 1


def write_tokens(
  path: str,
  spec: Mapping[str, Any],
  examples: Iterable[Mapping[str, Any]],
  shards: int = 16,
) -> dict[str, int]:
  """Writes encoded examples to ArrayRecord shards, whole or not at all.

  Args:
    path: a new or empty folder.
    spec: what goes into spec.json. Wanted: 'classes' (names) and 'shape'
      ((H, W, C) of the images); 'tokenizer' (any JSON) says what made them.
    examples: mappings with `tokens` (views, t) integer or (views, t, c) float,
      first the view that held-out passes shall give; `label`, `caption`,
      `index`; and `held_out`, True for the held-out split (absent = False).
    shards: files per split.

  Returns:
    split -> number of examples.

  Raises:
    DataError: `path` is not empty, tokens of unlike shapes or not finite, a
      label without a class, or no training examples.
  """
  for key in ('classes', 'shape'):
    if key not in spec:
      raise DataError(f'{path}: the spec of cached tokens wants {key!r}')
  check = _Check(path, len(spec['classes']))

  def all_records():
    for example in examples:
      tokens = check(np.asarray(example['tokens']), example)
      split = 'held_out' if example.get('held_out', False) else 'train'
      yield (
        split,
        {
          'tokens': _small(tokens),
          'label': int(example['label']),
          'caption': str(example.get('caption', '')),
          'index': int(example['index']),
        },
      )

  with records.new_folder(path) as folder:
    counts = records.write_splits(folder, all_records(), shards)
    if not counts.get('train'):
      raise DataError(f'{path}: no training examples to write')
    records.write_spec(
      folder,
      {
        **spec,
        'kind': KIND,
        'version': VERSION,
        'classes': list(spec['classes']),
        'shape': [int(n) for n in spec['shape']],
        'tokens': list(check.shape),
        'dtype': str(check.dtype),
        'splits': counts,
      },
    )
  return counts


def _small(tokens):
  """Codes that fit into two bytes are stored in two."""
  fits = tokens.dtype == np.int32 and 0 <= tokens.min() <= tokens.max() < 2**16
  return tokens.astype(np.uint16) if fits else tokens


class _Check:
  """The first example says what shape the tokens of the others must have."""

  def __init__(self, path, classes):
    self.path = path
    self.classes = classes
    self.shape = ()
    self.dtype = np.dtype(np.int32)

  def __call__(self, tokens, example):
    name = f'{self.path}: example {example["index"]}'
    if tokens.ndim not in (2, 3) or not tokens.size:
      raise DataError(
        f'{name}: tokens {tokens.shape}, wanted (views, t) or (views, t, c)'
      )
    integer = np.issubdtype(tokens.dtype, np.integer)
    tokens = tokens.astype(np.int32 if integer else np.float32)
    if not self.shape:
      self.shape, self.dtype = tokens.shape[1:], tokens.dtype
    if (tokens.shape[1:], tokens.dtype) != (self.shape, self.dtype):
      raise DataError(
        f'{name}: tokens {tokens.shape[1:]} {tokens.dtype}, those before were '
        f'{self.shape} {self.dtype}'
      )
    if not np.isfinite(tokens).all():
      raise DataError(f'{name}: tokens are not finite')
    if not 0 <= example['label'] < self.classes:
      raise DataError(
        f'{name}: label {example["label"]}, the spec names {self.classes} '
        'classes'
      )
    return tokens


@dataclasses.dataclass(frozen=True, eq=False)
class CachedTokens(Checked):
  """Batches of tokens from a folder of `write_tokens` (see `base.Data`).

  Batches hold `tokens` (b, t) int32 or (b, t, c) float32 where a pipeline of
  images has `image`. In training every visit draws one of the stored views;
  passes give the first.

  Attributes:
    path: the folder.
    batch_size: global batch size of training.
    conditional: False puts all examples into one class.
    cache: keep all records in memory.
    threads, workers: see `stream.Reading`.
    text: adds features of the captions to batches; None for none.
  """

  path: str
  batch_size: Count = 128
  conditional: bool = True
  cache: bool = False
  threads: FewOr0 = 2
  workers: FewOr0 = 0
  text: Text | None = None

  @functools.cached_property
  def _reading(self):
    return stream.Reading(self.threads, self.workers)

  @functools.cached_property
  def spec(self) -> Mapping[str, Any]:
    """What `spec.json` says: tokenizer, classes, shape, splits, ..."""
    spec = records.read_spec(self.path, KIND, VERSION)
    return types.MappingProxyType(spec)

  @functools.cached_property
  def _train(self) -> '_TokenSplit':
    return self._split('train')

  @functools.cached_property
  def _held_out(self) -> '_TokenSplit':
    return self._split('held_out')

  def _split(self, name):
    if self.spec['dtype'] not in ('int32', 'float32'):
      raise DataError(
        f'{self.path}: spec.json says dtype={str(self.spec["dtype"])[:80]!r}: '
        'wanted int32 or float32'
      )
    shape, dtype = tuple(self.spec['tokens']), np.dtype(self.spec['dtype'])
    classes = self.num_classes if self.conditional else 0
    count = self.spec['splits'].get(name, 0)
    return _TokenSplit(
      self.path, name, count, shape, dtype, classes, self.cache
    )

  @property
  def examples(self) -> int:
    return self.spec['splits']['train']

  @property
  def held_out_examples(self) -> int:
    return self.spec['splits'].get('held_out', 0)

  @property
  def classes(self) -> tuple[str, ...]:
    return tuple(self.spec['classes']) if self.conditional else ('image',)

  @property
  def num_classes(self) -> int:
    return len(self.classes)

  @property
  def shape(self) -> tuple[int, int, int]:
    """(H, W, C) of the images that were encoded."""
    height, width, channels = self.spec['shape']
    return height, width, channels

  @functools.cached_property
  def _features(self) -> str:
    """What is said of the features of captions, if there are enough."""
    if self.text is None:
      return ''
    splits = (self._train, self._held_out)
    return self.text.check(*(s.captions(CAPTIONS) for s in splits))

  def describe(self) -> str:
    """A line for the start of a run: what is in the two splits."""
    text = (
      f'tokens of {self.examples:,} training and {self.held_out_examples:,} '
      'held-out pictures'
    )
    return f'{text}; {self._features}' if self._features else text

  @functools.cached_property
  def digest(self) -> str:
    """Hex digits of all examples and their split; equal on every machine."""
    files = sorted(pathlib.Path(self.path).glob('*.array_record'))
    return hex_digest(facts_of_files({path.name: path for path in files}))

  @property
  def broken(self) -> Broken:
    """Always empty: broken pictures were left out before encoding."""
    return Broken(0, self.examples)

  def train(
    self,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
  ) -> stream.TrainIterator:
    """Endless shuffled batches, a view drawn for every visit."""
    split = self._train
    _ = self._features  # complains now
    split.warm()

    def assemble(ranks: np.ndarray, draws: np.ndarray) -> Batch:
      return self._batch(split, ranks, draws[:, 0])

    return stream.train_stream(
      examples=split.count,
      batch_size=batch_size,
      seed=seed,
      assemble=assemble,
      draws=_DRAWS,
      reading=self._reading,
      process_index=process_index,
      process_count=process_count,
    )

  def held_out(
    self, batch_size: int, process_index: int = 0, process_count: int = 1
  ) -> grain.DatasetIterator:
    """One pass over the first views of the held-out split."""
    return self._pass(self._held_out, batch_size, process_index, process_count)

  def train_pass(
    self, batch_size: int, process_index: int = 0, process_count: int = 1
  ) -> grain.DatasetIterator:
    """One pass over the first views of the training split."""
    return self._pass(self._train, batch_size, process_index, process_count)

  def _pass(self, split, batch_size, process_index, process_count):
    _ = self._features
    split.warm()

    def assemble(ranks: np.ndarray, weight: np.ndarray) -> Batch:
      first = np.zeros(len(ranks))
      return self._batch(split, ranks, first, weight=weight)

    return stream.one_pass(
      examples=split.count,
      batch_size=batch_size,
      assemble=assemble,
      reading=self._reading,
      process_index=process_index,
      process_count=process_count,
    )

  def _batch(self, split, ranks, draws, **more) -> Batch:
    batch = {**split.batch(ranks, draws), **more}
    return self.text.batch(batch) if self.text else batch


@dataclasses.dataclass(frozen=True, eq=False)
class _TokenSplit:
  """Records of one split; `classes` = 0 does not use the labels."""

  path: str
  split: str
  count: int
  shape: tuple[int, ...]
  dtype: np.dtype
  classes: int
  cache: bool

  @functools.cached_property
  def _source(self):
    return records.open_split(self.path, self.split, self.count)

  @functools.cached_property
  def _kept(self):
    return [self._fetch(rank) for rank in range(self.count)]

  def warm(self) -> None:
    """Opens the files, and reads them with `cache`, before threads do."""
    if self.count:
      self.load(0)

  def captions(self, count: int) -> Iterator[str]:
    """Of at most `count` examples from all over the split."""
    return (self.load(rank)['caption'] for rank in spaced(self.count, count))

  def load(self, rank: int) -> dict[str, Any]:
    return self._kept[rank] if self.cache else self._fetch(rank)

  def _fetch(self, rank):
    name = f'{self.path}: {self.split} record {rank}'
    record = records.fetch(self._source, rank, name)
    tokens = record['tokens']
    same_kind = np.can_cast(tokens.dtype, self.dtype)
    if tokens.shape[1:] != self.shape or not same_kind:
      raise DataError(
        f'{name}: tokens {tokens.shape[1:]} {tokens.dtype}, but spec.json says '
        f'{self.shape} {self.dtype}'
      )
    if self.classes and not 0 <= record['label'] < self.classes:
      raise DataError(
        f'{name}: label {record["label"]}, but spec.json names {self.classes} '
        'classes'
      )
    return record

  def batch(self, ranks: np.ndarray, draws: np.ndarray) -> Batch:
    """One view of each; draws (b,) in [0, 1) say which."""
    found = [self.load(rank) for rank in ranks]
    tokens = [r['tokens'] for r in found]
    chosen = [views[int(u * len(views))] for views, u in zip(tokens, draws)]
    label = [r['label'] if self.classes else 0 for r in found]
    return {
      'tokens': np.stack(chosen).astype(self.dtype),
      'label': np.array(label, np.int32),
      'index': np.array([r['index'] for r in found], np.int32),
      'caption': np.array([r['caption'] for r in found], object),
    }
