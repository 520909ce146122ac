"""Traces and compiles the programs of a config from shapes alone.

The train step is that of `arvision train`. Sampling draws tokens and decodes
them in one program, like the pictures of a training run; `arvision sample` runs
the two one after the other. No parameter and no batch is allocated.
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

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from arvision.build import build, value
from arvision.errors import ConfigError
from arvision.model import sample_images
from arvision.parallel.host import Placement
from arvision.random import Draw
from arvision.tasks import assemble
from arvision.training import frozen, schedule, start

KINDS = ('train', 'sample')
# Examples of an epoch, for durations. No shape depends on it.
_EXAMPLES = 1_281_167


@dataclasses.dataclass(frozen=True)
class Pictures:
  """Stands for the data of a run: what a task reads from it, no files.

  Attributes:
    shape: (H, W, C).
    num_classes: number of classes of the condition.
    text: config block of the caption features, or None.
    examples: examples of an epoch.
  """

  shape: tuple[int, int, int]
  num_classes: int
  text: Any = None
  examples: int = _EXAMPLES


def pictures(config: ConfigDict) -> Any:
  """Stands for the data of a config.

  Files are opened only for what the config does not state: cached tokens, and a
  number of classes that is left to the data.
  """
  if 'size' not in config.data or assemble.open_classes(config):
    return assemble.make_data(config)
  classes = config.get('condition', {}).get('classes', 0)
  shape = (*config.data.size, value(config.data, 'channels'))
  return Pictures(shape, classes or 1, config.data.get('text'))


def data_facts(config: ConfigDict) -> list[Any]:
  """What the programs of a config depend on in data files; [] for nothing."""
  data = pictures(config)
  if isinstance(data, Pictures):
    return []
  spec = getattr(data, 'spec', {})
  stored = [spec.get(key) for key in ('tokens', 'dtype')]
  return [list(data.shape), data.num_classes, data.examples, *stored]


class Programs:
  """The programs of a config on a mesh.

  Attributes:
    parameters: number of trained parameters.
    batch_size: examples of a train step.
    state_bytes: bytes of parameters, moments and EMA on one device.
  """

  def __init__(
    self, config: ConfigDict, placement: Placement, cached: bool = False
  ):
    """Derives shapes and shardings; computes nothing.

    Args:
      config: the complete config.
      placement: the mesh and its rules.
      cached: batches hold the tokens that `arvision encode` writes, not images.

    Raises:
      ConfigError: parts that do not fit together, or parameters that the mesh
        does not divide.
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
      config,
      data,
      optimizer.make(clock),
      frozen.shapes(config, self._shape),
      clock.total,
    )
    self._frozen_shapes = self._whole(self._task.frozen)
    self._pieces = optimizer.accumulate
    self._state = start.StateInit(self._task, placement, config.seed).abstract
    leaves = jax.tree.leaves(self._state.params)
    self.parameters = sum(x.size for x in leaves)
    self.state_bytes = sum(map(_bytes_per_device, jax.tree.leaves(self._state)))

  def trace(self, kind: str, sample_batch: int = 0) -> jax.stages.Traced:
    """Traces a program, a `jax.stages.Traced`.

    Args:
      kind: one of `KINDS`.
      sample_batch: images sampled at once; 0: the training batch size.

    Raises:
      ConfigError: a batch that the mesh does not divide, or a config without a
        sampler.
    """
    if kind == 'train':
      self._placement.check_batch(self.batch_size, self._pieces)
      return start.trace_step(
        self._task,
        self._placement,
        self._state,
        self._frozen_shapes,
        self._sharded(self._batch(self.batch_size)),
      )[0]
    return self._trace_sample(sample_batch or self.batch_size)

  def _trace_sample(self, batch):
    if not assemble.is_generator(self._config):
      raise ConfigError(
        '--program=sample: the config trains a tokenizer, which cannot be '
        'sampled from; wanted --program=train'
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

    def images_and_tokens(params, variables, inputs, index):
      codec = tokenizer.bind(variables)
      keys = Draw.create(self._config.seed, index)
      images, tokens = sample_images(
        task.model, params, task.sampler, inputs, keys, codec
      )
      return images, tokens.values

    inputs = _shapes(task.model.condition.blank(batch))
    index = jax.ShapeDtypeStruct((batch,), jnp.int32)
    with self._placement.scope():
      return jax.jit(
        images_and_tokens, out_shardings=self._placement.batch
      ).trace(
        self._state.params,
        self._frozen_shapes['tokenizer'],
        self._sharded(inputs),
        self._sharded(index),
      )

  def _batch(self, size):
    image = jax.ShapeDtypeStruct((size, *self._shape), jnp.float32)
    if not assemble.is_generator(self._config):
      return {'image': image, **_shapes(self._task.tokenizer.blank(size))}
    task = self._task
    batch = _shapes(task.model.condition.blank(size))
    values = image
    if self._cached:
      store = lambda variables, x: task.tokenizer.bind(variables).store(x)
      values = jax.eval_shape(store, self._frozen_shapes['tokenizer'], image)
    if count := self._config.data.get('companions', 0):
      shape = size, count, *values.shape[1:]
      batch['companions'] = jax.ShapeDtypeStruct(shape, values.dtype)
    return {'tokens' if self._cached else 'image': values, **batch}

  def _whole(self, tree):
    return _with_sharding(tree, self._placement.whole)

  def _sharded(self, tree):
    return _with_sharding(tree, self._placement.batch)


def _bytes_per_device(x):
  return math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize


def _shapes(tree):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def _with_sharding(tree, sharding):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
  )


@dataclasses.dataclass(frozen=True)
class Compiled:
  """A compiled program.

  Attributes:
    text: optimized HLO for one device; '' if it does not fit into memory.
    memory: name -> bytes on one device.
    refusal: the compiler's message if the program does not fit into memory.
    rematerialised: arrays that the partitioner replicated on every device in
      order to reshard them.
    seconds: compile time.
  """

  text: str
  memory: dict[str, int]
  refusal: str = ''
  rematerialised: int = 0
  seconds: float = 0.0


def compile_program(
  traced: jax.stages.Traced, placement: Placement
) -> Compiled:
  """Compiles for the devices of a placement.

  The text comes from the compiler's dump, because JAX cannot always read back
  programs of the TPU compiler.
  """
  begin = time.perf_counter()
  with tempfile.TemporaryDirectory() as folder:
    options = {'xla_dump_to': folder, 'xla_dump_hlo_as_text': True}
    log: list[str] = []
    refusal, memory, text = '', {}, ''
    with placement.scope(), _standard_error(log):
      try:
        compiled = traced.lower().compile(compiler_options=options)
      except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
          raise
        refusal = _first_sentence(str(error))
      else:
        memory = _memory(compiled.memory_analysis())
        text = _dumped(pathlib.Path(folder))
  replicated = sum('nvoluntary full remat' in line for line in log)
  seconds = time.perf_counter() - begin
  return Compiled(text, memory, refusal, replicated, seconds)


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
  """The text of the largest program in the dump."""
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
  """Collects the lines that the compiler, native code, writes to stderr."""
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
