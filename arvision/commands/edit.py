"""Draws parts of pictures anew with a trained generator, zero-shot."""

import argparse
import pathlib
import re
from typing import Any

import numpy as np

from arvision.commands import run_flags
from arvision.commands.sample import prompts_of, read_labels
from arvision.data.decode import decode, decode_mask
from arvision.data.files import shown
from arvision.errors import ConfigError, DataError
from arvision.ranges import Batch, Few, FewOr0, number
from arvision.runs import measure, targets
from arvision.runs.trained import TrainedRun
from arvision.training import pictures

MODES = ('inpaint', 'outpaint', 'class')


def main(argv: list[str]) -> None:
  """`arvision edit`: writes <workdir>/edits/<name>/."""
  flags, run = run_flags.open_run(parser(), argv)
  if run.model is None:
    raise ConfigError(
      f"--workdir='{flags.workdir}' holds a tokenizer; name the workdir of a "
      'generator'
    )
  name = flags.name or f'{flags.mode}_seed{flags.seed}'
  if not re.fullmatch(r'\w[\w.+=-]*', name):
    raise ConfigError(f"--name='{name}': wanted letters, digits, '-' and '_'")
  folder = pathlib.Path(flags.workdir) / 'edits' / name
  targets.check_folder(folder)
  images, own = originals(run, flags.image, flags.held_out)
  region = region_of(flags.mask, flags.box, images.shape[1:3])
  keep = region if flags.mode == 'outpaint' else ~region
  if keep.all():
    raise ConfigError(
      f'--mode={flags.mode} with this --mask or --box leaves nothing to draw'
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
    f'{flags.number} edits of {count} pictures by {run_flags.weights_of(run)}'
  )
  write(rows, folder)
  print(folder / 'grid.png')


def parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  flags = run_flags.parser('edit', __doc__)
  flags.add_argument(
    '--mode',
    choices=MODES,
    default='inpaint',
    help='inpaint: the region is drawn anew; outpaint: all but the region is; '
    'class: the region is drawn anew as another class (inpaint)',
  )
  flags.add_argument(
    '--image', nargs='+', default=[], metavar='FILE', help='pictures to edit'
  )
  flags.add_argument(
    '--held_out',
    type=number(FewOr0),
    default=0,
    metavar='N',
    help='edit the first N held-out pictures of the data instead',
  )
  flags.add_argument(
    '--mask',
    metavar='FILE',
    help='a picture that is white in the region and black or transparent '
    'elsewhere; of two values, the greater one is white',
  )
  flags.add_argument(
    '--box',
    default='0.25,0.25,0.5,0.5',
    metavar='TOP,LEFT,HEIGHT,WIDTH',
    help='the region, in shares of the picture (the middle half)',
  )
  flags.add_argument(
    '--labels',
    default='',
    metavar='LIST',
    help='a class for all pictures, or one for each; default: the own class of '
    'held-out pictures, and no class for files',
  )
  flags.add_argument(
    '--captions',
    nargs='+',
    default=[],
    metavar='TEXT',
    help='a caption for all pictures, for a generator that reads captions',
  )
  flags.add_argument(
    '--number', type=number(Few), default=4, help='edits of every picture (4)'
  )
  flags.add_argument(
    '--batch_size',
    type=number(Batch),
    help='pictures at once; default: as many as memory holds',
  )
  flags.add_argument(
    '--composite',
    action='store_true',
    help='put the pixels that were to stay back; without it they are decoded '
    'from their tokens',
  )
  flags.add_argument(
    '--name',
    default='',
    help='of the folder under <workdir>/edits; default: <mode>_seed<seed>. What '
    'it held is replaced',
  )
  run_flags.add_sampling(flags)
  return flags


def originals(
  run: TrainedRun, files: list[str], held_out: int
) -> tuple[np.ndarray, np.ndarray]:
  """The pictures to edit and their classes, -1 where unknown.

  Raises:
    ConfigError: none were named, or both kinds were.
    DataError: a file that cannot be read, or too few held-out pictures.
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
      'pictures'
    )
  batch = next(iter(data.held_out(held_out)))
  return np.asarray(batch['image']), np.asarray(batch['label'])


def region_of(mask: str | None, box: str, size: tuple[int, int]) -> np.ndarray:
  """(H, W) bool: the region that a mask file or a box names.

  Raises:
    ConfigError: not four shares of the picture, or no pixel of it.
    DataError: a mask that cannot be read, has another shape than the picture,
      or is white everywhere or nowhere.
  """
  if mask:
    name = f"--mask='{_existing('mask', mask)}'"
    white = decode_mask(mask, name)
    if white.shape != size:
      raise DataError(
        f'{name} is {white.shape[0]} x {white.shape[1]}, wanted '
        f'{size[0]} x {size[1]} as the pictures that the model draws'
      )
    if white.all() or not white.any():
      raise DataError(
        f'{name} is white {"everywhere" if white.all() else "nowhere"}, wanted '
        'white in the region and black elsewhere'
      )
    return white
  try:
    top, left, height, width = (float(part) for part in box.split(','))
  except ValueError:
    top = left = height = width = -1.0
  inside = min(top, left) >= 0 and min(height, width) > 0
  if not inside or max(top + height, left + width) > 1 + 1e-6:
    raise ConfigError(
      f"--box='{box}': wanted top,left,height,width in shares of the picture, "
      'such as 0.25,0.25,0.5,0.5'
    )
  region = np.zeros(size, bool)
  rows = slice(round(top * size[0]), round((top + height) * size[0]))
  columns = slice(round(left * size[1]), round((left + width) * size[1]))
  region[rows, columns] = True
  if not region.any():
    raise ConfigError(
      f"--box='{box}': no pixel of {size[0]} x {size[1]} lies in it"
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
  """(b,) int32 the class that every picture is edited as.

  Raises:
    ConfigError: no class for a mode that wants one, unknown classes, or neither
      one nor as many as there are pictures.
  """
  classes = measure.classes_of(run)
  if not classes:
    return np.zeros(len(own), np.int32)
  if text:
    chosen = read_labels(text, classes)
    if len(chosen) not in (1, len(own)):
      raise ConfigError(
        f'--labels={text}: {len(chosen)} classes for {len(own)} pictures; wanted '
        'one, or one for each'
      )
    return np.broadcast_to(np.array(chosen, np.int32), own.shape)
  if mode == 'class':
    raise ConfigError('--mode=class wants --labels: what to draw instead')
  # One more than the last class is the null class of every table.
  return np.where(own < 0, len(classes), own).astype(np.int32)


def write(rows: dict[str, np.ndarray], folder: pathlib.Path) -> None:
  """Writes grid.png and one PNG per edit, in the place of what was there."""
  columns = len(rows['picture'])
  with targets.whole_folder(folder) as partial, targets.writing(folder):
    pictures.save(partial / 'grid.png', pictures.sheet(rows, columns))
    for name, images in rows.items():
      for i, image in enumerate(pictures.to_uint8(images)):
        pictures.save(partial / f'{i:03d}_{name.replace(" ", "_")}.png', image)
