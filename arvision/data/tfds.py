"""TFDS datasets in ArrayRecord format, read without TensorFlow."""

import contextlib
import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from arvision.data.base import BrokenImage, Example, Source, facts_of_files
from arvision.data.decode import MAX_PIXELS, Pixels, check_max_pixels, decode
from arvision.errors import ConfigError, DataError

# Without a namespace, which may refer to foreign code.
_NAME = re.compile(r'\w+(/\w[\w+.-]*)?(:[\d.*]+)?', re.ASCII)
_CLASS_KEYS = ('type', 'pythonClassName', 'python_class_name')
_FEATURES = 'tensorflow_datasets.core.features.'


@dataclasses.dataclass(frozen=True, eq=False)
class Tfds(Source):
  """A TFDS builder with an image feature.

  The data must be prepared as ArrayRecord (`file_format='array_record'`),
  because TFRecord needs TensorFlow.

  Attributes:
    builder: name of the builder, for example 'imagenet2012:5.1.0'.
    split: a TFDS split; slices such as 'train[:90%]' work.
    held_out_split: TFDS split of held-out examples; '' if the pipeline shall
      hold out some of `split`.
    data_dir: folder of the prepared data; '': TFDS's default.
    download: prepare missing data, which needs a network.
    image, label, caption: names of the features, '' for none. Without a label
      there is one class, named after the builder.
    max_pixels: a picture with more is broken; it is not decoded.
  """

  builder: str
  split: str = 'train'
  held_out_split: str = 'test'
  data_dir: str = ''
  download: bool = False
  image: str = 'image'
  label: str = 'label'
  caption: str = ''
  max_pixels: Pixels = MAX_PIXELS

  def __post_init__(self):
    check_max_pixels(self.max_pixels)

  @functools.cached_property
  def _builder(self) -> Any:
    # Imported here, because it slows down the start.
    import tensorflow_datasets as tfds
    from etils import epath

    if not _NAME.fullmatch(self.builder):
      raise ConfigError(
        f"config.data.source.builder='{self.builder}': wanted the name of a "
        'TFDS dataset, name/config:version'
      )
    with self._reported():
      folder = self.data_dir or tfds.core.constants.DATA_DIR
      _check_features(self.builder, epath.Path(folder))
      return tfds.builder(
        self.builder,
        data_dir=self.data_dir or None,
        file_format='array_record',
        try_gcs=False,
      )

  @functools.cached_property
  def _data(self) -> Any:
    import tensorflow_datasets as tfds

    with self._reported():
      if self.download:
        self._builder.download_and_prepare()
      data = self._builder.as_data_source(split=self.split)
    features, image = data.dataset_info.features, self.image
    if image in features and isinstance(features[image], tfds.features.Image):
      # `decode` enforces the limits.
      data.decoders = {image: tfds.decode.SkipDecoding()}
    return data

  @contextlib.contextmanager
  def _reported(self):
    """Turns errors of TFDS into DataError."""
    try:
      yield
    except (ConfigError, DataError):
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
      _ = self._data  # some builders know their features only when prepared
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

  @functools.cached_property
  def _parts(self):
    """(first index, split, first record in it) of every slice in `split`."""
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
    # Names do not depend on slicing.
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
    _ = self._features  # checks the names of the features
    try:
      record = self._data[int(i)]
    except Exception as error:  # decoders of TFDS raise many kinds
      raise BrokenImage(
        f'{self.name(i)}: cannot be decoded ({type(error).__name__}: {error})'
      ) from error
    image = record[self.image]
    if isinstance(image, bytes):
      image = decode(image, self.name(i), max_pixels=self.max_pixels)
    image = np.asarray(image)
    if image.dtype != np.uint8:
      raise DataError(
        f'{self.name(i)}: {self.image} is {image.dtype}, wanted uint8'
      )
    label = int(record[self.label]) if self.label else 0
    if self.caption:
      text = record[self.caption]
      try:
        text = text.decode() if isinstance(text, bytes) else str(text)
      except UnicodeDecodeError as error:
        raise DataError(
          f'{self.name(i)}: {self.caption} is not a text in UTF-8 ({error})'
        ) from error
    else:
      text = self.classes[label] if 0 <= label < len(self.classes) else ''
    return {'image': image, 'label': label, 'caption': text}


def _check_features(builder: str, folder: Any) -> None:
  """Checks that prepared data only have features of TFDS itself.

  TFDS would import the module of any feature class in a features.json.

  Raises:
    DataError: foreign feature classes, or a file that is not JSON.
  """
  alike = lambda name: name.replace('_', '').lower()
  name = alike(re.split('[/:]', builder)[0])
  found = folder.iterdir() if folder.is_dir() else ()
  for data in [path for path in found if alike(path.name) == name]:
    for depth in ('', '*/', '*/*/'):
      for file in data.glob(f'{depth}features.json'):
        _check_file(file)


def _check_file(file):
  try:
    names = [*_feature_classes(json.loads(file.read_text()))]
  except (ValueError, RecursionError) as error:
    raise DataError(f'{file} is damaged: {error}') from error
  for name in names:
    if not name.startswith(_FEATURES):
      raise DataError(
        f"{file} names the feature class '{name[:80]}': wanted one of TFDS "
        'itself; other classes are not imported'
      )


def _feature_classes(value: Any) -> Iterator[str]:
  if isinstance(value, list):
    for item in value:
      yield from _feature_classes(item)
  elif isinstance(value, dict):
    for key, item in value.items():
      if key in _CLASS_KEYS and isinstance(item, str):
        yield item
      else:
        yield from _feature_classes(item)
