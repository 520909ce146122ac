"""Cached tokens: a data set encoded by a frozen tokenizer, on disk."""

import dataclasses
import functools
import pathlib
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import grain
import numpy as np

from arvision.data import records, stream
from arvision.data.base import Batch, facts_of_files, hex_digest
from arvision.data.reads import Reads
from arvision.data.split import Broken, spaced
from arvision.data.text import Text
from arvision.errors import DataError
from arvision.ranges import Count, FewOr0

KIND, VERSION = 'tokens', 1


def write_tokens(
  path: str,
  spec: Mapping[str, Any],
  examples: Iterable[Mapping[str, Any]],
  shards: int = 16,
) -> dict[str, int]:
  """Writes encoded examples to ArrayRecord shards, atomically.

  Args:
    path: a new or empty folder.
    spec: contents of spec.json: 'classes' (names), 'shape' ((H, W, C) of the
      images) and optional keys such as 'tokenizer' (JSON that describes it).
    examples: mappings with `tokens` (views, t) integer or (views, t, c) float,
      the view of held-out passes first; `label`, `caption`, `index`; and
      `held_out`, True for the held-out split (default False).
    shards: files per split.

  Returns:
    split -> number of examples.

  Raises:
    DataError: `path` is not empty, tokens with different shapes or not finite,
      a label without a class, or no training examples.
  """
  for key in ('classes', 'shape'):
    if key not in spec:
      raise DataError(f'{path}: the spec of cached tokens lacks {key!r}')
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
  """Stores codes below 2**16 as uint16."""
  fits = tokens.dtype == np.int32 and 0 <= tokens.min() <= tokens.max() < 2**16
  return tokens.astype(np.uint16) if fits else tokens


class _Check:
  """Checks that all examples have tokens of the same shape and dtype."""

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
        f'{name}: tokens {tokens.shape[1:]} {tokens.dtype}, earlier ones were '
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
class CachedTokens(stream.Batches):
  """Batches of tokens from a folder of `write_tokens`; see `base.Data`.

  Batches have `tokens` (b, t) int32 or (b, t, c) float32 instead of `image`. In
  training every visit uses a random stored view; passes use the first.

  Attributes:
    path: the folder.
    batch_size: global batch size of training.
    conditional: False puts all examples into one class.
    cache: keep all records in memory.
    threads, workers: see `stream.Reading`.
    companions: see `stream.Batches`; their labels are read from all records
      first.
    text: adds caption features to batches; None for none.
  """

  path: str
  batch_size: Count = 128
  conditional: bool = True
  cache: bool = False
  threads: FewOr0 = 2
  workers: FewOr0 = 0
  companions: FewOr0 = 0
  text: Text | None = None
  draws = 1  # chooses the view

  @functools.cached_property
  def spec(self) -> Mapping[str, Any]:
    """The contents of `spec.json`: tokenizer, classes, shape, splits, ..."""
    spec = records.read_spec(self.path, KIND, VERSION)
    return types.MappingProxyType(spec)

  @functools.cached_property
  def _splits(self) -> tuple['_TokenSplit', '_TokenSplit']:
    return self._split('train'), self._split('held_out')

  def _split(self, name):
    if self.spec['dtype'] not in ('int32', 'float32'):
      raise DataError(
        f'{self.path}: spec.json says dtype={str(self.spec["dtype"])[:80]!r}: '
        'wanted int32 or float32'
      )
    shape, dtype = tuple(self.spec['tokens']), np.dtype(self.spec['dtype'])
    classes = self.num_classes if self.conditional else 0
    count = self.spec['splits'].get(name, 0)
    made_by = self.spec.get('tokenizer')
    made_by = made_by if isinstance(made_by, dict) else {}
    # Several parts of a token may be stored as one number.
    size = made_by.get('size') if made_by.get('parts') == 1 else 0
    return _TokenSplit(
      *(self.path, name, count, shape, dtype, classes),
      size=size if type(size) is int else 0,
      cache=self.cache,
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
  def shape(self) -> tuple[int, int, int]:
    """(H, W, C) of the images that were encoded."""
    height, width, channels = self.spec['shape']
    return height, width, channels

  def describe(self) -> str:
    """A summary of both splits in one line."""
    text = (
      f'tokens of {self.examples:,} training and {self.held_out_examples:,} '
      'held-out pictures'
    )
    return f'{text}; {self._features}' if self._features else text

  @functools.cached_property
  def digest(self) -> str:
    """Hash of all examples and their split, the same on every machine."""
    files = sorted(pathlib.Path(self.path).glob('*.array_record'))
    return hex_digest(facts_of_files({path.name: path for path in files}))

  @property
  def broken(self) -> Broken:
    """Always empty: `arvision encode` leaves out broken pictures."""
    return Broken(0, self.examples)

  def _train_batch(self, split, ranks, draws):
    return self._batch(split.batch(ranks, draws[:, 0]))

  def held_out(
    self, batch_size: int, process_index: int = 0, process_count: int = 1
  ) -> grain.DatasetIterator:
    """One pass over the first views of the held-out split."""
    return self._pass(
      self._splits[1],
      self._first_views,
      batch_size,
      process_index,
      process_count,
    )

  def train_pass(
    self, batch_size: int, process_index: int = 0, process_count: int = 1
  ) -> grain.DatasetIterator:
    """One pass over the first views of the training split."""
    return self._pass(
      self._splits[0],
      self._first_views,
      batch_size,
      process_index,
      process_count,
    )

  def _first_views(self, split, ranks, weight):
    batch = split.batch(ranks, np.zeros(len(ranks)))
    return self._batch({**batch, 'weight': weight})

  def _batch(self, batch):
    return self.text.batch(batch) if self.text else batch


@dataclasses.dataclass(frozen=True, eq=False)
class _TokenSplit:
  """The records of one split; labels are not used if `classes` is 0.

  Codes are below `size`, where it is not 0.
  """

  path: str
  split: str
  count: int
  shape: tuple[int, ...]
  dtype: np.dtype
  classes: int
  size: int
  cache: bool
  reads: Reads = dataclasses.field(default_factory=Reads)

  @functools.cached_property
  def _source(self):
    return records.open_split(self.path, self.split, self.count)

  @functools.cached_property
  def _kept(self):
    return [self._fetch(rank) for rank in range(self.count)]

  def __len__(self) -> int:
    return self.count

  @property
  def labels(self) -> np.ndarray:
    """(n,) labels of all ranks."""
    if not self.classes:
      return np.zeros(len(self), np.int32)
    return np.array([self.load(rank)['label'] for rank in range(len(self))])

  def warm(self) -> None:
    """Opens the files, and reads them with `cache`, before threads start."""
    if self.count:
      self.load(0)

  def captions(self, count: int) -> Iterator[str]:
    """The captions of at most `count` evenly spaced examples."""
    return (self.load(rank)['caption'] for rank in spaced(self.count, count))

  def load(self, rank: int) -> dict[str, Any]:
    return self._kept[rank] if self.cache else self._fetch(rank)

  def name(self, rank: int) -> str:
    return f'{self.split} record {rank}'

  def _fetch(self, rank):
    name = f'{self.path}: {self.name(rank)}'
    with self.reads.of(rank):
      record = records.fetch(self._source, rank, name)
    tokens = record['tokens']
    same_kind = np.can_cast(tokens.dtype, self.dtype)
    if tokens.shape[1:] != self.shape or not same_kind:
      raise DataError(
        f'{name}: tokens {tokens.shape[1:]} {tokens.dtype}, but spec.json says '
        f'{self.shape} {self.dtype}'
      )
    if self.size and self.dtype == np.int32:
      low, high = int(tokens.min()), int(tokens.max())
      if low < 0 or high >= self.size:
        raise DataError(
          f'{name}: tokens from {low} to {high}, but the tokenizer in spec.json '
          f'has {self.size} codes; encode the images again (arvision encode)'
        )
    if self.classes and not 0 <= record['label'] < self.classes:
      raise DataError(
        f'{name}: label {record["label"]}, but spec.json names {self.classes} '
        'classes'
      )
    return record

  def batch(self, ranks: np.ndarray, draws: np.ndarray) -> Batch:
    """One view per example, chosen by draws (b,) in [0, 1)."""
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
