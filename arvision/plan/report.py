"""A plan as numbers, as JSON and as text."""

import dataclasses
import json
import pathlib
from typing import Any

from arvision import atomic
from arvision.plan import topology as topologies
from arvision.plan.chips import Chip
from arvision.plan.predict import EFFICIENCY, EXPOSED, Prediction, predict


@dataclasses.dataclass(frozen=True)
class Plan:
  """A program of a config on a mesh, compiled.

  Attributes:
    kind: 'train' or 'sample'.
    config: the value of --config.
    topology: 'v5p:4x4x4'.
    mesh: axis -> size, without axes of size 1.
    images: images per step, on all devices.
    parameters: number of trained parameters.
    memory: name -> bytes on one device; empty after a refusal.
    refusal: see `programs.Compiled`.
    layers: module -> [useful FLOPs, rematerialized FLOPs].
    unknown: loops with unknown trip count, each counted once.
    collectives: kind -> bytes that one device sends.
    axes: mesh axes joined by '+' -> bytes that one device sends along them.
    traffic: HBM bytes that one device reads and writes.
    rematerialised: see `programs.Compiled`.
    seconds: compile time.
    versions: versions of jax and libtpu.
  """

  kind: str
  config: str
  topology: str
  mesh: dict[str, int]
  images: int
  parameters: int
  memory: dict[str, int]
  refusal: str
  layers: dict[str, list[float]]
  unknown: int
  collectives: dict[str, int]
  axes: dict[str, int]
  traffic: int
  rematerialised: int
  seconds: float
  versions: dict[str, str]

  @property
  def where(self) -> topologies.Topology:
    return topologies.parse(self.topology)

  @property
  def chip(self) -> Chip:
    return self.where.chip

  @property
  def fits(self) -> bool:
    """Whether the program fits into the memory of a device."""
    return not self.refusal and self.memory['total'] <= self.chip.hbm

  @property
  def useful(self) -> float:
    return sum(useful for useful, _ in self.layers.values())

  @property
  def flops(self) -> float:
    return sum(useful + remat for useful, remat in self.layers.values())

  @property
  def moved(self) -> int:
    return sum(self.collectives.values())

  @property
  def prediction(self) -> Prediction | None:
    """None if the program does not fit."""
    if self.refusal:
      return None
    return predict(
      self.chip,
      devices=self.where.devices,
      images=self.images,
      flops=self.flops,
      useful=self.useful,
      traffic=self.traffic,
      moved=self.moved,
    )

  def save(self, path: pathlib.Path) -> None:
    """Writes JSON atomically."""
    with atomic.whole(path) as new:
      new.write_text(json.dumps(dataclasses.asdict(self), indent=1))

  @classmethod
  def load(cls, path: pathlib.Path) -> 'Plan':
    return cls(**json.loads(path.read_text()))

  def to_json(self) -> dict[str, Any]:
    """All fields, `fits` and the prediction."""
    found = dataclasses.asdict(self) | {'fits': self.fits}
    if self.prediction is not None:
      prediction = self.prediction
      found['prediction'] = {
        **dataclasses.asdict(prediction),
        'step': prediction.step,
        'bound': prediction.bound,
      }
    return found


def mesh_text(mesh: dict[str, int]) -> str:
  """'data=8, fsdp=8'."""
  return ', '.join(f'{k}={v}' for k, v in mesh.items()) or 'one device'


def text(plan: Plan) -> str:
  """The plan as `arvision plan` prints it."""
  what = {'train': 'a train step', 'sample': 'sampling and decoding'}[plan.kind]
  versions = ', '.join(f'{k} {v}' for k, v in plan.versions.items())
  lines = [
    f'{what} of {plan.config} on {plan.topology} ({mesh_text(plan.mesh)})',
    f'  {plan.parameters:,} parameters, {plan.images:,} images at once; '
    f'{versions}',
    '',
    *_memory(plan),
    '',
    *_flops(plan),
  ]
  if plan.prediction is not None:
    lines += ['', *_collectives(plan), '', *_prediction(plan, plan.prediction)]
  return '\n'.join(lines)


def _memory(plan):
  limit = plan.chip.hbm
  if plan.refusal:
    return [
      f'  DOES NOT FIT into the {gib(limit)} of a device. The compiler: '
      f'{plan.refusal}',
      '  Shard the parameters further (config.mesh.fsdp), take a smaller batch '
      'or more accumulation steps (config.optim.accumulate), or rematerialize '
      "more (config.backbone.remat='full').",
    ]
  lines = [f'  {name:<14}{gib(size):>12}' for name, size in plan.memory.items()]
  verdict = 'fits' if plan.fits else 'DOES NOT FIT'
  return [
    f'  memory of a device: {verdict} into {gib(limit)}',
    *(f'  {line}' for line in lines),
  ]


def _flops(plan):
  total = plan.flops
  remat = total - plan.useful
  lines = [
    f'  {total / 1e12:,.1f} TFLOP per step on all devices, of which '
    f'{remat / 1e12:,.1f} are rematerialization'
  ]
  largest = sorted(plan.layers.items(), key=lambda item: -sum(item[1]))
  for name, counts in largest[:8]:
    share = 100 * sum(counts) / total if total else 0
    lines.append(f'    {share:5.1f} %  {name}')
  if plan.unknown:
    lines.append(
      f'    {plan.unknown} loops have an unknown trip count and are counted '
      'once, so predicted times are too short'
    )
  return lines


def _collectives(plan):
  lines = [f'  sent by a device in a step: {gib(plan.moved)}']
  for kind, size in sorted(plan.collectives.items(), key=lambda x: -x[1]):
    lines.append(f'    {kind:<20}{gib(size):>12}')
  for axes, size in sorted(plan.axes.items(), key=lambda x: -x[1]):
    lines.append(f'    along {axes:<14}{gib(size):>12}')
  if plan.rematerialised:
    lines.append(
      f'    {plan.rematerialised} arrays are replicated on every device to be '
      'resharded'
    )
  return lines


def _prediction(plan, found):
  chip = plan.chip
  return [
    f'  PREDICTION from published figures ({chip.source}), not measured:',
    f'    compute      {milliseconds(found.compute)}  FLOPs / '
    f'({EFFICIENCY} x {chip.flops / 1e12:g} TFLOP/s)',
    f'    memory       {milliseconds(found.memory)}  {gib(plan.traffic)} / '
    f'{chip.hbm_bandwidth / 1e9:g} GB/s',
    f'    collectives  {milliseconds(found.collectives)}  {EXPOSED} x '
    f'{gib(plan.moved)} / {chip.interconnect / 1e9:g} GB/s',
    f'    a step       {milliseconds(found.step)}  the larger of the first '
    'two, and the third',
    f'    {found.images_per_second:,.0f} images/s, MFU '
    f'{100 * found.mfu:.1f} %; the largest term is {found.bound}',
  ]


def gib(size: float) -> str:
  """'1.23 GiB', '1.2 MiB'."""
  if size < 2**30:
    return f'{size / 2**20:,.1f} MiB'
  return f'{size / 2**30:,.2f} GiB'


def milliseconds(seconds: float) -> str:
  return f'{1e3 * seconds:9.1f} ms'
