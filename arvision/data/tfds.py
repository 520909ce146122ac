"""TFDS datasets in ArrayRecord form, read without TensorFlow."""

import contextlib
import dataclasses
import functools
from typing import Any

import numpy as np

from arvision.data.base import BrokenImage, DataError, Example, Source


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
  def _builder(self) -> Any:
    # Imported here: the start of other runs shall not pay for it.
    import tensorflow_datasets as tfds

    with self._told():
      return tfds.builder(
        self.builder,
        data_dir=self.data_dir or None,
        file_format='array_record',
        try_gcs=False,
      )

  @functools.cached_property
  def _data(self) -> Any:
    with self._told():
      if self.download:
        self._builder.download_and_prepare()
      return self._builder.as_data_source(split=self.split)

  @contextlib.contextmanager
  def _told(self):
    try:
      yield
    except DataError:
      raise
    except Exception as error:  # TFDS raises a dozen kinds
      raise DataError(
        f"TFDS '{self.builder}' with split '{self.split}' cannot be opened "
        f'({type(error).__name__}: {error}); look at config.data.source.'
        'builder, split and data_dir, or set download'
      ) from error

  @functools.cached_property
  def _features(self):
    if self.download:
      _ = self._data  # of some they are known once they are prepared
    features = self._builder.info.features
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

  def name(self, i: int) -> str:
    return f'{self.builder}/{self.split}[{i}]'

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
