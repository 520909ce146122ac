"""A trained run, opened for use: what sample, eval, encode and notebooks take.

run = load_run('runs/var/digits')
images, tokens = run.sample_fn(seed=7)(labels, index)
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from arvision import trust
from arvision.build import build, check
from arvision.data.base import Data
from arvision.errors import ConfigError
from arvision.model import ARModel, sample
from arvision.parallel import host
from arvision.parallel.host import Placement
from arvision.parallel.mesh import make_mesh
from arvision.parallel.rules import Rules
from arvision.process.editing import kept_tokens
from arvision.random import Draw
from arvision.ranges import Guidance, Natural, Seed, Share, Temperature
from arvision.runs.memory import Rows
from arvision.runs.prompts import Prompts, of_classes
from arvision.samplers.base import Known
from arvision.structs import Tokens
from arvision.tasks import assemble
from arvision.training import frozen, weights
from arvision.training import workdir as workdirs


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedRun:
  """The parts of a run with their weights.

  Attributes:
    config: of the run.
    step: optimizer steps that the weights have seen.
    ema: which weights they are: the decay of a running average, or 'raw'.
    tokenizer: module.
    variables: of the tokenizer.
    placement: over whose devices, those of this process, batches are spread.
    model: of a generator, None for a tokenizer.
    params: of the model, None for a tokenizer.
    allow: packages that JSON beside the run may name classes of, see
      `load_run`.
    say: is told where memory holds fewer images at once than were asked for.
  """

  config: ConfigDict
  step: int
  ema: str
  tokenizer: Any
  variables: Any
  placement: Placement
  model: ARModel | None = None
  params: Any = None
  allow: tuple[str, ...] = ()
  say: Callable[[str], None] = lambda text: None

  @functools.cached_property
  def data(self) -> Data:
    """The data that the run learnt from."""
    return assemble.make_data(self.config)

  @functools.cached_property
  def prompts(self) -> Prompts | None:
    """What stands for a class number; None where the number itself does."""
    inputs = {} if self.model is None else self.model.condition.blank(1)
    return None if {*inputs} <= {'label'} else of_classes(self.data, [*inputs])

  @functools.cached_property
  def _encode(self):
    return self._rows('encoding', lambda codec, x: codec.encode(x).values)

  @functools.cached_property
  def _store(self):
    return self._rows('encoding', lambda codec, x: codec.store(x))

  @functools.cached_property
  def as_drawn(self) -> 'TrainedRun':
    """The same with the tokenizer of the tokens that `sample_fn` gives."""
    tokenizer = self.sampler().tokenizer(self.tokenizer)
    return dataclasses.replace(self, tokenizer=tokenizer)

  @functools.cached_property
  def _decode(self):
    def decode(codec, rows):
      values, index, seed = rows
      return codec.decode(Tokens(values), Draw.create(seed[0], index))

    return self._rows('decoding', decode)

  def _rows(self, name, function):
    """x (b, ...) -> function(codec, x), as many at once as memory holds."""
    call = Rows(
      self.placement,
      lambda variables, x: function(self.tokenizer.bind(variables), x),
      name,
      say=self.say,
    )
    return lambda x: call(self.variables, jax.tree.map(np.asarray, x))

  def encode(self, image: Any) -> np.ndarray:
    """(b, H, W, C) in [-1, 1] -> (b, t) int32 or (b, t, c) float32."""
    return self._encode(image)

  def store(self, image: Any) -> np.ndarray:
    """(b, H, W, C) in [-1, 1] -> what `arvision encode` keeps of it."""
    return self._store(image)

  def decode(self, values: Any, index: Any = None, seed: int = 0) -> np.ndarray:
    """(b, t) int32 or (b, t, c) -> (b, H, W, C) float32 in [-1, 1].

    Args:
      values: of the tokens.
      index: (b,) int32 numbers of the images; None for 0, 1, ... A decoder that
        samples gives an image that depends on its number and on the seed.
      seed: see `index`.
    """
    count = len(values)
    index = np.arange(count, dtype=np.int32) if index is None else index
    return self._decode((values, index, np.full(count, seed, np.uint32)))

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
    if 'sampler' not in self.config:
      raise ConfigError('config.sampler is not there: the run does not sample')
    sampler = build(self.config.sampler, 'sampler')
    if guidance is not None:
      scaled = sampler.guidance.scaled_to(guidance)
      sampler = dataclasses.replace(sampler, guidance=scaled)
    given = {'temperature': temperature, 'top_k': top_k, 'top_p': top_p}
    given = {k: v for k, v in given.items() if v is not None}
    logits = dataclasses.replace(sampler.logits_filter, **given)
    return dataclasses.replace(sampler, logits_filter=logits)

  def sample_fn(
    self,
    seed: int = 0,
    prompts: Prompts | None = None,
    at_once: int | None = None,
    **sampling: Any,
  ) -> 'SampleFn':
    """A function that draws images; one program per number of them.

    Args:
      seed: with it and its number, an image is always the same.
      prompts: captions that labels are numbers of. Without them a model that
        reads captions gets one of each class of its data.
      at_once: images whose tokens are drawn at once; None for all that a call
        asks for, at most what memory holds.
      **sampling: see `sampler`.

    Raises:
      ConfigError: the run is a tokenizer, or values out of their range.
    """
    check(seed, Seed, 'seed')
    if self.model is None:
      raise ConfigError('a tokenizer draws nothing by itself')
    prompts = prompts or self.prompts
    for key in self.model.condition.blank(1):
      if prompts and key not in prompts.inputs:
        raise ConfigError(
          f"config.condition reads '{key}', and the prompts have "
          + ', '.join(prompts.inputs)
        )
    draw = self._drawing(self.sampler(**sampling), seed, at_once)
    return SampleFn(self, draw, prompts, seed=seed)

  def edit_fn(
    self, *args: Any, **sampling: Any
  ) -> Callable[[Any, Any, Any, Any], tuple[np.ndarray, np.ndarray]]:
    """A function that draws parts of images anew; see `sample_fn`.

    Edits follow the product of the model's conditionals with the known tokens put
    in as they come, see `process.editing`: not the distribution of the rest given
    all that is known.

    Returns:
      (labels (b,), index (b,), images (b, H, W, C) in [-1, 1], keep (b, H, W)
      bool) -> images and tokens. Of the pixels with keep = True the tokens
      stay, see `process.editing.kept_tokens`; the number of classes as a label
      stands for no class.

    Raises:
      ConfigError: as `sample_fn`; tokens that do not lie over the picture.
    """
    draw = dataclasses.replace(self.sample_fn(*args, **sampling), null=True)
    grids = self.as_drawn.tokenizer.spec.grids

    def call(labels, index, images, keep):
      try:
        kept = kept_tokens(keep, grids)
      except ValueError as error:
        raise ConfigError(f'config.tokenizer: {error}') from error
      return draw(labels, index, (np.asarray(images), kept))

    return call

  def _drawing(self, sampler, seed, at_once) -> Rows:
    """(inputs, index, None or (images, kept tokens)) -> tokens."""
    model, tokenizer = self.model, sampler.tokenizer(self.tokenizer)
    assert model is not None

    def draw(held, rows):
      (params, variables), (inputs, index, picture) = held, rows
      codec = tokenizer.bind(variables)
      keys, known = Draw.create(seed, index), None
      if picture is not None:
        image, keep = picture
        known = Known(codec.encode(image).values, keep)
      return sample(model, params, sampler, inputs, keys, codec, known).values

    return Rows(self.placement, draw, 'drawing', at_once, self.say)


@dataclasses.dataclass(frozen=True, eq=False)
class SampleFn:
  """Draws images: tokens first, which are then decoded by another program.

  Attributes:
    run: whose weights draw.
    tokens: draws the tokens.
    prompts: what stands for a class number; None where the number itself does.
    null: whether the number of classes may be a label, and stands for no class.
    seed: of the samples.
  """

  run: TrainedRun
  tokens: Rows
  prompts: Prompts | None = None
  null: bool = False
  seed: int = 0

  def __call__(
    self, labels: Any, index: Any = None, picture: Any = None
  ) -> tuple[np.ndarray, np.ndarray]:
    """Images and their tokens.

    Args:
      labels: (b,) int32.
      index: (b,) int32 numbers of the images; None for 0, 1, ...
      picture: images and the tokens of them that stay, see `edit_fn`.

    Returns:
      images (b, H, W, C) float32 in [-1, 1], tokens (b, t) int32 or (b, t, c).

    Raises:
      ConfigError: labels that are no classes, or memory ran out.
    """
    labels = _numbers('labels', labels, self._labels)
    index = np.arange(len(labels)) if index is None else index
    index = _numbers('index', index, 2**31)
    if len(labels) != len(index):
      raise ConfigError(
        f'{len(labels)} labels and {len(index)} numbers of images in `index`: '
        'wanted as many of both'
      )
    rows = (self._inputs(labels), index, picture)
    tokens = self.tokens(self._held, rows)
    return self.run.as_drawn.decode(tokens, index, self.seed), tokens

  def fit(self, count: int) -> int:
    """How many of `count` images memory holds at once."""
    one = np.zeros(1, np.int32)
    return self.tokens.fit(self._held, (self._inputs(one), one, None), count)

  @property
  def _labels(self):
    """How many numbers may be labels."""
    if self.prompts:
      return len(self.prompts.names)
    # Without classes labels are not read.
    model: Any = self.run.model
    classes = getattr(model.condition, 'classes', 0)
    return (classes or 2**31 - 1) + self.null

  @property
  def _held(self):
    return self.run.params, self.run.variables

  def _inputs(self, labels):
    return self.prompts.take(labels) if self.prompts else {'label': labels}


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
  step: int | str | None = None,
  mesh: Mesh | None = None,
  allow: str | Iterable[str] = (),
  say: Callable[[str], None] = lambda text: None,
) -> TrainedRun:
  """Opens a run. Programs are kept in a cache, `host.use_compilation_cache`.

  Args:
    workdir: its folder.
    ema: which weights: a decay, 'raw', or None for the slowest average.
    step: of the checkpoint; None for the newest, 'best' for the best.
    mesh: of devices of this process; None takes all of them along `data`.
    allow: your own packages whose classes the run may name, ('my_package',).
      Others are refused before they are imported.
    say: see `TrainedRun`.

  Raises:
    ConfigError: no run there, no such average, or a run that names what is
      neither a part of arvision nor allowed.
    DataError: a checkpoint that cannot be read.
  """
  check(step if step != 'best' else None, Natural | None, 'step')
  host.use_compilation_cache()
  found = weights.load_weights(workdir, ema, step, trust.packages(allow))
  config = found.config
  workdirs.check_blocks(config, workdir)
  kept = frozen.load(config, workdir) if assemble.is_generator(config) else {}
  if mesh is None:
    mesh = make_mesh({'data': -1}, jax.local_devices())
  run = placed(found, kept, mesh)
  return dataclasses.replace(run, allow=trust.packages(allow), say=say)


def placed(found: weights.Weights, kept: Any, mesh: Mesh) -> TrainedRun:
  """A run whose weights are here, with the weights on devices.

  Args:
    found: the config, and what was trained.
    kept: {'tokenizer': variables} of a generator, {} of a tokenizer.
    mesh: of devices of this process. A generator's weights are cut as in
      training, a tokenizer's are whole on every device.
  """
  config, params = found.config, found.params
  placement = Placement(mesh, Rules(**config.get('rules', {})))
  tokenizer = assemble.make_tokenizer(config)
  variables = kept.get('tokenizer') or {'params': params['tokenizer']}
  run = TrainedRun(
    config,
    found.step,
    found.ema,
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
