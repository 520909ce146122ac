"""Draws images of chosen classes or captions from a trained generator."""

import argparse
import pathlib
import re
import shutil
from collections.abc import Sequence

import jax
import numpy as np

from arvision.build import ConfigError, build, suggest
from arvision.commands import runs
from arvision.evals.generation import Drawn, draw
from arvision.parallel import host
from arvision.ranges import Batch, Many, number
from arvision.training import pictures
from arvision.training.prompts import Prompts, of_captions, of_files
from arvision.training.trained import TrainedRun

# Classes that are drawn where nobody said which.
_SHOWN = 16


def main(argv: list[str]) -> None:
  """`arvision sample`: writes <workdir>/samples/<name>/."""
  flags, run = runs.open_run(parser(), argv, several=True)
  if run.model is None:
    raise ConfigError(
      f"--workdir='{flags.workdir}' holds a tokenizer, which draws nothing by "
      'itself; name the workdir of a generator'
    )
  prompts = prompts_of(run, flags.captions, flags.features)
  # An unconditional generator has one nameless class.
  classes = prompts.names if prompts else runs.classes_of(run) or ('image',)
  chosen = parse_labels('all' if prompts else flags.labels, classes)
  name = flags.name or f'seed{flags.seed}'
  if not re.fullmatch(r'\w[\w.+=-]*', name):
    raise ConfigError(f"--name='{name}': wanted letters, digits, '-' and '_'")
  labels = np.repeat(np.array(chosen, np.int32), flags.number)
  sample = run.sample_fn(prompts=prompts, **runs.sampling(flags))
  drawn = list(draw(sample, labels, flags.batch_size))
  folder = pathlib.Path(flags.workdir) / 'samples' / name
  if jax.process_index() == 0:
    write(drawn, classes, folder, flags.npz)
  # JAX gives a process up that ends long after the others.
  host.barrier('written')
  kind = 'captions' if prompts else 'classes'
  host.say(
    f'{len(labels)} images of {len(chosen)} {kind}: {folder / "grid.png"}'
  )


def parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  flags = runs.parser('sample', __doc__)
  flags.add_argument(
    '--labels',
    default='',
    metavar='LIST',
    help="names or numbers of classes with a comma between, or 'all'; a name may "
    "have commas itself ('tench, Tinca tinca, dog' are two); default: all, but "
    f'at most {_SHOWN} of them',
  )
  flags.add_argument(
    '--captions',
    nargs='+',
    default=[],
    metavar='TEXT',
    help='what to draw, for a generator that reads captions',
  )
  flags.add_argument(
    '--features',
    nargs='+',
    default=[],
    metavar='FILE.npy',
    help='features of captions, (tokens, channels), by the text encoder that '
    'made those of the training data',
  )
  flags.add_argument(
    '--number', type=number(Many), default=8, help='images of every class (8)'
  )
  flags.add_argument(
    '--batch_size', type=number(Batch), default=64, help='images per call (64)'
  )
  flags.add_argument(
    '--name',
    default='',
    help='of the folder under <workdir>/samples; default: seed<seed>. What it '
    'held is replaced',
  )
  flags.add_argument(
    '--npz',
    action='store_true',
    help='also samples.npz: arr_0 (n, H, W, C) uint8 as evaluation suites read '
    'it, labels, tokens',
  )
  runs.add_sampling(flags)
  return flags


def prompts_of(
  run: TrainedRun, captions: Sequence[str], features: Sequence[str]
) -> Prompts | None:
  """The captions that a command line asks for, None for none.

  Raises:
    ConfigError: the generator reads no captions, or both are given.
    DataError: files that are not features.
  """
  if not captions and not features:
    return None
  block = run.config.data.get('text')
  if block is None:
    raise ConfigError(
      '--captions and --features are for generators that read captions; this '
      'one takes --labels'
    )
  if captions and features:
    raise ConfigError('wanted --captions or --features, got both')
  text = build(block, 'data.text')
  if captions:
    return of_captions(text, captions)
  return of_files(text, features)


def parse_labels(text: str, classes: Sequence[str]) -> list[int]:
  """'3, dog' -> indices into `classes`; '' and 'all' as the help says.

  Raises:
    ConfigError: see `read_labels`.
  """
  count = len(classes)
  if text == 'all':
    return list(range(count))
  if not text:
    every = max(1, -(-count // _SHOWN))
    return list(range(0, count, every))
  return list(dict.fromkeys(read_labels(text, classes)))


def read_labels(text: str, classes: Sequence[str]) -> list[int]:
  """'3, dog, tench, Tinca tinca' -> one index into `classes` for each.

  A part that is the name of a class is that class, even if it looks like a
  number. Of names with commas the longest that the text has is taken.

  Raises:
    ConfigError: neither a name nor a number in range.
  """
  plain = lambda name: ','.join(part.strip() for part in name.split(','))
  numbers = {plain(name): i for i, name in reversed([*enumerate(classes)])}
  longest = 1 + max(name.count(',') for name in classes)
  parts, labels = plain(text).split(','), []
  while parts:
    runs = range(min(longest, len(parts)), 0, -1)
    name = next(
      (','.join(parts[:k]) for k in runs if ','.join(parts[:k]) in numbers),
      None,
    )
    if name is None:
      name = parts[0]
      labels.append(_number_of_class(name, classes))
    else:
      labels.append(numbers[name])
    del parts[: name.count(',') + 1]
  return labels


def _number_of_class(part, classes):
  count = len(classes)
  if not re.fullmatch(r'-?\d+', part):
    known = suggest(part, classes) if count <= 100 else ''
    raise ConfigError(f'--labels={part!r}: no such class.{known}')
  if len(part) > 9 or not 0 <= int(part) < count:
    raise ConfigError(
      f'--labels={part}: there are {count} classes, 0 to {count - 1}'
    )
  return int(part)


def write(
  drawn: Sequence[Drawn],
  classes: Sequence[str],
  folder: pathlib.Path,
  npz: bool = False,
) -> None:
  """Writes grid.png, one PNG per image, and samples.npz if asked for.

  The folder appears whole, in the place of an older one.

  Args:
    drawn: the images of all calls.
    classes: names; one row of the grid for every class that was drawn.
    folder: to write.
    npz: whether to write samples.npz.
  """
  images, labels, tokens = (
    np.concatenate([getattr(d, name) for d in drawn])
    for name in ('images', 'labels', 'tokens')
  )
  partial = folder.with_name(f'.{folder.name}.partial')
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir(parents=True)
  rows = {classes[k]: images[labels == k] for k in dict.fromkeys(labels)}
  longest = max(len(row) for row in rows.values())
  # Rows of a single class may be as long as a square wants.
  columns = longest if len(rows) > 1 else None
  pictures.save(partial / 'grid.png', pictures.sheet(rows, columns))
  small = pictures.to_uint8(images)
  for i, (image, label) in enumerate(zip(small, labels)):
    plain = re.sub(r'[^\w-]+', '_', classes[label])[:60]
    image = image[..., 0] if image.shape[-1] == 1 else image
    pictures.save(partial / f'{i:05d}_{plain}.png', image)
  if npz:
    np.savez(partial / 'samples.npz', arr_0=small, labels=labels, tokens=tokens)
  shutil.rmtree(folder, ignore_errors=True)
  partial.rename(folder)
