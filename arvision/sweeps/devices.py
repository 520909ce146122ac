"""Shares the accelerators, or the cores, of a machine among processes."""

import importlib.util
import os
import pathlib
from collections.abc import Mapping, Sequence

from arvision.errors import ConfigError

# Variables that say how many threads the libraries of a process start: those of
# XLA, and of the products of numpy.
_THREADS = (
  'NPROC',
  'OMP_NUM_THREADS',
  'OPENBLAS_NUM_THREADS',
  'MKL_NUM_THREADS',
)
# Chips of a TPU process -> the grid that they form.
_TPU_BOUNDS = {1: '1,1,1', 2: '1,2,1', 4: '2,2,1', 8: '2,4,1'}


def shares(
  jobs: int,
  devices: Sequence[str] = (),
  environ: Mapping[str, str] = os.environ,
) -> list[dict[str, str]]:
  """Environment variables of every process of several at once.

  A single process gets everything, and no variables unless devices are named.

  Args:
    jobs: number of processes.
    devices: numbers of the accelerators to use; () for all that are found.
    environ: the environment.

  Raises:
    ConfigError: fewer accelerators than processes, no accelerator where some
      are named, or shares that a TPU cannot have.
  """
  kind, found = accelerators(environ)
  if devices and not kind:
    raise ConfigError(
      f'--devices={",".join(devices)}: this machine has no accelerator that '
      'JAX would use; leave it out'
    )
  if jobs == 1 and not devices:
    return [{}]
  if not kind:
    threads = str(max(1, cores() // jobs))
    return [dict.fromkeys(_THREADS, threads) for _ in range(jobs)]
  found = list(devices) or found
  size = len(found) // jobs
  if not size:
    raise ConfigError(
      f'--jobs={jobs}: wanted at most {len(found)}, the accelerators of this '
      f'machine ({",".join(found)})'
    )
  parts = [found[i * size : (i + 1) * size] for i in range(jobs)]
  if kind == 'gpu':
    return [{'CUDA_VISIBLE_DEVICES': ','.join(part)} for part in parts]
  if size not in _TPU_BOUNDS:
    raise ConfigError(
      f'--jobs={jobs}: {size} chips for every run; a TPU process has 1, 2, 4 '
      'or 8'
    )
  return [
    {
      'TPU_VISIBLE_CHIPS': ','.join(part),
      'TPU_CHIPS_PER_PROCESS_BOUNDS': _TPU_BOUNDS[size],
      'TPU_PROCESS_BOUNDS': '1,1,1',
    }
    for part in parts
  ]


def cores() -> int:
  """The cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def accelerators(
  environ: Mapping[str, str], root: pathlib.Path = pathlib.Path('/dev')
) -> tuple[str, list[str]]:
  """('gpu' or 'tpu', numbers of the devices), or ('', []) for CPUs.

  Looks for files of drivers and plugins of JAX, since asking JAX would take the
  devices away from the processes that are to use them.
  """
  platforms = environ.get('JAX_PLATFORMS', '')
  if platforms and not {'gpu', 'cuda', 'tpu'} & {*platforms.split(',')}:
    return '', []
  gpus = [*root.glob('nvidia[0-9]*')]
  if gpus and any(map(_installed, ('jax_cuda13_plugin', 'jax_cuda12_plugin'))):
    return 'gpu', _visible(environ, 'CUDA_VISIBLE_DEVICES', len(gpus))
  chips = [*root.glob('accel[0-9]*'), *root.glob('vfio/[0-9]*')]
  if chips and _installed('libtpu'):
    return 'tpu', _visible(environ, 'TPU_VISIBLE_CHIPS', len(chips))
  return '', []


def _installed(package):
  return importlib.util.find_spec(package) is not None


def _visible(environ, name, count):
  stated = environ.get(name, '')
  return stated.split(',') if stated else [str(i) for i in range(count)]
