"""Edits images with a trained generator: in- and outpainting, other classes.

    arvision edit --workdir=runs/var/digits --held_out=8 --box=0.5,0,0.5,1
    arvision edit --workdir=runs/var/digits --image three.png --mode=outpaint

No training is needed: known tokens are kept while the others are sampled.
"""

import argparse
import pathlib
from typing import Any

import numpy as np

from arvision.commands import run_flags
from arvision.commands.sample import prompts_of, read_labels
from arvision.data.decode import decode, decode_mask
from arvision.data.files import shown
from arvision.data.transforms import to_uint8
from arvision.errors import ConfigError, DataError
from arvision.ranges import Batch, Few, FewOr0, number
from arvision.runs import measure, targets
from arvision.runs.trained import TrainedRun
from arvision.training import pictures

MODES = ('inpaint', 'outpaint', 'class')
# The default region. Another class shows in a large one: tokens of coarse scales
# are kept where most of their pixels are.
_BOX, _CLASS_BOX = '0.25,0.25,0.5,0.5', '0.1,0.1,0.8,0.8'


def main(argv: list[str]) -> None:
  """`arvision edit`: writes <workdir>/edits/<name>/."""
  flags, run = run_flags.open_run(parser(), argv)
  if run.model is None:
    raise ConfigError(
      f"--workdir='{flags.workdir}' holds a tokenizer; name the workdir of a "
      'generator'
    )
  name = run_flags.output_name(flags.name, f'{flags.mode}_seed{flags.seed}')
  folder = pathlib.Path(flags.workdir) / 'edits' / name
  targets.check_folder(folder)
  images, own = originals(run, flags.image, flags.held_out)
  box = flags.box or (_CLASS_BOX if flags.mode == 'class' else _BOX)
  region = region_of(flags.mask, box, images.shape[1:3])
  keep = region if flags.mode == 'outpaint' else ~region
  if keep.all():
    raise ConfigError(
      f'--mode={flags.mode} with this --mask or --box leaves nothing to sample'
    )
  prompts = prompts_of(run, flags.captions, ())
  labels = own
  if prompts is None:
    labels = labels_of(run, flags.mode, flags.labels, own)
  elif len(prompts.names) != 1:
    raise ConfigError(f'--captions: wanted one, got {len(prompts.names)}')
  else:
    labels = np.zeros(len(own), np.int32)
  edit = run.edit_fn(
    prompts=prompts, at_once=flags.batch_size, **run_flags.sampling(flags)
  )
  keeps = np.broadcast_to(keep, images.shape[:3])
  count = len(images)
  rows = {
    'picture': images,
    'kept': np.where(keeps[..., None], images, 0.0),
  }
  for k in range(flags.number):
    index = np.arange(count, dtype=np.int32) + k * count
    edited = edit(labels, index, images, keeps)[0]
    if flags.composite:
      edited = np.where(keeps[..., None], images, edited)
    rows[f'{flags.mode} {k + 1}'] = edited
  print(
    f'{flags.number} edits of {count} images, with {run_flags.weights_of(run)}; '
    f'on average the region changed by {changed(rows, ~keeps):.0%} of the range '
    'of a pixel'
  )
  write(rows, folder)
  if note := pictures.enlarged(*images.shape[1:3]):
    print(note)
  print(folder / 'grid.png')


def parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  flags = run_flags.parser('edit', __doc__)
  flags.add_argument(
    '--mode',
    choices=MODES,
    default='inpaint',
    help='inpaint: sample the region again; outpaint: sample all but the region; '
    'class: sample the region as another class (inpaint)',
  )
  flags.add_argument(
    '--image', nargs='+', default=[], metavar='FILE', help='images to edit'
  )
  flags.add_argument(
    '--held_out',
    type=number(FewOr0),
    default=0,
    metavar='N',
    help='edit the first N held-out images of the data instead',
  )
  flags.add_argument(
    '--mask',
    metavar='FILE',
    help='an image that is white in the region and black or transparent '
    'outside; with two values, the greater one is white',
  )
  flags.add_argument(
    '--box',
    default='',
    metavar='TOP,LEFT,HEIGHT,WIDTH',
    help=f'the region, in shares of the image; default: {_BOX}, or {_CLASS_BOX} '
    'for --mode=class, since a small region leaves the class to the rest',
  )
  flags.add_argument(
    '--labels',
    default='',
    metavar='LIST',
    help='one class for all images, or one per image; default: the class of a '
    'held-out image, and no class for files',
  )
  flags.add_argument(
    '--captions',
    nargs='+',
    default=[],
    metavar='TEXT',
    help='a caption for all images, for generators that read captions',
  )
  flags.add_argument(
    '--number', type=number(Few), default=4, help='edits per image (4)'
  )
  flags.add_argument(
    '--batch_size',
    type=number(Batch),
    help='images per call; default: as many as fit into memory',
  )
  flags.add_argument(
    '--composite',
    action='store_true',
    help='copy the pixels to keep from the original; without it they are '
    'decoded from their tokens',
  )
  flags.add_argument(
    '--name',
    default='',
    help='name of the folder in <workdir>/edits, which is replaced; default: '
    '<mode>_seed<seed>',
  )
  run_flags.add_sampling(flags)
  return flags


def originals(
  run: TrainedRun, files: list[str], held_out: int
) -> tuple[np.ndarray, np.ndarray]:
  """The images to edit.

  Args:
    run: run with the data.
    files: paths of images, or [].
    held_out: number of held-out images, or 0.

  Returns:
    images (b, H, W, C) float32 in [-1, 1], and classes (b,) int32, -1 where
    unknown.

  Raises:
    ConfigError: neither files nor held-out images are named, or both are.
    DataError: a file cannot be read, or there are too few held-out images.
  """
  if bool(files) == bool(held_out) or held_out < 0:
    raise ConfigError('wanted --image=FILE ... or --held_out=N, one of the two')
  data: Any = measure.images_of(run)[0]
  if files:
    found = []
    for file in files:
      name = f"--image='{_existing('image', file)}'"
      found.append(data.picture(decode(file, name), shown(file)))
    return np.stack(found), np.full(len(found), -1, np.int32)
  if data.held_out_examples < held_out:
    raise DataError(
      f'--held_out={held_out}: the data has {data.held_out_examples} held-out '
      'images'
    )
  batch = next(iter(data.held_out(held_out)))
  return np.asarray(batch['image']), np.asarray(batch['label'])


def region_of(mask: str | None, box: str, size: tuple[int, int]) -> np.ndarray:
  """The region of a mask file or a box, (H, W) bool.

  Args:
    mask: path of an image, or None.
    box: 'top,left,height,width' in shares of the image; used without a mask.
    size: (H, W).

  Raises:
    ConfigError: the box has another form, or contains no pixel.
    DataError: the mask cannot be read, has another size, or is white everywhere
      or nowhere.
  """
  if mask:
    name = f"--mask='{_existing('mask', mask)}'"
    white = decode_mask(mask, name)
    if white.shape != size:
      raise DataError(
        f'{name} is {white.shape[0]} x {white.shape[1]}, wanted '
        f'{size[0]} x {size[1]}, the image size of the model'
      )
    if white.all() or not white.any():
      raise DataError(
        f'{name} is white {"everywhere" if white.all() else "nowhere"}, wanted '
        'white in the region and black outside'
      )
    return white
  try:
    top, left, height, width = (float(part) for part in box.split(','))
  except ValueError:
    top = left = height = width = -1.0
  inside = min(top, left) >= 0 and min(height, width) > 0
  if not inside or max(top + height, left + width) > 1 + 1e-6:
    raise ConfigError(
      f"--box='{box}': wanted top,left,height,width in shares of the image, "
      'such as 0.25,0.25,0.5,0.5'
    )
  region = np.zeros(size, bool)
  rows = slice(round(top * size[0]), round((top + height) * size[0]))
  columns = slice(round(left * size[1]), round((left + width) * size[1]))
  region[rows, columns] = True
  if not region.any():
    raise ConfigError(
      f"--box='{box}': contains no pixel of {size[0]} x {size[1]}"
    )
  return region


def _existing(flag, path):
  if not pathlib.Path(path).is_file():
    kind = (
      'not a regular file' if pathlib.Path(path).exists() else 'no such file'
    )
    raise DataError(f"--{flag}='{shown(path)}': {kind}")
  return shown(path)


def labels_of(
  run: TrainedRun, mode: str, text: str, own: np.ndarray
) -> np.ndarray:
  """The label of every image, (b,) int32.

  Args:
    run: a generator.
    mode: of `MODES`.
    text: value of --labels.
    own: (b,) classes of the images, -1 where unknown.

  Raises:
    ConfigError: the mode needs a class, a class is unknown, or the number of
      classes is wrong.
  """
  classes = measure.classes_of(run)
  if not classes:
    return np.zeros(len(own), np.int32)
  if text:
    chosen = read_labels(text, classes)
    if len(chosen) not in (1, len(own)):
      raise ConfigError(
        f'--labels={text}: {len(chosen)} classes for {len(own)} images; wanted '
        'one, or one per image'
      )
    return np.broadcast_to(np.array(chosen, np.int32), own.shape)
  if mode == 'class':
    raise ConfigError('--mode=class needs --labels, the class to sample')
  # The number of classes is the index of the null class.
  return np.where(own < 0, len(classes), own).astype(np.int32)


def changed(rows: dict[str, np.ndarray], region: np.ndarray) -> float:
  """Mean change of the pixels of a region, 0 to 1.

  Args:
    rows: 'picture' and 'kept' first, then the edits, (b, H, W, C) in [-1, 1].
    region: (b, H, W) bool.
  """
  picture, _, *edits = rows.values()
  found = [np.abs(np.clip(e, -1, 1) - picture)[region].mean() for e in edits]
  return float(np.mean(found)) / 2


def write(rows: dict[str, np.ndarray], folder: pathlib.Path) -> None:
  """Writes grid.png and one PNG per edit; replaces the folder."""
  columns = len(rows['picture'])
  with targets.whole_folder(folder) as partial, targets.writing(folder):
    pictures.save(partial / 'grid.png', pictures.sheet(rows, columns))
    for name, images in rows.items():
      for i, image in enumerate(to_uint8(images)):
        pictures.save(partial / f'{i:03d}_{name.replace(" ", "_")}.png', image)
