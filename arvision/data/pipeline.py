"""The image pipeline: source -> split -> preparation -> batches."""

import dataclasses
import functools

import grain
import numpy as np

from arvision.data import stream, transforms
from arvision.data.base import Batch, Source, hex_digest
from arvision.data.preparation import DRAWS, VIEWS, Preparation
from arvision.data.split import Broken, Split, hold_out
from arvision.data.text import Text
from arvision.errors import ConfigError, DataError
from arvision.ranges import Below1, Count, FewOr0, Side, Width

# Pictures whose sizes are looked at before training.
_LOOKED_AT = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Images(stream.Batches):
  """Splits, prepares and batches the pictures of a source; see `base.Data`.

  Attributes:
    source: the pictures.
    size: (H, W) of the images.
    channels: 1 or 3; pictures are converted.
    batch_size: global batch size of training.
    resize, filter, crop, flip: see `preparation.Preparation`. Held-out images
      are resized in the same way, center-cropped and never flipped.
    held_out_share: share of examples to hold out if the source has no held-out
      split; 0 for none. See `split.hold_out`.
    conditional: False puts all examples into one class.
    cache: keep decoded and resized pictures in memory.
    threads, workers: see `stream.Reading`.
    broken_share: largest share of broken pictures in a split. The next picture
      replaces a broken one, with weight 0 on passes.
    companions: see `stream.Batches`.
    text: adds caption features to batches; None for none.
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
  companions: FewOr0 = 0
  text: Text | None = None
  draws = DRAWS

  def __post_init__(self):
    super().__post_init__()
    _ = self._preparation  # checks combinations of fields

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
  def _splits(self) -> tuple[Split, Split]:
    own = self.source.held_out
    if own is None:
      train, held = hold_out(self.source, self.held_out_share)
      own = self.source
    else:
      train, held = np.arange(len(self.source)), np.arange(len(own))
    if not len(train):
      raise DataError('config.data.source has no training examples')
    # Random scaling starts from the unscaled picture.
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

  def describe(self) -> str:
    """A summary of both splits in one line."""
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
    text += self._enlarged()
    return f'{text}; {self._features}' if self._features else text

  def _enlarged(self) -> str:
    """Words about pictures that are smaller than the images, '' for none."""
    shapes = list(self._splits[0].shapes(_LOOKED_AT))
    small = [s for s in shapes if s[0] < self.size[0] or s[1] < self.size[1]]
    if not small:
      return ''
    least = min(small, key=lambda shape: shape[0] * shape[1])
    return (
      f'; {len(small)} of {len(shapes)} pictures looked at are enlarged to '
      f'{self.size[0]} x {self.size[1]} px, from {least[0]} x {least[1]} at the '
      'least'
    )

  @functools.cached_property
  def digest(self) -> str:
    """Hash of all examples and their split, the same on every machine."""
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
  def shape(self) -> tuple[int, int, int]:
    return (*self.size, self.channels)

  @property
  def place(self) -> str:
    return self.source.place

  @property
  def pictures(self) -> dict[str, Split]:
    """Name -> split, of those whose pictures may be broken."""
    train, held = self._splits
    found = {'training': train, 'held-out': held}
    return {k: s for k, s in found.items() if len(s) and s.source.may_break}

  @property
  def broken(self) -> Broken:
    """Broken pictures of the training split so far."""
    return self._splits[0].broken

  def _train_batch(self, split, ranks, draws):
    examples = [split.load(rank) for rank in ranks]
    view = self._preparation.train
    views = [view(e['image'], d) for e, d in zip(examples, draws)]
    return self._batch(examples, np.stack(views))

  def held_out(
    self,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    views: str = '',
  ) -> grain.DatasetIterator:
    """One pass over the held-out split; see `train_pass`."""
    batches = batch_size, process_index, process_count
    return self._pass_of_views(self._splits[1], views, *batches)

  def train_pass(
    self,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    views: str = '',
  ) -> grain.DatasetIterator:
    """One pass over the training split, in order of the source.

    Args:
      batch_size: global; the last batch is padded with weight 0.
      process_index, process_count: this process among all.
      views: '' yields `image` (b, H, W, C), center-cropped; 'center', 'flip'
        and 'ten_crop' yield (b, views, H, W, C) with 1, 2 and 10 views.
    """
    split = self._splits[0]
    if self._preparation.scales_at_random:
      split = dataclasses.replace(
        split, prepare=self._open_and_scale, cache=False
      )
    batches = batch_size, process_index, process_count
    return self._pass_of_views(split, views, *batches)

  def _pass_of_views(self, split, views, *batches):
    if views and views not in VIEWS:
      raise ConfigError(f'views={views!r}: wanted one of {", ".join(VIEWS)}')
    get = self._preparation.views

    def assemble(split, ranks: np.ndarray, weight: np.ndarray) -> Batch:
      examples = [split.load(rank) for rank in ranks]
      if views:
        images = [np.stack(get(e['image'], views)) for e in examples]
      else:
        images = [get(e['image'], 'center')[0] for e in examples]
      whole = np.array([e['whole'] for e in examples], np.float32)
      return self._batch(examples, np.stack(images), weight=weight * whole)

    return self._pass(split, assemble, *batches)

  def picture(self, image: np.ndarray, name: str) -> np.ndarray:
    """Prepares a single picture like a held-out one.

    Args:
      image: (h, w, 1 or 3) uint8 of any size.
      name: its name, for errors.

    Returns:
      (H, W, C) float32 in [-1, 1].

    Raises:
      DataError: it is smaller than the crop.
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
