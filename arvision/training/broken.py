"""Broken pictures: found, counted and named before training starts."""

import json
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from arvision import atomic
from arvision.data.look import Looked, look
from arvision.data.split import Split
from arvision.errors import DataError
from arvision.parallel import host
from arvision.training.workdir import BROKEN

# Broken pictures that an error names; the report names all.
_NAMED = 3


def check(
  config: Any, data: Any, workdir: str | os.PathLike | None
) -> list[str]:
  """Looks at the pictures of a run, and tells its splits which are broken.

  The report in the folder names all of them, and a line on stderr says how many
  they are. A resumed run only looks at those of its report again.

  Args:
    config: the whole config; nothing is looked at without
      `check_data.seconds`, the longest time for each split.
    data: see `base.Data`; without `pictures` nothing is looked at.
    workdir: folder of the run; None writes no report.

  Returns:
    a line for each split without a broken picture.

  Raises:
    DataError: a split has more broken pictures than it may have, or pictures
      that cannot be used.
  """
  # Older runs have no such key.
  seconds = (config.get('check_data') or {}).get('seconds', 0.0)
  splits = getattr(data, 'pictures', {}) if seconds else {}
  if not splits:
    return []
  path = None if workdir is None else pathlib.Path(workdir) / BROKEN
  before = _read(path) if path else {}
  found = {}
  for name, split in splits.items():
    known = _again(split, before.get(name), seconds)
    # The folder may be on a disk that not all processes share.
    if not host.all_agree(known is not None) or known is None:
      known = _together(split, seconds)
    found[name] = known
    split.broken.files.update(known.broken)
  if path:
    _write(path, splits, found, seconds)
  lines = []
  for name, split in splits.items():
    _check_budget(name, split, found[name], path)
    line = _line(name, split, found[name], path)
    if not found[name].broken:
      lines.append(line)
    elif jax.process_index() == 0:
      print(line, file=sys.stderr)
  return lines


def _together(split: Split, seconds: float) -> Looked:
  """A look at the split in which every process has its part."""
  part = jax.process_index(), jax.process_count()
  own = look(split, seconds, part, lambda text: print(text, file=sys.stderr))
  if part[1] == 1:
    return own
  mask = np.isin(split.numbers, list(own.broken))
  masks = host.gather(np.packbits(mask)[None])
  seen = int(host.gather(np.array([own.seen])).sum())
  anywhere = np.unpackbits(masks, axis=1, count=len(mask)).any(0)
  broken = {
    i: own.broken.get(i) or _why(split, i)
    for i in split.numbers[anywhere].tolist()
  }
  return Looked(seen, broken, own.waits)


def _why(split, i):
  return split.look(i) or f'{split.name(i)}: another process cannot read it'


def _again(
  split: Split, report: Mapping[str, Any] | None, seconds: float
) -> Looked | None:
  """What an earlier look has found and still holds; None if it does not do."""
  try:
    if report is None or report['pictures'] != len(split):
      return None
    seen, rows = report['looked_at'], report['files']
    if seen < len(split) and report['seconds'] < seconds:
      return None
    names = {row['index']: row['name'] for row in rows}
    known = set(split.numbers.tolist()) if names else set()
    if any(i not in known or split.name(i) != n for i, n in names.items()):
      return None
  except (KeyError, TypeError):  # it is damaged
    return None
  now = {i: split.look(i) for i in names}
  return Looked(seen, {i: why for i, why in now.items() if why})


def _read(path):
  """The splits of a report, {} where there is none."""
  try:
    found = json.loads(path.read_text(encoding='utf-8'))['splits']
  except (OSError, ValueError, KeyError, TypeError, RecursionError):
    return {}
  return found if isinstance(found, dict) else {}


def _write(path, splits, found, seconds):
  if jax.process_index():
    return
  report = {
    name: {
      'source': split.source.place,
      'pictures': len(split),
      'looked_at': found[name].seen,
      'seconds': seconds,
      'broken': len(found[name].broken),
      'allowed': _allowed(split),
      'files': [
        {'index': i, 'name': split.name(i), 'why': why}
        for i, why in sorted(found[name].broken.items())
      ],
    }
    for name, split in splits.items()
  }
  text = json.dumps({'splits': report}, indent=2, ensure_ascii=False)
  with atomic.whole(path) as new:
    new.write_text(text + '\n', encoding='utf-8')


def _allowed(split):
  return int(split.broken.limit)


def _check_budget(name, split, looked, path):
  count, allowed = len(looked.broken), _allowed(split)
  if count <= allowed:
    return
  some = [looked.broken[i] for i in sorted(looked.broken)[:_NAMED]]
  rest = f', and {count - _NAMED} more' if count > _NAMED else ''
  where = f'{path} names all of them. ' if path else ''
  total, seen = len(split), looked.seen
  of = f'{total:,}' if seen == total else f'the {seen:,} looked at of {total:,}'
  raise DataError(
    f'{split.source.place}: {count:,} of {of} {name} pictures are broken, more '
    f'than the {allowed:,} that config.data.broken_share allows. {where}'
    'Repair or delete the files, or raise it:\n  ' + '\n  '.join(some) + rest
  )


def _line(name, split, looked, path):
  total, count, allowed = len(split), len(looked.broken), _allowed(split)
  extent = f'all {total:,}' if looked.seen == total else f'{looked.seen:,}'
  text = f'looked at {extent} {name} pictures of {split.source.place}: '
  text += f'{count:,} are broken' if count else 'none is broken'
  if count and path:
    text += f', named in {path}; others take their place'
  if looked.seen < total:
    text += (
      f'. There are {total:,}: a longer config.check_data.seconds looks at more'
    )
    if count * total > allowed * looked.seen:
      text += (
        f'. At this rate {count * total // looked.seen:,} are broken, more than '
        f'the {allowed:,} that config.data.broken_share allows'
      )
  if looked.waits:
    text += f'. At the end it still waited for {looked.waits}'
  return text
