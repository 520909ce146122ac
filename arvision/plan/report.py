"""What a plan says, as numbers, as JSON and as text."""

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
  """A program of a config on the mesh of a topology.

  Attributes:
    kind: 'train' or 'sample'.
    config: what --config names.
    topology: 'v5p:4x4x4'.
    mesh: axis -> size, of axes of more than one.
    images: of a step, on all devices.
    parameters: that are trained.
    memory: name -> bytes on one device; empty where it was refused.
    refusal: what the compiler said instead of giving a program.
    layers: module -> [useful FLOPs, FLOPs that are computed again].
    unknown: loops whose rounds are not known, counted as one.
    collectives: kind -> bytes that one device sends.
    axes: mesh axes with a '+' between -> bytes that are sent along them.
    traffic: bytes of HBM that one device reads and writes.
    rematerialised: see `programs.Compiled`.
    seconds: that compiling took.
    versions: of jax and libtpu.
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
    """Whether a device has the memory."""
    return not self.refusal and self.memory['total'] <= self.chip.hbm

  @property
  def useful(self) -> float:
    return sum(useful for useful, _ in self.layers.values())

  @property
  def flops(self) -> float:
    return sum(useful + again for useful, again in self.layers.values())

  @property
  def moved(self) -> int:
    return sum(self.collectives.values())

  @property
  def prediction(self) -> Prediction | None:
    """None where there is no program."""
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
    """Writes JSON, whole or not at all."""
    with atomic.whole(path) as new:
      new.write_text(json.dumps(dataclasses.asdict(self), indent=1))

  @classmethod
  def load(cls, path: pathlib.Path) -> 'Plan':
    return cls(**json.loads(path.read_text()))

  def to_json(self) -> dict[str, Any]:
    """All fields, and what follows from them."""
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
      '  Spread the parameters further (config.mesh.fsdp), take a smaller '
      'batch or more pieces of it (config.optim.accumulate), or keep less '
      "(config.backbone.remat='full').",
    ]
  lines = [f'  {name:<14}{gib(size):>12}' for name, size in plan.memory.items()]
  verdict = 'fits' if plan.fits else 'DOES NOT FIT'
  return [
    f'  memory of a device: {verdict} into {gib(limit)}',
    *(f'  {line}' for line in lines),
  ]


def _flops(plan):
  total = plan.flops
  again = total - plan.useful
  lines = [
    f'  {total / 1e12:,.1f} TFLOP in a step on all devices, of which '
    f'{again / 1e12:,.1f} are computed again to save memory'
  ]
  largest = sorted(plan.layers.items(), key=lambda item: -sum(item[1]))
  for name, counts in largest[:8]:
    share = 100 * sum(counts) / total if total else 0
    lines.append(f'    {share:5.1f} %  {name}')
  if plan.unknown:
    lines.append(
      f'    {plan.unknown} loops run an unknown number of times; one round of '
      'each is counted, so that times are too short'
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
      f'    {plan.rematerialised} arrays are made whole on every device to be '
      'spread anew'
    )
  return lines


def _prediction(plan, found):
  chip = plan.chip
  return [
    f'  PREDICTION from published figures ({chip.source}), not measured:',
    f'    products     {milliseconds(found.compute)}  FLOPs / '
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
