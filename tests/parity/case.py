"""Recorded numbers of an official implementation, and its weights."""

import dataclasses
import functools
import json
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.importers import files, table
from tests.parity.stated import NotCompared, Stated, generations

CASES = pathlib.Path(__file__).parent / 'cases'


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
  """A folder with `meta.json` and `io.npz`.

  Attributes:
    folder: of the case; siblings that it names lie beside it.
  """

  folder: pathlib.Path

  @functools.cached_property
  def meta(self) -> dict[str, Any]:
    return json.loads((self.folder / 'meta.json').read_text())

  @functools.cached_property
  def io(self) -> dict[str, np.ndarray]:
    with np.load(self.folder / 'io.npz') as arrays:
      return dict(arrays)

  @functools.cached_property
  def args(self) -> Stated:
    """The arguments of the official constructor."""
    return Stated('constructor', self.meta.get('constructor', {}))

  @functools.cached_property
  def config(self) -> Stated:
    """The options of the official functions of a case without a network."""
    return Stated('config', self.meta.get('config', {}))

  @functools.cached_property
  def optimizer(self) -> Stated:
    """The options of the optimizer of a training case."""
    return Stated('optimizer', self.meta.get('optimizer', {}))

  @functools.cached_property
  def runs(self) -> dict[str, Stated]:
    """Name of a recorded generation -> its options; 'gen' is the first."""
    return generations(self.meta.get('generation', {}))

  @functools.cached_property
  def training(self) -> Stated:
    """The options of the steps of a training case."""
    return Stated('training', self.meta.get('training', {}))

  @property
  def generation(self) -> Stated:
    """The options of the recorded generation."""
    return self.runs['gen']

  def sibling(self, name: str) -> 'Case':
    """Another case, beside this one or among those of the repository."""
    folders = self.folder.parent / name, CASES / name
    found = [folder for folder in folders if folder.is_dir()]
    if not found:
      raise NotCompared(f'there is no case {name} beside this one')
    return Case(found[0])

  def limit(self, name: str) -> float:
    """Largest difference of an array, as a share of its largest number."""
    limits = self.meta['suggested']
    limit = limits['strict_rel_to_max']
    if name.split('_')[0] == 'gen':
      limit = limits.get('strict_rel_to_max_generation', limit)
    return limits.get('strict_rel_to_max_per_array', {}).get(name, limit)

  def file(self) -> dict[str, Any]:
    """The official state dict, wrapped as a training checkpoint wraps it."""
    return {'epoch': 1, 'model': {'network': self.weights()}}

  def weights(self) -> dict[str, np.ndarray]:
    """The official state dict: official key -> array in torch's layout.

    Every tensor has its own stream of numpy's frozen legacy generator, seeded
    by the CRC-32 of '<weights_seed>:<key>'.
    """
    return {
      key: self._tensor(key, e) for key, e in self.meta['weights'].items()
    }

  def _tensor(self, key, entry):
    if 'std' in entry:
      code = zlib.crc32(f'{self.meta["weights_seed"]}:{key}'.encode())
      normal = np.random.RandomState(code).standard_normal(entry['shape'])
      return np.float32(entry['mean'] + entry['std'] * normal)
    if 'buffer' in entry:
      return self.io[entry['buffer']]
    return np.full(entry['shape'], entry.get('constant', np.nan), np.float32)


@dataclasses.dataclass(frozen=True)
class Part:
  """Our numbers for some entries of a recorded array.

  Attributes:
    values: ours.
    index: of the entries that they are.
  """

  values: Any
  index: Any


@dataclasses.dataclass(frozen=True)
class System:
  """How the arrays of a case are made.

  Attributes:
    outputs: case -> (name of an array, ours).
    inputs: arrays that `outputs` reads and that are not compared.
    limits: (case, name) -> largest differences allowed; None: as the case
      suggests for forward passes.
    absent: name -> why our parts do not have such an array.
  """

  outputs: Callable[[Case], Iterator[tuple[str, Any]]]
  inputs: set[str]
  limits: Callable[[Case, str], np.ndarray] | None = None
  absent: dict[str, str] = dataclasses.field(default_factory=dict)


def imported(case: Any, form: table.Table, shapes: Any) -> Any:
  """The parameters of a case, through the importer of released files.

  What export makes of them must be what came in.

  Args:
    case: a `Case`, whose weights are drawn.
    form: of the family.
    shapes: of our parameters.

  Raises:
    ValueError: export gives other keys or other numbers.
  """
  ours = table.paths(shapes)
  wanted = [k for row in form.rows(ours) for k in row.keys(ours[row.path])]
  _, weights = files.find_weights(case.file(), wanted)
  params = table.to_params(form, weights, shapes)
  # Buffers depend on the grids, their keys do not.
  back = table.to_weights(form, params, ((1, 1),))
  lost = [key for key in weights if key not in back]
  more = [k for k in back if k not in weights and not form.derived(k)]
  other = [
    key
    for key in weights
    if key in back
    and not form.derived(key)
    and not np.array_equal(weights[key], back[key])
  ]
  if lost or more or other:
    raise ValueError(f'export loses {lost}, invents {more} and changes {other}')
  return params


@dataclasses.dataclass(frozen=True)
class Subset:
  """A case of which some weights are taken.

  Attributes:
    case: a `Case`.
    takes: whether an official key is taken.
    prefix: what is left out of the keys that start with it.
  """

  case: Case
  takes: Callable[[str], bool]
  prefix: str = ''

  def file(self) -> dict[str, Any]:
    """The state dict of these weights."""
    weights = self.case.weights()
    return {
      k.removeprefix(self.prefix): w
      for k, w in weights.items()
      if self.takes(k)
    }


class Bound:
  """A module with the official weights, run as whole compiled programs."""

  def __init__(self, case: Case, module: nn.Module, form: table.Table):
    image = nhwc(case.io['image'])[:1]
    shapes = jax.eval_shape(module.init, jax.random.key(0), image)['params']
    self.module = module
    self.params = imported(case, form, nn.unbox(shapes))

  def __call__(self, f, *args):
    """f(bound module, *args)."""
    program = jax.jit(lambda p, *a: f(self.module.bind({'params': p}), *a))
    return program(self.params, *args)


def nhwc(x: np.ndarray) -> np.ndarray:
  """(..., c, h, w) -> (..., h, w, c)."""
  return np.moveaxis(x, -3, -1)


def nchw(x: Any) -> np.ndarray:
  """(..., h, w, c) -> (..., c, h, w)."""
  return np.moveaxis(np.asarray(x), -1, -3)


def intermediates(
  module: nn.Module, params: Any, *args: Any, **kwargs: Any
) -> tuple[Any, dict]:
  """What a method gives, and the tree of what all parts gave on the way.

  Args:
    module: an `ARModel`.
    params: of it.
    *args: of the method.
    **kwargs: of `apply`, with the method.
  """

  def keep(part, method):
    return method in ('__call__', '_embed')

  @jax.jit
  def run(params):
    out, seen = module.apply(
      {'params': params},
      *args,
      capture_intermediates=keep,
      mutable=['intermediates'],
      **kwargs,
    )
    return out, seen['intermediates']

  return run(params)


def captured(module: nn.Module, params: Any, *args: Any, **kwargs: Any) -> dict:
  """What the parts of a decoder gave out on the way, see `intermediates`.

  Returns:
    'embed' (b, n, d) what the first block is given; 'blocks' (layers, b, n, d)
    what every block gives, and the same of further stacks under their names;
    'condition', a `Cond`; and 'modules', all of it by the modules' names.
  """
  _, found = intermediates(module, params, *args, **kwargs)
  stacks = {
    name: part['layers']['block']['__call__'][0][0]
    for name, part in found['backbone'].items()
    if name.startswith('stack')
  }
  return {
    'embed': found['backbone']['_embed'][0],
    'blocks': stacks.pop('stack'),
    'condition': found['condition']['__call__'][0],
    'modules': found,
    **stacks,
  }


def no_null(batch: int) -> jax.Array:
  return jnp.zeros((batch,), bool)
