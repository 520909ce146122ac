"""Plans a config: compiles its program ahead of time, or reads the cache."""

import dataclasses
import hashlib
import importlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh
from ml_collections import ConfigDict

import arvision
from arvision.build import resolve
from arvision.errors import ConfigError
from arvision.parallel import host
from arvision.parallel.mesh import AXES, make_mesh, mesh_shape
from arvision.parallel.rules import Rules
from arvision.plan import collectives, flops, programs, topology, traffic
from arvision.plan.report import Plan
from arvision.training.environment import version

# Source files that affect neither programs nor what is read from them.
_OUTSIDE = (
  'commands/',
  'evals/',
  'importers/',
  'data/',
  'plan/answer.py',
  'plan/chips.py',
  'plan/predict.py',
  'plan/report.py',
  'plan/topology.py',
)
# Environment variables with compiler flags.
_FLAGS = ('XLA_FLAGS', 'LIBTPU_INIT_ARGS')
# Share of a device's memory for parameters, moments and gradients.
_STATE_SHARE = 0.6


@dataclasses.dataclass(frozen=True)
class Question:
  """What to plan.

  Attributes:
    name: the value of --config.
    config: the complete config.
    where: the topology.
    kind: one of `programs.KINDS`.
    cached: see `programs.Programs`.
    sample_batch: see `programs.Programs.trace`.
  """

  name: str
  config: ConfigDict
  where: topology.Topology
  kind: str
  cached: bool = False
  sample_batch: int = 0

  def on(self, mesh: dict[str, int]) -> 'Question':
    """The same question on another mesh."""
    config = self.config.copy_and_resolve_references()
    with config.unlocked():
      config.mesh = ConfigDict(mesh)
    return dataclasses.replace(self, config=config.lock())

  def key(self) -> str:
    """The cache key of the plan."""
    shape = mesh_shape(self.config.mesh, self.where.devices)
    config = json.loads(self.config.to_json_best_effort())
    # -1 and the size that it resolves to are the same mesh.
    config.pop('mesh')
    asked = {
      'config': config,
      'mesh': dict(zip(AXES, shape)),
      'topology': str(self.where),
      'kind': self.kind,
      'cached': self.cached,
      'sample_batch': self.sample_batch,
      'data': programs.data_facts(self.config),
      'versions': {**versions(), **_packages()},
      'flags': {name: os.environ.get(name, '') for name in _FLAGS},
      'source': source_hash(),
      'own': {name: source_hash(path, ()) for name, path in _own(config)},
    }
    text = json.dumps(asked, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]

  def path(self) -> pathlib.Path:
    return host.cache_folder() / 'plans' / f'{self.key()}.json'


def versions() -> dict[str, str]:
  """Versions of jax and of the TPU compiler."""
  return {'jax': jax.__version__, 'libtpu': version('libtpu')}


def _packages():
  """Versions of other packages that affect programs."""
  names = ('jaxlib', 'flax', 'optax', 'numpy')
  return {name: version(name) for name in names}


def _own(block: Any) -> Iterator[tuple[str, pathlib.Path]]:
  """(name, path) of other packages whose parts a config uses."""
  values = block if isinstance(block, list) else [*block.values()]
  for value in values:
    if isinstance(value, dict | list):
      yield from _own(value)
  if isinstance(block, dict) and isinstance(block.get('type'), str):
    name = resolve(block['type']).__module__.split('.')[0]
    file = getattr(importlib.import_module(name), '__file__', None)
    if name != 'arvision' and file:
      path = pathlib.Path(file)
      yield name, path.parent if path.name == '__init__.py' else path


def source_hash(
  root: pathlib.Path | None = None, outside: tuple[str, ...] = _OUTSIDE
) -> str:
  """Hash of the source files of a package that affect programs.

  Args:
    root: folder or file; None: arvision.
    outside: prefixes of files to skip.
  """
  root = root or pathlib.Path(arvision.__file__).parent
  found = hashlib.sha256()
  for path in sorted(root.rglob('*.py')) if root.is_dir() else [root]:
    name = path.relative_to(root).as_posix()
    if not name.startswith(outside):
      found.update(name.encode() + b'\0' + path.read_bytes())
  return found.hexdigest()


def plan(
  question: Question,
  devices: Sequence[jax.Device] | None = None,
  again: bool = False,
) -> Plan:
  """Plans a config on its mesh.

  Args:
    question: what to plan.
    devices: devices of the topology; None: asks the compiler.
    again: compiles even if the plan is cached.

  Raises:
    ConfigError: a mesh that does not divide the devices, the parameters or the
      batch. The error lists meshes that do.
  """
  path = question.path()
  if path.exists() and not again:
    return dataclasses.replace(Plan.load(path), config=question.name)
  devices = topology.describe(question.where) if devices is None else devices
  config = question.config
  mesh = make_mesh(config.mesh, devices)
  placement = host.Placement(mesh, Rules(**config.get('rules', {})))
  try:
    program = programs.Programs(config, placement, question.cached)
    traced = program.trace(question.kind, question.sample_batch)
  except ConfigError as error:
    raise ConfigError(str(error) + _others(question)) from error
  counted = flops.count(traced.jaxpr)
  compiled = programs.compile_program(traced, placement)
  found = collectives.read(compiled.text) if compiled.text else []
  axes: dict[str, int] = {}
  for collective in found:
    along = '+'.join(collective.axes(mesh.shape))
    axes[along] = axes.get(along, 0) + collective.moved_bytes
  images = program.batch_size
  if question.kind == 'sample':
    images = question.sample_batch or images
  answer = Plan(
    kind=question.kind,
    config=question.name,
    topology=str(question.where),
    mesh={k: v for k, v in mesh.shape.items() if v > 1},
    images=images,
    parameters=program.parameters,
    memory=compiled.memory,
    refusal=compiled.refusal,
    layers={k: [c.useful, c.remat] for k, c in counted.layers.items()},
    unknown=counted.unknown,
    collectives=collectives.moved(found),
    axes={k: v for k, v in axes.items() if v},
    traffic=traffic.hbm_bytes(compiled.text) if compiled.text else 0,
    rematerialised=compiled.rematerialised,
    seconds=round(compiled.seconds, 1),
    versions=versions(),
  )
  answer.save(path)
  return answer


def _others(question: Question) -> str:
  """A line for an error that lists meshes which fit."""
  found = [mesh for mesh, _ in meshes(question)][:4]
  if not found:
    return ''
  texts = [
    ' '.join(f'--config.mesh.{k}={v}' for k, v in m.items()) for m in found
  ]
  return f'\nMeshes of {question.where} that divide all: ' + '; '.join(texts)


def meshes(question: Question) -> Iterator[tuple[dict[str, int], float]]:
  """Meshes that divide parameters and batch, the most promising first.

  Meshes that leave memory beside the state come first. Among them, those with
  the smallest `tensor` and then the smallest `fsdp` axis do.

  Yields:
    (axis -> size, bytes of the train state on one device).
  """
  count, batch = question.where.devices, question.config.data.batch_size
  if question.kind == 'sample' and question.sample_batch:
    batch = question.sample_batch
  pieces = 1
  if question.kind == 'train':
    pieces = question.config.optim.get('accumulate', 1)
  shapes = [
    {'data': count // fsdp // tensor, 'fsdp': fsdp, 'tensor': tensor}
    for tensor in (1, 2, 4, 8)
    if count % tensor == 0
    for fsdp in _divisors(count // tensor)
    if batch % (count // tensor * pieces) == 0
  ]
  rules = Rules(**question.config.get('rules', {}))
  found = []
  for shape in shapes:
    sizes = tuple(shape.get(axis, 1) for axis in AXES)
    # Only shapes matter, so the mesh needs no devices.
    mesh: Any = AbstractMesh(sizes, AXES)
    placement = host.Placement(mesh, rules)
    try:
      program = programs.Programs(question.config, placement, question.cached)
    except ConfigError:
      continue
    found.append((shape, program.state_bytes))
  limit = _STATE_SHARE * question.where.chip.hbm
  rank = lambda m: (m[1] > limit, m[0]['tensor'], m[0]['fsdp'])
  yield from sorted(found, key=rank)


def search(question: Question, limit: int) -> list[Plan]:
  """Plans the `limit` most promising meshes and returns the best first.

  Raises:
    ConfigError: no mesh divides parameters and batch.
  """
  candidates = [mesh for mesh, _ in meshes(question)][:limit]
  if not candidates:
    raise ConfigError(
      f'no mesh of the {question.where.devices} devices of {question.where} '
      f'divides the batch of {question.config.data.batch_size} and all '
      'parameters; change config.data.batch_size'
    )
  devices = topology.describe(question.where)
  found = [plan(question.on(mesh), devices) for mesh in candidates]
  return sorted(found, key=rank)


def rank(answer: Plan) -> tuple[bool, float]:
  """Sort key: plans that fit come first, by predicted time."""
  prediction = answer.prediction
  return (not answer.fits, prediction.step if prediction else float('inf'))


def _divisors(n: int) -> list[int]:
  return [d for d in range(1, n + 1) if n % d == 0]
