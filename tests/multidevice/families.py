"""Tiny configs of published families on meshes of fake devices."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.build import build
from arvision.parallel.host import Placement
from arvision.parallel.mesh import make_mesh
from arvision.tasks import assemble
from arvision.tasks.base import TrainState
from arvision.training import schedule, start
from tests.configs import TINY

FAMILIES = {
  'var': 'var/tiny:d16',
  'llamagen': 'llamagen/tiny:B',
  'mar': 'mar/tiny:B',
  'xar': 'xar/tiny:cell',
  'flowar': 'flowar/tiny:S',
}

BATCH = 16


@dataclasses.dataclass(frozen=True)
class Data:
  """Stands for data: facts that a task reads, and batches of noise."""

  shape: tuple[int, int, int]
  num_classes: int
  examples: int = 64
  text: Any = None

  def batch(self, size: int, step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    image = rng.uniform(-1, 1, (size, *self.shape)).astype(np.float32)
    label = rng.integers(0, self.num_classes, size).astype(np.int32)
    return {'image': image, 'label': label}


def numbers(shapes: Any) -> Any:
  """Small numbers of these shapes, by numpy: random programs compile slowly."""
  rng = np.random.default_rng(0)
  leaves, structure = jax.tree.flatten(shapes)
  made = [rng.normal(0, 0.1, x.shape).astype(x.dtype) for x in leaves]
  return jax.tree.unflatten(structure, made)


class Family:
  """A tiny config, its data and its task, with random weights.

  Attributes:
    config: the config.
    task: of it.
  """

  def __init__(self, name: str, batch_size: int = BATCH, **optim):
    self.config = config = TINY[FAMILIES[name]]()
    with config.unlocked():
      config.data.batch_size = batch_size
      config.backbone.remat = 'dots'
      config.ema = (0.9,)
      config.optim.update(optim)
      # No warm-up: the first steps already move the parameters.
      config.optim.schedule = {'type': 'training.schedule.Constant'}
    shape = (*config.data.size, config.data.channels)
    self.data = Data(shape, config.condition.classes)
    clock = schedule.Clock(10, batch_size, self.data.examples)
    tokenizer = assemble.make_tokenizer(config)
    image = jnp.zeros((1, *shape))
    shapes = jax.eval_shape(tokenizer.init, jax.random.key(0), image)
    self.task = assemble.make_task(
      config,
      self.data,
      build(config.optim, 'optim').make(clock),
      {'tokenizer': numbers(nn.unbox(shapes))},
      clock.total,
    )

  def state(self, place: Placement) -> TrainState:
    """The same state on every mesh."""
    abstract = start.StateInit(self.task, place, 0).abstract
    params = numbers(abstract.params)
    state = abstract.replace(
      step=np.int32(0),
      params=params,
      opt_state=self.task.tx.init(params),
      ema=dict.fromkeys(abstract.ema, params),
    )
    put = lambda x, a: jax.device_put(np.array(x), a.sharding)
    return jax.tree.map(put, state, abstract)

  def train(self, sizes: dict[str, int], steps: int = 3):
    """Takes some steps on a mesh of as many devices as the sizes ask for.

    Returns:
      name -> metric of every step; the compiled step; and the state.
    """
    place = placement(sizes)
    state = self.state(place)
    frozen = place.put_whole(self.task.frozen)
    size = self.config.data.batch_size
    batches = [place.put_batch(self.data.batch(size, i)) for i in range(steps)]
    traced, names = start.trace_step(
      self.task, place, state, frozen, batches[0]
    )
    step, _ = start.compile_step(traced, place)
    found = []
    for batch in batches:
      state, packed = step(state, frozen, batch)
      found.append(np.asarray(packed))
    return dict(zip(names, np.stack(found, 1).tolist())), step, state


def placement(sizes: dict[str, int]) -> Placement:
  """A mesh of the first devices."""
  count = int(np.prod(list(sizes.values())))
  return Placement(make_mesh(sizes, jax.devices()[:count]))
