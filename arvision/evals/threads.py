"""Work on the host's cores: several numpy calls at once."""

import concurrent.futures
import os
from collections.abc import Callable, Iterable
from typing import Any

import threadpoolctl

# Most calls at once, so that their arrays fit into memory on large hosts.
_WORKERS = 8


def each(function: Callable[[Any], Any], items: Iterable) -> list:
  """[function(x) for x in items], several at once.

  The cores are divided among the calls: numpy's products use them all by
  themselves, but its other functions use one.

  Args:
    function: spends its time in numpy, which releases the interpreter lock.
    items: its arguments.
  """
  cores = os.cpu_count() or 1
  if hasattr(os, 'sched_getaffinity'):
    cores = len(os.sched_getaffinity(0))
  workers = min(cores, _WORKERS)
  with (
    threadpoolctl.threadpool_limits(max(1, cores // workers), 'blas'),
    concurrent.futures.ThreadPoolExecutor(workers) as pool,
  ):
    return [*pool.map(function, items)]
