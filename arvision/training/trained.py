"""A trained run, opened for use: what sample, eval, encode and notebooks take.

run = load_run('runs/digits/var')
images, tokens = run.sample_fn(seed=7)(labels, index)
"""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from arvision.build import ConfigError, build, check
from arvision.data.base import Data
from arvision.model import ARModel, sample
from arvision.parallel import host
from arvision.parallel.host import Placement
from arvision.parallel.mesh import make_mesh
from arvision.parallel.rules import Rules
from arvision.process.editing import kept_tokens
from arvision.ranges import Guidance, Natural, Seed, Share, Temperature
from arvision.samplers.base import Known
from arvision.structs import Draw, Tokens
from arvision.tasks import assemble
from arvision.training import checkpoint, frozen
from arvision.training.prompts import Prompts, of_classes


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedRun:
  """The parts of a run with their weights.

  Attributes:
    config: of the run.
    step: optimizer steps that the weights have seen.
    tokenizer: module.
    variables: of the tokenizer.
    placement: over whose devices, those of this process, batches are spread.
    model: of a generator, None for a tokenizer.
    params: of the model, None for a tokenizer.
  """

  config: ConfigDict
  step: int
  tokenizer: Any
  variables: Any
  placement: Placement
  model: ARModel | None = None
  params: Any = None

  @functools.cached_property
  def data(self) -> Data:
    """The data that the run learnt from."""
    return assemble.make_data(self.config)

  @functools.cached_property
  def prompts(self) -> Prompts | None:
    """What stands for a class number; None where the number itself does."""
    if self.model is None or 'label' in self.model.condition.blank(1):
      return None
    return of_classes(self.data)

  @functools.cached_property
  def _encode(self):
    return self._rows(lambda codec, x: codec.encode(x).values)

  @functools.cached_property
  def _store(self):
    return self._rows(lambda codec, x: codec.store(x))

  @functools.cached_property
  def as_drawn(self) -> 'TrainedRun':
    """The same with the tokenizer of the tokens that `sample_fn` gives."""
    tokenizer = self.sampler().tokenizer(self.tokenizer)
    return dataclasses.replace(self, tokenizer=tokenizer)

  @functools.cached_property
  def _decode(self):
    return self._rows(lambda codec, t: codec.decode(Tokens(t)))

  def _rows(self, function):
    """x (b, ...) -> function(codec, x), the rows spread over the devices."""
    call = self.placement.jit(lambda v, x: function(self.tokenizer.bind(v), x))

    def spread(x):
      out = call(self.variables, self.placement.put_rows(x))
      return out if len(out) == len(x) else out[: len(x)]

    return spread

  def encode(self, image: Any) -> jax.Array:
    """(b, H, W, C) in [-1, 1] -> (b, t) int32 or (b, t, c) float32."""
    return self._encode(image)

  def store(self, image: Any) -> jax.Array:
    """(b, H, W, C) in [-1, 1] -> what `arvision encode` keeps of it."""
    return self._store(image)

  def decode(self, values: Any) -> jax.Array:
    """(b, t) int32 or (b, t, c) -> (b, H, W, C) float32 in [-1, 1]."""
    return self._decode(values)

  def sampler(
    self,
    guidance: float | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
  ) -> Any:
    """The sampler of the config; what is not None takes its place."""
    check(guidance, Guidance | None, 'guidance')
    check(temperature, Temperature | None, 'temperature')
    check(top_k, Natural | None, 'top_k')
    check(top_p, Share | None, 'top_p')
    sampler = build(self.config.sampler, 'sampler')
    if guidance is not None:
      scaled = sampler.guidance.scaled_to(guidance)
      sampler = dataclasses.replace(sampler, guidance=scaled)
    given = {'temperature': temperature, 'top_k': top_k, 'top_p': top_p}
    given = {k: v for k, v in given.items() if v is not None}
    choice = dataclasses.replace(sampler.choice, **given)
    return dataclasses.replace(sampler, choice=choice)

  def sample_fn(
    self, seed: int = 0, prompts: Prompts | None = None, **sampling: Any
  ) -> Callable[[Any, Any], tuple[np.ndarray, np.ndarray]]:
    """A function that draws images; one program per batch size.

    Args:
      seed: with it and its number, an image is always the same.
      prompts: captions that labels are numbers of. Without them a model that
        reads captions gets one of each class of its data.
      **sampling: see `sampler`.

    Returns:
      (labels (b,) int32, index (b,) int32 numbers of the images; default: 0, 1,
      ...) -> images (b, H, W, C) float32 in [-1, 1], tokens (b, t) int32 or
      (b, t, c). Raises ConfigError for labels that are no classes.

    Raises:
      ConfigError: the run is a tokenizer, or values out of their range.
    """
    draw = self._draw_fn(seed, prompts, **sampling)
    return lambda labels, index=None: draw(labels, index)

  def edit_fn(
    self, seed: int = 0, prompts: Prompts | None = None, **sampling: Any
  ) -> Callable[[Any, Any, Any, Any], tuple[np.ndarray, np.ndarray]]:
    """A function that draws parts of images anew; see `sample_fn`.

    Returns:
      (labels (b,), index (b,), images (b, H, W, C) in [-1, 1], keep (b, H, W)
      bool) -> images and tokens. Of the pixels with keep = True the tokens
      stay, see `process.editing.kept_tokens`; the number of classes as a label
      stands for no class.

    Raises:
      ConfigError: as `sample_fn`; tokens that do not lie over the picture.
    """
    draw = self._draw_fn(seed, prompts, null=True, **sampling)
    grids = self.as_drawn.tokenizer.spec.grids

    def call(labels, index, images, keep):
      try:
        kept = kept_tokens(keep, grids)
      except ValueError as error:
        raise ConfigError(f'config.tokenizer: {error}') from error
      return draw(labels, index, (images, kept))

    return call

  def _draw_fn(self, seed, prompts, null=False, **sampling):
    """(labels, index, None or (images, kept tokens)) -> images, tokens."""
    check(seed, Seed, 'seed')
    model = self.model
    if model is None:
      raise ConfigError('a tokenizer draws nothing by itself')
    sampler = self.sampler(**sampling)
    tokenizer = sampler.tokenizer(self.tokenizer)

    def draw(params, variables, inputs, index, picture):
      codec = tokenizer.bind(variables)
      keys, known = Draw.create(seed, index), None
      if picture is not None:
        image, keep = picture
        known = Known(codec.encode(image).values, keep)
      tokens = sample(model, params, sampler, inputs, keys, codec, known)
      return codec.decode(tokens), tokens.values

    prompts = prompts or self.prompts
    if prompts:
      count = len(prompts.names)
    else:
      # Without classes labels are not read. The row after them is for no class.
      count = getattr(model.condition, 'classes', 0) or 2**31 - 1
      count += null
    compiled = self.placement.jit(draw)

    def call(labels, index=None, picture=None):
      labels = _numbers('labels', labels, count)
      index = np.arange(len(labels)) if index is None else index
      index = _numbers('index', index, 2**31)
      if len(labels) != len(index):
        raise ConfigError(
          f'{len(labels)} labels and {len(index)} numbers of images in `index`: '
          'wanted as many of both'
        )
      inputs = prompts.take(labels) if prompts else {'label': labels}
      rows = self.placement.put_rows((inputs, index, picture))
      with assemble.fitting():
        out = jax.device_get(compiled(self.params, self.variables, *rows))
      return jax.tree.map(lambda x: x[: len(labels)], out)

    return call


def _numbers(name, values, count):
  """(b,) int32 of whole numbers below a count.

  Raises:
    ConfigError: they are not.
  """
  array = np.asarray(values)
  if array.ndim != 1 or array.dtype.kind not in 'iu' or not len(array):
    raise ConfigError(
      f'{name}: wanted a list of whole numbers, got {array.dtype} of shape '
      f'{array.shape}'
    )
  wrong = array[(array < 0) | (array >= count)]
  if len(wrong):
    raise ConfigError(f'{name}: wanted 0 to {count - 1}, got {wrong[0]}')
  return array.astype(np.int32)


def load_run(
  workdir: str | os.PathLike,
  ema: str | None = None,
  step: int | None = None,
  mesh: Mesh | None = None,
) -> TrainedRun:
  """Opens a run. Programs are kept in a cache, `host.use_compilation_cache`.

  Args:
    workdir: its folder.
    ema: which weights: a decay, 'raw', or None for the slowest average.
    step: of the checkpoint; None for the newest.
    mesh: of devices of this process; None takes all of them along `data`.

  Raises:
    ConfigError: no run there, or no such average.
    DataError: a checkpoint that cannot be read.
  """
  check(step, Natural | None, 'step')
  host.use_compilation_cache()
  config, params, step = checkpoint.load_params(workdir, ema, step)
  kept = frozen.load(config, workdir) if assemble.is_generator(config) else {}
  if mesh is None:
    mesh = make_mesh({'data': -1}, jax.local_devices())
  return placed(config, step, params, kept, mesh)


def placed(
  config: ConfigDict, step: int, params: Any, kept: Any, mesh: Mesh
) -> TrainedRun:
  """A run whose weights are here, with the weights on devices.

  Args:
    config, step: of the run.
    params: that were trained, numpy arrays.
    kept: {'tokenizer': variables} of a generator, {} of a tokenizer.
    mesh: of devices of this process. A generator's weights are cut as in
      training, a tokenizer's are whole on every device.
  """
  placement = Placement(mesh, Rules(**config.get('rules', {})))
  tokenizer = assemble.make_tokenizer(config)
  variables = kept.get('tokenizer') or {'params': params['tokenizer']}
  run = TrainedRun(
    config,
    step,
    tokenizer,
    jax.device_put(variables, placement.whole),
    placement,
  )
  if not kept:
    return run
  # To know where weights lie costs a trace of the model.
  where: Any = placement.whole
  if mesh.size > placement.batch_parts or mesh.shape['fsdp'] > 1:
    shapes = assemble.trained_shapes(config, boxed=True)
    where = placement.rules.shardings(mesh, shapes)
  return dataclasses.replace(
    run,
    model=assemble.make_model(config),
    params=jax.device_put(params, where),
  )
