"""Shared by the benchmarks: threads, timing, FLOPs, tables and files."""

import argparse
import json
import os
import platform
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from arvision.runs.hardware import processor, vectors

DTYPES = ('float32', 'bfloat16')


def use_threads(count: int | None) -> None:
  """Limits this process, with JAX and torch, to some cores.

  Call it before JAX is imported: XLA starts a thread for every core that the
  process may use.

  Args:
    count: number of cores; None: all.
  """
  if count and hasattr(os, 'sched_setaffinity'):
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed[:count])
    os.environ['OMP_NUM_THREADS'] = str(min(count, len(allowed)))


def use_torch(threads: int | None, repeats: int) -> dict[str, Any]:
  """Limits PyTorch's threads; returns facts about it for `Table`."""
  import torch

  if threads:
    torch.set_num_threads(threads)
  return {
    'torch': torch.__version__,
    'threads': torch.get_num_threads(),
    'repeats': repeats,
  }


def parser(doc: str | None) -> argparse.ArgumentParser:
  """The flags of all benchmarks."""
  made = argparse.ArgumentParser(
    description=(doc or '').split('\n')[0],
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  made.add_argument('--json', help='file to write the rows to')
  made.add_argument('--repeats', type=int, default=3, help='of every timing')
  made.add_argument('--threads', type=int, help='cores to use; all by default')
  made.add_argument(
    '--quick', action='store_true', help='small sizes, to see that it runs'
  )
  return made


class Spent(NamedTuple):
  """Seconds of a call.

  Attributes:
    wall: wall time.
    cpu: CPU time of all threads of this process.
  """

  wall: float
  cpu: float


def spent(run: Callable[[], Any]) -> Spent:
  """Times a call until its arrays are ready."""
  import jax

  wall, cpu = time.perf_counter(), time.process_time()
  jax.block_until_ready(run())
  return Spent(time.perf_counter() - wall, time.process_time() - cpu)


def interleaved(
  runs: dict[str, Callable[[], Any]], repeats: int, warm: tuple[str, ...] = ()
) -> dict[str, tuple[Spent, list[Spent]]]:
  """Times several calls in turns, so that noise affects all alike.

  Args:
    runs: name -> call.
    repeats: turns after the first.
    warm: names of calls that were made before.

  Returns:
    name -> (time of the first call, which compiles; times of the others). For a
    warm call the first time is that of its first turn.
  """
  first = {name: spent(run) for name, run in runs.items() if name not in warm}
  times: dict[str, list[Spent]] = {name: [] for name in runs}
  for turn in range(repeats):
    names = list(runs) if turn % 2 == 0 else list(reversed(runs))
    for name in names:
      times[name].append(spent(runs[name]))
  return {name: (first.get(name, t[0]), t) for name, t in times.items()}


def best(run: Callable[[], Any], repeats: int) -> tuple[float, float]:
  """Wall seconds of the first call and of the fastest of the others."""
  first, times = interleaved({'': run}, repeats)['']
  return first.wall, min(t.wall for t in times)


def flops(function: Callable, *args) -> float:
  """FLOPs of the matmuls and convolutions of a function, see `plan.flops`."""
  import jax

  from arvision.plan.flops import count

  return count(jax.make_jaxpr(function)(*args)).total


def count(tree: Any) -> int:
  """Number of elements in a tree of arrays."""
  import jax

  return sum(x.size for x in jax.tree.leaves(tree))


def allocator() -> str:
  """The memory allocator: a preloaded library or libc, see launch/cpu.sh."""
  preloaded = os.environ.get('LD_PRELOAD', '')
  if found := re.search(r'lib(\w*malloc\w*)\.so', preloaded):
    return found[1]
  tuned = 'malloc.hugetlb=1' in os.environ.get('GLIBC_TUNABLES', '')
  name = platform.libc_ver()[0] or 'of the system'
  return f'{name} with large pages' if tuned else name


def hardware() -> dict[str, Any]:
  """The hardware and software of a measurement."""
  import jax

  cores = os.cpu_count()
  if hasattr(os, 'sched_getaffinity'):
    cores = len(os.sched_getaffinity(0))
  return {
    'device': jax.devices()[0].device_kind,
    'processor': f'{processor()} {vectors()}'.strip(),
    'cores': cores,
    'allocator': allocator(),
    'jax': jax.__version__,
  }


class Table:
  """Prints rows immediately, and keeps them for the JSON file.

  Attributes:
    rows: all rows so far.
  """

  def __init__(self, columns: dict[str, str], **about):
    """Prints the heading.

    Args:
      columns: key of a row -> heading and format, 'seconds:9.3f'.
      **about: facts about all rows, besides the hardware.
    """
    self._columns = {k: v.split(':') for k, v in columns.items()}
    self._about = {**hardware(), **about}
    self.rows: list[dict[str, Any]] = []
    print(', '.join(f'{k} {v}' for k, v in self._about.items()))
    heads = (f'{h:{_align(f)}}' for h, f in self._columns.values())
    print(' '.join(heads), flush=True)

  def add(self, **row) -> None:
    """Prints a row; keys without a column only go to the file."""
    self.rows.append(row)
    cells = []
    for key, (_, form) in self._columns.items():
      value = row.get(key)
      empty = value is None
      cells.append(
        f'{"" if empty else value:{_align(form) if empty else form}}'
      )
    print(' '.join(cells), flush=True)

  def save(self, path: str | None) -> None:
    """Writes all rows, if there is a path."""
    if path:
      with open(path, 'w', encoding='utf-8') as file:
        json.dump({**self._about, 'rows': self.rows}, file, indent=2)
        file.write('\n')


def _align(form: str) -> str:
  """The width of a format, for text: '9.3f' -> '>9', '<20' -> '<20'."""
  if form.startswith('<'):
    return form
  return '>' + form.split('.')[0].rstrip('dfs').lstrip('>')
