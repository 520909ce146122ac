"""TFDS datasets in ArrayRecord form, read without TensorFlow."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from arvision.data.base import (
  BrokenImage,
  DataError,
  Example,
  Source,
  facts_of_files,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Tfds(Source):
  """Any TFDS builder with an image feature.

  The data must be prepared as ArrayRecord (`file_format='array_record'`):
  TFRecord needs TensorFlow, which is not used here.

  Attributes:
    builder: name of the builder, 'cifar10' or 'imagenet2012:5.1.0'.
    split: a TFDS split; slices such as 'train[:90%]' work.
    held_out_split: likewise, or '' where the pipeline shall hold out.
    data_dir: where prepared data lie; '' is TFDS's own folder.
    download: True prepares data that are missing, which needs a network.
    image, label, caption: names of features; '' where there is none. Without
      a label there is one class, named after the builder.
  """

  builder: str
  split: str = 'train'
  held_out_split: str = 'test'
  data_dir: str = ''
  download: bool = False
  image: str = 'image'
  label: str = 'label'
  caption: str = ''

  @functools.cached_property
  def _data(self) -> Any:
    # Imported here: the start of other runs shall not pay for it.
    import tensorflow_datasets as tfds

    try:
      return tfds.data_source(
        self.builder,
        split=self.split,
        data_dir=self.data_dir or None,
        download=self.download,
        builder_kwargs={'file_format': 'array_record'},
        try_gcs=False,
      )
    except Exception as error:  # TFDS raises a dozen kinds
      raise DataError(
        f"TFDS '{self.builder}' with split '{self.split}' cannot be opened "
        f'({type(error).__name__}: {error}); look at config.data.source.'
        'builder, split and data_dir, or set download'
      ) from error

  @functools.cached_property
  def _features(self):
    features = self._data.dataset_info.features
    for key in ('image', 'label', 'caption'):
      name = getattr(self, key)
      if name and name not in features:
        raise DataError(
          f"TFDS '{self.builder}' has no feature '{name}'; set config.data."
          f'source.{key} to one of {", ".join(sorted(features))}'
        )
    return features

  @functools.cached_property
  def classes(self) -> tuple[str, ...]:
    if not self.label:
      return (self.builder,)
    return tuple(self._features[self.label].names)

  @functools.cached_property
  def held_out(self) -> 'Tfds | None':
    if not self.held_out_split or self.held_out_split == self.split:
      return None
    return dataclasses.replace(
      self, split=self.held_out_split, held_out_split=''
    )

  @functools.cached_property
  def _parts(self):
    """(first index, split, first record there) of the slices in `split`."""
    import tensorflow_datasets as tfds

    splits = self._data.dataset_info.splits
    if not splits or self.split in splits:
      return [(0, self.split, 0)]
    found, index = [], 0
    for part in tfds.core.ReadInstruction.from_spec(self.split).to_absolute(
      splits
    ):
      begin = part.from_ or 0
      end = splits[part.splitname].num_examples if part.to is None else part.to
      found.append((index, part.splitname, begin))
      index += end - begin
    return found

  def name(self, i: int) -> str:
    # A slice calls its records what the whole split calls them.
    index, split, begin = [p for p in self._parts if p[0] <= i][-1]
    return f'{self.builder}/{split}[{begin + i - index}]'

  def facts(self) -> Iterator[str | bytes]:
    info = self._data.dataset_info
    yield repr((self.split, self.image, self.label, self.caption))
    files = sorted(p for p in pathlib.Path(info.data_dir).glob('*'))
    yield from facts_of_files({path.name: path for path in files})

  def __len__(self) -> int:
    return len(self._data)

  def __getitem__(self, i: int) -> Example:
    _ = self._features  # complains of wrong names of features
    try:
      record = self._data[int(i)]
    except Exception as error:  # decoders of TFDS raise many kinds
      raise BrokenImage(
        f'{self.name(i)}: cannot be decoded ({type(error).__name__}: {error})'
      ) from error
    image = np.asarray(record[self.image])
    if image.dtype != np.uint8:
      raise DataError(
        f'{self.name(i)}: {self.image} is {image.dtype}, wanted uint8'
      )
    label = int(record[self.label]) if self.label else 0
    if self.caption:
      text = record[self.caption]
      text = text.decode() if isinstance(text, bytes) else str(text)
    else:
      text = self.classes[label] if 0 <= label < len(self.classes) else ''
    return {'image': image, 'label': label, 'caption': text}
