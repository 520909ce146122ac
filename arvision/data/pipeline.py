"""Images of a source to batches for the model."""

import dataclasses
import functools

import grain
import numpy as np

from arvision.build import Checked
from arvision.data import stream, transforms
from arvision.data.base import Batch, Source, hex_digest
from arvision.data.preparation import DRAWS, VIEWS, Preparation
from arvision.data.split import Broken, Split, hold_out
from arvision.data.text import CAPTIONS, Text
from arvision.errors import ConfigError, DataError
from arvision.ranges import Below1, Count, FewOr0, Side, Width


@dataclasses.dataclass(frozen=True, eq=False)
class Images(Checked):
  """A source, cut in two, prepared and batched (see `base.Data`).

  Attributes:
    source: where the pictures come from.
    size: (H, W) of the images.
    channels: 1 or 3; pictures are converted.
    batch_size: global batch size of training.
    resize, filter, crop, flip: see `preparation.Preparation`. Held-out
      images are resized likewise, cropped in the middle and never flipped.
    held_out_share: share of the examples to hold out, where the source has no
      held-out split of its own; 0 for none. See `split.hold_out`.
    conditional: False puts all examples into one class.
    cache: keep decoded and resized pictures in memory.
    threads, workers: see `stream.Reading`.
    broken_share: share of a split's pictures that may be broken. A broken one
      is replaced by the next in order, with weight 0 on passes.
    text: adds features of the captions to batches; None for none.
  """

  source: Source
  size: tuple[Side, Side]
  channels: Width = 3
  batch_size: Count = 128
  resize: Side | str | None = 'fit'
  filter: str = 'lanczos'
  crop: str = 'center'
  flip: bool = False
  held_out_share: Below1 = 0.1
  conditional: bool = True
  cache: bool = False
  threads: FewOr0 = 2
  workers: FewOr0 = 0
  broken_share: Below1 = 0.01
  text: Text | None = None

  def __post_init__(self):
    super().__post_init__()
    _ = self._preparation  # checks what the fields say together

  @functools.cached_property
  def _preparation(self):
    return Preparation(
      size=self.size,
      channels=self.channels,
      resize=self.resize,
      filter=self.filter,
      crop=self.crop,
      flip=self.flip,
    )

  @functools.cached_property
  def _reading(self):
    return stream.Reading(self.threads, self.workers)

  @functools.cached_property
  def _splits(self) -> tuple[Split, Split]:
    own = self.source.held_out
    if own is None:
      train, held = hold_out(self.source, self.held_out_share)
      own = self.source
    else:
      train, held = np.arange(len(self.source)), np.arange(len(own))
    if not len(train):
      raise DataError('config.data.source has no training examples')
    # Random scales start from the picture as it is, so it must be kept so.
    unscaled = self._preparation.scales_at_random
    splits = (
      self._split(self.source, train, scaled=not unscaled),
      self._split(own, held, scaled=True),
    )
    for split in splits:
      split.check_labels()
    return splits

  def _split(self, source, numbers, scaled):
    total = len(numbers)
    return Split(
      source=source,
      numbers=numbers,
      classes=len(source.classes) if self.conditional else 0,
      prepare=self._open_and_scale if scaled else self._open,
      broken=Broken(self.broken_share * total, total),
      cache=self.cache,
    )

  @functools.cached_property
  def _features(self) -> str:
    """What is said of the features of captions, if there are enough."""
    if self.text is None:
      return ''
    return self.text.check(*(s.captions(CAPTIONS) for s in self._splits))

  def describe(self) -> str:
    """A line for the start of a run: what is in the two splits."""
    train, held = self._splits
    text = f'{len(train):,} training and {len(held):,} held-out pictures'
    if self.source.held_out is None and self.held_out_share:
      found = len(held) / (len(train) + len(held))
      text += (
        f', {found:.4f} of all (config.data.held_out_share='
        f'{self.held_out_share})'
      )
    parts = (('training', train), ('held-out', held))
    for name, split in parts if self.conditional else ():
      lost = split.empty_classes() if len(split) else []
      if lost:
        more = ', ...' if len(lost) > 5 else ''
        text += (
          f'; no {name} picture of {len(lost)} of {self.num_classes} classes: '
          f'{", ".join(lost[:5])}{more}'
        )
    return f'{text}; {self._features}' if self._features else text

  @functools.cached_property
  def digest(self) -> str:
    """Hex digits of all examples and their split; equal on every machine."""
    own = self.source.held_out
    held_out = self.held_out_share if own is None else own.digest()
    return hex_digest([self.source.digest(), str(held_out)])

  def _open(self, image, name):
    self._preparation.check_shape(image, name)
    return self._preparation.open(image)

  def _open_and_scale(self, image, name):
    return self._preparation.scale(self._open(image, name), name)

  @property
  def examples(self) -> int:
    return len(self._splits[0])

  @property
  def held_out_examples(self) -> int:
    return len(self._splits[1])

  @property
  def classes(self) -> tuple[str, ...]:
    return tuple(self.source.classes) if self.conditional else ('image',)

  @property
  def num_classes(self) -> int:
    return len(self.classes)

  @property
  def shape(self) -> tuple[int, int, int]:
    return (*self.size, self.channels)

  @property
  def broken(self) -> Broken:
    """Broken pictures of the training split that were met so far."""
    return self._splits[0].broken

  def train(
    self,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
  ) -> stream.TrainIterator:
    """Endless shuffled batches of training views.

    Raises:
      ConfigError: the batch does not suit the processes or the split.
      DataError: see `base.Data`; some only when the batch is made.
    """
    split = self._splits[0]
    view = self._preparation.train
    _ = self._features  # complains now
    split.warm()

    def assemble(ranks: np.ndarray, draws: np.ndarray) -> Batch:
      examples = [split.load(rank) for rank in ranks]
      views = [view(e['image'], d) for e, d in zip(examples, draws)]
      return self._batch(examples, np.stack(views))

    return stream.train_stream(
      examples=len(split),
      batch_size=batch_size,
      seed=seed,
      assemble=assemble,
      draws=DRAWS,
      reading=self._reading,
      process_index=process_index,
      process_count=process_count,
    )

  def held_out(
    self,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    views: str = '',
  ) -> grain.DatasetIterator:
    """One pass over the held-out split; see `train_pass`."""
    split = self._splits[1]
    return self._pass(split, batch_size, process_index, process_count, views)

  def train_pass(
    self,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    views: str = '',
  ) -> grain.DatasetIterator:
    """One pass over the training split, in order of the source.

    Args:
      batch_size: global; the last batch is filled up, with weight 0.
      process_index, process_count: this process among all.
      views: '' gives `image` (b, H, W, C), the centre; 'center', 'flip' or
        'ten_crop' give (b, views, H, W, C) with 1, 2 or 10 views.
    """
    split = self._splits[0]
    if self._preparation.scales_at_random:
      split = dataclasses.replace(
        split, prepare=self._open_and_scale, cache=False
      )
    return self._pass(split, batch_size, process_index, process_count, views)

  def _pass(self, split, batch_size, process_index, process_count, views):
    if views and views not in VIEWS:
      raise ConfigError(f'views={views!r}: wanted one of {", ".join(VIEWS)}')
    get = self._preparation.views
    _ = self._features
    split.warm()

    def assemble(ranks: np.ndarray, weight: np.ndarray) -> Batch:
      examples = [split.load(rank) for rank in ranks]
      if views:
        images = [np.stack(get(e['image'], views)) for e in examples]
      else:
        images = [get(e['image'], 'center')[0] for e in examples]
      whole = np.array([e['whole'] for e in examples], np.float32)
      return self._batch(examples, np.stack(images), weight=weight * whole)

    return stream.one_pass(
      examples=len(split),
      batch_size=batch_size,
      assemble=assemble,
      reading=self._reading,
      process_index=process_index,
      process_count=process_count,
    )

  def picture(self, image: np.ndarray, name: str) -> np.ndarray:
    """A picture from elsewhere, prepared as held-out ones are.

    Args:
      image: (h, w, 1 or 3) uint8 of any size.
      name: what to call it in errors.

    Returns:
      (H, W, C) float32 in [-1, 1].

    Raises:
      DataError: the crop does not fit into it.
    """
    scaled = self._open_and_scale(image, name)
    return transforms.to_float(self._preparation.views(scaled, 'center')[0])

  def _batch(self, examples, images, **more) -> Batch:
    batch = {
      'image': transforms.to_float(images),
      'label': np.array([e['label'] for e in examples], np.int32),
      'index': np.array([e['index'] for e in examples], np.int32),
      'caption': np.array([e['caption'] for e in examples], object),
      **more,
    }
    return self.text.batch(batch) if self.text else batch
