"""Samples images of classes or captions from a trained generator.

    arvision sample --workdir=runs/var/digits --labels=3,1,4 --number=30
    arvision sample --workdir=runs/mine --captions 'a red ball' 'a blue ball'
    arvision sample --workdir=runs/var-d16 --labels=all --number=50 --npz

Writes a grid, and a PNG per image, to <workdir>/samples.
"""

import argparse
import collections
import contextlib
import math
import pathlib
import re
from collections.abc import Sequence

import jax
import numpy as np

from arvision.build import build, suggest
from arvision.commands import run_flags
from arvision.data import urls
from arvision.errors import ConfigError
from arvision.evals.generation import at_once, sample_batches
from arvision.parallel import host
from arvision.ranges import Batch, Many, number
from arvision.runs import measure, samples, targets
from arvision.runs.prompts import Prompts, of_captions, of_files
from arvision.runs.trained import TrainedRun
from arvision.training import pictures

# Number of classes by default.
_SHOWN = 16
# Value of --npz without a file.
INSIDE = pathlib.Path('')


def main(argv: list[str]) -> None:
  """`arvision sample`: writes <workdir>/samples/<name>/."""
  flags, run = run_flags.open_run(parser(), argv, several=True)
  if run.model is None:
    raise ConfigError(
      f"--workdir='{flags.workdir}' holds a tokenizer; name the workdir of a "
      'generator'
    )
  prompts = prompts_of(run, flags.captions, flags.features)
  # An unconditional generator has one nameless class.
  classes = prompts.names if prompts else measure.classes_of(run) or ('image',)
  chosen = parse_labels('all' if prompts else flags.labels, classes)
  name = run_flags.output_name(flags.name, f'seed{flags.seed}')
  labels = np.repeat(np.array(chosen, np.int32), flags.number)
  folder = pathlib.Path(flags.workdir) / 'samples' / name
  size = _npz_size(run, len(labels))
  targets.check_folder(folder, size=size * (flags.npz == INSIDE))
  if flags.npz not in (None, INSIDE):
    targets.check_file(flags.npz, '--npz', size)
    if flags.npz.resolve().is_relative_to(folder.resolve()):
      raise ConfigError(
        f"--npz={flags.npz} is in '{folder}', which is replaced; name a file "
        'elsewhere, or give --npz alone'
      )
  sample = run.sample_fn(
    prompts=prompts, at_once=flags.batch_size, **run_flags.sampling(flags)
  )
  size = at_once(sample, len(labels), flags.batch_size)
  kind = 'captions' if prompts else 'classes'
  host.say(
    f'sampling {len(labels):,} images of {len(chosen)} {kind}, {size} at once, '
    f'with {run_flags.weights_of(run)}'
  )
  balanced = not prompts and len(chosen) == len(measure.classes_of(run))
  order = (
    None if flags.npz is None else samples.shuffled(flags.seed, len(labels))
  )
  batches = samples.with_progress(
    sample_batches(sample, labels, size, order), len(labels)
  )
  if jax.process_index() == 0:
    png = flags.png
    if png is None:
      png = flags.npz is None or len(labels) <= samples.MANY
    with contextlib.ExitStack() as stack:
      partial = stack.enter_context(targets.whole_folder(folder))
      npz = None
      if order is not None:
        path = partial / 'samples.npz'
        if flags.npz != INSIDE:
          path = stack.enter_context(targets.whole_file(flags.npz, '--npz'))
        facts = {
          'labels': 'balanced' if balanced else '',
          'order': 'shuffled',
          'seed': flags.seed,
          'rounding': 'round',
          'step': int(run.step),
          'ema': run.ema,
          'sampling': run_flags.sampling(flags),
        }
        npz = samples.Npz(path, labels, order, facts, partial / 'tokens')
      out = stack.enter_context(
        samples.Samples(partial, classes, labels, png, npz)
      )
      for batch in batches:
        out.add(batch)
  else:
    collections.deque(batches, maxlen=0)
  # JAX kills processes that end long after the others.
  host.barrier('written')
  if note := pictures.enlarged(*run.config.data.size):
    host.say(note)
  host.say(f'{folder / "grid.png"}')
  if order is not None:
    path = folder / 'samples.npz' if flags.npz == INSIDE else flags.npz
    host.say(f'{path}, in an order shuffled by --seed={flags.seed}')


def parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  flags = run_flags.parser('sample', __doc__)
  flags.add_argument(
    '--labels',
    default='',
    metavar='LIST',
    help="names or numbers of classes, separated by commas, or 'all'; names may "
    "contain commas ('tench, Tinca tinca, dog' are two); default: all, but at "
    f'most {_SHOWN} of them',
  )
  flags.add_argument(
    '--captions',
    nargs='+',
    default=[],
    metavar='TEXT',
    help='captions, for generators that read captions',
  )
  flags.add_argument(
    '--features',
    nargs='+',
    default=[],
    metavar='FILE.npy',
    help='features of captions, (tokens, channels), from the text encoder of '
    'the training data',
  )
  flags.add_argument(
    '--number',
    type=number(Many),
    default=8,
    help='images per class or caption (8)',
  )
  flags.add_argument(
    '--batch_size',
    type=number(Batch),
    help='images per call; default: up to 64 as fit into memory',
  )
  flags.add_argument(
    '--name',
    default='',
    help='name of the folder in <workdir>/samples, which is replaced; default: '
    'seed<seed>',
  )
  flags.add_argument(
    '--npz',
    nargs='?',
    const=INSIDE,
    type=pathlib.Path,
    metavar='FILE',
    help='also write an .npz file for evaluation suites: arr_0 (n, H, W, C) '
    'uint8, shuffled by --seed, with labels, tokens and order; default: '
    'samples.npz in the folder',
  )
  flags.add_argument(
    '--png',
    action=argparse.BooleanOptionalAction,
    help='write a PNG per image; default: yes, but not with --npz and over '
    f'{samples.MANY:,} images',
  )
  run_flags.add_sampling(flags)
  return flags


def _npz_size(run: TrainedRun, count: int) -> int:
  """Expected bytes of samples.npz."""
  data, spec = run.config.data, run.tokenizer.spec
  image = math.prod(data.size) * data.channels
  return count * (image + 4 * math.prod(spec.shape))


def prompts_of(
  run: TrainedRun, captions: Sequence[str], features: Sequence[str]
) -> Prompts | None:
  """The prompts of --captions or --features, None without them.

  Raises:
    ConfigError: the generator reads no captions, or both flags are given.
    DataError: a file has no features.
  """
  if not captions and not features:
    return None
  block = run.config.data.get('text')
  if block is None:
    raise ConfigError(
      '--captions and --features need a generator that reads captions; use '
      '--labels for this one'
    )
  if captions and features:
    raise ConfigError('wanted --captions or --features, got both')
  text = build(urls.here(block), 'data.text')
  if not captions:
    return of_files(text, features)
  for caption in captions:
    if words := run.data.unknown_words(caption):
      host.say(
        f"--captions='{caption}': no training caption has "
        f'{", ".join(map(repr, words))}; the generator cannot know what that is'
      )
  return of_captions(text, captions)


def parse_labels(text: str, classes: Sequence[str]) -> list[int]:
  """Parses --labels: '3, dog' -> indices into `classes`, without duplicates.

  'all' gives all classes, and '' up to 16 of them.

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
  """Parses classes: '3, dog, tench, Tinca tinca' -> indices into `classes`.

  Names have priority over numbers, and longer names with commas over shorter
  ones.

  Raises:
    ConfigError: a part is neither a name nor a number in range.
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
    raise ConfigError(f'--labels={part}: wanted a class from 0 to {count - 1}')
  return int(part)
