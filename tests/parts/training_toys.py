"""A linear classifier of small noisy pictures, for tests of the train loop."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from arvision.data import stream
from arvision.metrics import Mean, Term
from arvision.tasks.base import Averages, GradientTask, Objective

CLASSES = 4


@dataclasses.dataclass(frozen=True)
class Data:
  """Pictures of 4 x 4 px whose brightest column is their class.

  That of the training example `broken` is not finite.
  """

  examples: int = 96
  broken: int = -1
  held_out_examples: int = 20
  classes: tuple[str, ...] = ('a', 'b', 'c', 'd')
  num_classes: int = CLASSES
  shape: tuple[int, int, int] = (4, 4, 1)

  def describe(self):
    return f'{self.examples} training and {self.held_out_examples} held out'

  def _batch(self, ranks, noise):
    label = (ranks % CLASSES).astype(np.int32)
    image = noise.reshape(-1, 4, 4, 1).astype(np.float32) - 0.5
    image[np.arange(len(label)), :, label] += 0.5
    caption = np.array([f'class {i}' for i in label], object)
    index = ranks.astype(np.int32)
    return {'image': image, 'label': label, 'index': index, 'caption': caption}

  def _train_batch(self, ranks, noise):
    noise = np.where((ranks == self.broken)[:, None], np.nan, noise)
    return self._batch(ranks, noise)

  def train(self, batch_size, seed, process_index=0, process_count=1):
    return stream.train_stream(
      examples=self.examples,
      batch_size=batch_size,
      seed=seed,
      assemble=self._train_batch,
      draws=16,
      reading=stream.Reading(1),
      process_index=process_index,
      process_count=process_count,
    )

  def held_out(self, batch_size, process_index=0, process_count=1):
    def assemble(ranks, weight):
      noise = np.random.default_rng(0).random((1000, 16))[ranks]
      return {**self._batch(ranks, noise), 'weight': weight}

    return stream.one_pass(
      examples=self.held_out_examples,
      batch_size=batch_size,
      assemble=assemble,
      reading=stream.Reading(0),
      process_index=process_index,
      process_count=process_count,
    )


def waves(key, shape, dtype=jnp.float32, shift=0):
  """Numbers in [-1, 1] that look random; real ones take long to compile."""
  del key
  at = jnp.arange(math.prod(shape), dtype=dtype).reshape(shape)
  return jnp.sin(12.9898 * (at + 78.233 * shift))


class Net(nn.Module):
  width: int

  @nn.compact
  def __call__(self, x):
    named = nn.with_logical_partitioning
    x = nn.Dense(
      self.width,
      kernel_init=named(waves, ('embed', 'mlp')),
      bias_init=named(nn.initializers.zeros, ('mlp',)),
      name='hidden',
    )(x)
    x = nn.with_logical_constraint(x, ('act_batch', 'act_mlp'))
    return nn.Dense(
      CLASSES, kernel_init=named(waves, ('mlp', 'embed')), name='out'
    )(jnp.tanh(x))


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Task(GradientTask):
  """Draws noise by (seed, step), as the tasks of the library do."""

  image_shape: tuple[int, int, int] = (4, 4, 1)
  ema: Averages = Averages((0.9,))
  width: int = 8
  bad_step: int = -1
  bad_update: int = -1
  bad_part: str = 'params'

  @property
  def net(self):
    return Net(self.width)

  def fresh(self, key):
    return self.net.init(key, jnp.zeros((1, 16)))['params']

  def extra(self):
    return {'seen': jnp.zeros((CLASSES,), jnp.int32)}

  def _loss(self, params, image, label):
    logits = self.net.apply({'params': params}, image.reshape(-1, 16))
    hit = jnp.float32(jnp.argmax(logits, -1) == label)
    cross = optax.softmax_cross_entropy_with_integer_labels
    return cross(logits, label), hit

  def rows(self, state, frozen, batch):
    noise = waves(None, batch['image'].shape, shift=self.seed + state.step)
    return {'image': batch['image'] + 0.1 * noise, 'label': batch['label']}

  def objective(self, params, state, frozen, rows, draw):
    each, hit = self._loss(params, rows['image'], rows['label'])
    each = jnp.where(state.step == self.bad_step, jnp.nan, each)
    seen = jnp.zeros((CLASSES,), jnp.int32).at[rows['label']].add(1)
    return Objective(
      {'each': Term(each)},
      metrics={'accuracy': Mean.of(hit)},
      aux={'seen': seen},
    )

  def after(self, state, aux):
    seen = state.extra['seen'] + aux['seen']
    new = state.replace(extra={'seen': seen})
    broken = jax.tree.map(
      lambda x: (
        jnp.where(state.step - 1 == self.bad_update, jnp.nan, x)
        if x.dtype == jnp.float32
        else x
      ),
      getattr(new, self.bad_part),
    )
    return new.replace(**{self.bad_part: broken}), {}

  def evaluate(self, params, frozen, batch):
    each, hit = self._loss(params, batch['image'], batch['label'])
    found = Objective(
      {'each': Term(each, batch['weight'])},
      metrics={'accuracy': Mean.of(hit, batch['weight'])},
    )
    return found.measured

  def check(self, frozen, batch):
    return {'images': batch['image'], 'decoded': -batch['image']}

  def pictures(self, params, frozen, batch):
    return {'negatives': -batch['image']}


def make_data(config: Any) -> Data:
  return Data(**config.toy_data)


def make_task(config: Any, data: Data, tx=None, frozen=None, steps=0) -> Task:
  del data
  return Task(
    tx=tx,
    ema=Averages(tuple(config.ema)),
    accumulate=config.optim.accumulate,
    seed=config.seed,
    frozen=frozen or {},
    **config.toy,
  )


def config(steps: int = 12, **changes) -> ConfigDict:
  """A config for `train`; `changes` are keys with dots for '__'."""
  c = ConfigDict(
    {
      'seed': 3,
      'data': {'batch_size': 16, 'threads': 1},
      'toy_data': {},
      'toy': {'width': 8, 'bad_step': -1},
      'train': {'duration': {'steps': steps}},
      'optim': {
        'type': 'training.optim.Optimizer',
        'learning_rate': 0.05,
        'weight_decay': 0.1,
        'clip': 1.0,
        'accumulate': 1,
        'schedule': {
          'type': 'training.schedule.WarmupCosine',
          'warmup': {'steps': 2},
        },
      },
      'ema': (0.9,),
      'mesh': {'data': -1},
      'checkpoint': {'every': {'steps': 5}, 'keep': 2},
      'log': {'every': {'steps': 3}},
      'pictures': {'every': {'steps': 6}, 'count': 6},
      'evals': {'every': {'steps': 6}},
    }
  )
  for key, value in changes.items():
    *path, last = key.split('__')
    block = c
    for name in path:
      block = block[name]
    block[last] = value
  return c


def run(config: ConfigDict, workdir: Any, **options):
  from arvision.runs.train import train

  made = {'make_data': make_data, 'make_task': make_task}
  return train(config, workdir, **made, **options)


def arrays(workdir: Any, step: int | None = None) -> dict[str, np.ndarray]:
  """Every array of a checkpoint, by path."""
  import pathlib

  from arvision.training.trees import load_tree

  folder = pathlib.Path(workdir) / 'checkpoints'
  if step is None:
    step = max(int(p.name) for p in folder.iterdir() if p.name.isdigit())
  tree = load_tree(folder / str(step) / 'state')
  text = lambda p: jax.tree_util.keystr(p, simple=True, separator='/')
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {text(path): np.asarray(leaf) for path, leaf in leaves}
