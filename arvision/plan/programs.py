"""The programs of a config, of shapes alone: a train step, and sampling.

They are those that `arvision train` and `arvision sample` run; no parameter and
no batch is ever made.
"""

import contextlib
import dataclasses
import math
import os
import pathlib
import re
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from arvision.build import build, value
from arvision.errors import ConfigError
from arvision.model import sample
from arvision.parallel.host import Placement
from arvision.random import Draw
from arvision.tasks import assemble
from arvision.training import schedule, start

KINDS = ('train', 'sample')
# Of an epoch, for durations. No shape depends on it.
_EXAMPLES = 1_281_167


@dataclasses.dataclass(frozen=True)
class Pictures:
  """What a task asks of its data, taken from the config.

  Attributes:
    shape: (H, W, C).
    num_classes: as many as the condition has.
    text: the block of captions' features, or None.
    examples: of an epoch.
  """

  shape: tuple[int, int, int]
  num_classes: int
  text: Any = None
  examples: int = _EXAMPLES


def pictures(config: ConfigDict) -> Any:
  """The data of a config as far as shapes go; files are opened only where the
  config says nothing: cached tokens, and a number of classes left to the data.
  """
  if 'size' not in config.data or assemble.open_classes(config):
    return assemble.make_data(config)
  classes = config.get('condition', {}).get('classes', 0)
  shape = (*config.data.size, value(config.data, 'channels'))
  return Pictures(shape, classes or 1, config.data.get('text'))


def data_facts(config: ConfigDict) -> list[Any]:
  """What a program of a config has from files of data; [] where nothing."""
  data = pictures(config)
  if isinstance(data, Pictures):
    return []
  spec = getattr(data, 'spec', {})
  stored = [spec.get(key) for key in ('tokens', 'dtype')]
  return [list(data.shape), data.num_classes, data.examples, *stored]


class Programs:
  """A config on a mesh.

  Attributes:
    parameters: how many are trained.
    batch_size: examples of a train step.
    state_bytes: of one device: parameters, moments and averages.
  """

  def __init__(
    self, config: ConfigDict, placement: Placement, cached: bool = False
  ):
    """Finds shapes and shardings; computes nothing.

    Args:
      config: whole.
      placement: on the mesh.
      cached: batches bring tokens, as `arvision encode` keeps them, where the
        config has images.

    Raises:
      ConfigError: parts that do not fit one another, parameters or a batch
        that the mesh does not divide.
    """
    data = pictures(config)
    config = assemble.complete(config, data)
    self._config, self._placement = config, placement
    clock = schedule.run_clock(config, data.examples)
    optimizer = build(config.optim, 'optim')
    self._shape = tuple(data.shape)
    self._cached = (
      cached or not isinstance(data, Pictures) and ('size' not in config.data)
    )
    self.batch_size = clock.batch_size
    self._task: Any = assemble.make_task(
      config, data, optimizer.make(clock), self._frozen(), clock.total
    )
    self._frozen_shapes = self._whole({**self._frozen(), **self._task.frozen})
    self._pieces = optimizer.accumulate
    origin = start.StateInit(self._task, placement, config.seed)
    self._state = origin.abstract
    leaves = jax.tree.leaves(self._state.params)
    self.parameters = sum(x.size for x in leaves)
    self.state_bytes = sum(map(_bytes_of_one, jax.tree.leaves(self._state)))

  def trace(self, kind: str, sample_batch: int = 0) -> Any:
    """A program as `jax.stages.Traced`.

    Args:
      kind: of `KINDS`.
      sample_batch: images that are drawn at once; 0: the batch of training.

    Raises:
      ConfigError: a batch that the mesh does not divide, or a tokenizer that
        is to be sampled from.
    """
    if kind == 'train':
      self._placement.check_batch(self.batch_size, self._pieces)
      return start.trace_step(
        self._task,
        self._placement,
        self._state,
        self._frozen_shapes,
        self._spread(self._batch(self.batch_size)),
      )[0]
    return self._trace_sample(sample_batch or self.batch_size)

  def _trace_sample(self, batch):
    if not assemble.is_generator(self._config):
      raise ConfigError(
        '--program=sample: the config is of a tokenizer, which draws nothing '
        'by itself; wanted --program=train'
      )
    if self._task.sampler is None:
      raise ConfigError(
        '--program=sample: the config has no config.sampler; wanted '
        '--program=train'
      )
    parts = self._placement.batch_parts
    if batch % parts:
      raise ConfigError(
        f'--sample_batch={batch} cannot be divided among {parts} devices '
        f'(config.mesh); make it a multiple of {parts}'
      )
    task = self._task
    tokenizer = task.sampler.tokenizer(task.tokenizer)

    def draw(params, variables, inputs, index):
      codec = tokenizer.bind(variables)
      keys = Draw.create(self._config.seed, index)
      tokens = sample(task.model, params, task.sampler, inputs, keys, codec)
      return codec.decode(tokens, keys), tokens.values

    inputs = _shapes(task.model.condition.blank(batch))
    index = jax.ShapeDtypeStruct((batch,), jnp.int32)
    with self._placement.scope():
      return jax.jit(draw, out_shardings=self._placement.batch).trace(
        self._state.params,
        self._frozen_shapes['tokenizer'],
        self._spread(inputs),
        self._spread(index),
      )

  def _frozen(self):
    """Shapes of what a run keeps in `frozen/`."""
    config = self._config
    if assemble.is_generator(config):
      tokenizer = assemble.make_tokenizer(config)
      return {'tokenizer': self._variables(tokenizer)}
    if 'teacher' in config.task:
      return {'teacher': self._variables(build(config.task.teacher, 'teacher'))}
    return {}

  def _variables(self, tokenizer):
    image = jax.ShapeDtypeStruct((1, *self._shape), jnp.float32)
    found = jax.eval_shape(tokenizer.init, jax.random.key(0), image)
    return {'params': nn.unbox(found['params'])}

  def _batch(self, size):
    image = jax.ShapeDtypeStruct((size, *self._shape), jnp.float32)
    if not assemble.is_generator(self._config):
      return {'image': image}
    task = self._task
    batch = _shapes(task.model.condition.blank(size))
    if not self._cached:
      return {'image': image, **batch}
    store = lambda variables, x: task.tokenizer.bind(variables).store(x)
    tokens = jax.eval_shape(store, self._frozen_shapes['tokenizer'], image)
    return {'tokens': tokens, **batch}

  def _whole(self, tree):
    return _lie(tree, self._placement.whole)

  def _spread(self, tree):
    return _lie(tree, self._placement.batch)


def _bytes_of_one(x):
  return math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize


def _shapes(tree):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def _lie(tree, sharding):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
  )


@dataclasses.dataclass(frozen=True)
class Compiled:
  """What the compiler made of a program.

  Attributes:
    text: of the optimised program of one device; '' where there is none.
    memory: name -> bytes on one device.
    refusal: why there is no program: what the compiler said of memory.
    rematerialised: arrays that the partitioner could only spread anew by making
      them whole on every device first.
    seconds: that it took.
  """

  text: str
  memory: dict[str, int]
  refusal: str = ''
  rematerialised: int = 0
  seconds: float = 0.0


def compile_program(traced: Any, placement: Placement) -> Compiled:
  """Compiles for the devices of a placement.

  The text is taken from what the compiler dumps: its programs cannot always be
  read back by a JAX of another version.
  """
  begin = time.perf_counter()
  with tempfile.TemporaryDirectory() as folder:
    options = {'xla_dump_to': folder, 'xla_dump_hlo_as_text': True}
    said: list[str] = []
    refusal, memory, text = '', {}, ''
    with placement.scope(), _standard_error(said):
      try:
        compiled = traced.lower().compile(compiler_options=options)
      except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
          raise
        refusal = _first_sentence(str(error))
      else:
        memory = _memory(compiled.memory_analysis())
        text = _dumped(pathlib.Path(folder))
  made_whole = sum('nvoluntary full remat' in line for line in said)
  seconds = time.perf_counter() - begin
  return Compiled(text, memory, refusal, made_whole, seconds)


def _memory(found) -> dict[str, int]:
  arguments = found.argument_size_in_bytes
  outputs = found.output_size_in_bytes - found.alias_size_in_bytes
  parts = {
    'arguments': arguments,
    'outputs': max(outputs, 0),
    'temporaries': found.temp_size_in_bytes,
    'code': found.generated_code_size_in_bytes,
  }
  return {**parts, 'total': sum(parts.values())}


def _dumped(folder: pathlib.Path) -> str:
  """The text of the largest program among what was dumped."""
  for ending in ('after_codegen', 'after_optimizations'):
    files = list(folder.glob(f'*.{ending}.txt'))
    if files:
      largest = max(files, key=lambda path: path.stat().st_size)
      return largest.read_text(encoding='utf-8')
  raise RuntimeError('the TPU compiler dumped no program')


def _first_sentence(text):
  text = re.sub(r'^.*?RESOURCE_EXHAUSTED:\s*', '', text, flags=re.DOTALL)
  return text.split('\n')[0].split(' HLO module')[0].strip()


@contextlib.contextmanager
def _standard_error(lines: list[str]) -> Iterator[None]:
  """Collects what the compiler, which is no Python, writes to stderr."""
  with tempfile.TemporaryFile() as file:
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
      yield
    finally:
      os.dup2(kept, 2)
      os.close(kept)
      file.seek(0)
      lines += file.read().decode(errors='replace').splitlines()
