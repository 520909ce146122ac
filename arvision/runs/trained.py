"""Loads trained runs, for commands and notebooks.

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
from arvision.runs.sample_fn import SampleFn
from arvision.samplers.base import Known
from arvision.structs import Tokens
from arvision.tasks import assemble, fit
from arvision.training import frozen, weights
from arvision.training import workdir as workdirs


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedRun:
  """The parts of a run with their weights.

  Attributes:
    config: config of the run.
    step: optimizer steps taken.
    ema: decay of the running average of the weights, or 'raw'.
    tokenizer: module of the tokenizer.
    variables: variables of the tokenizer.
    placement: shards batches over devices of this process.
    model: model of a generator, None for a tokenizer.
    params: parameters of the model, None for a tokenizer.
    allow: packages whose classes configs may name, see `load_run`.
    say: function that logs a line where a batch is split to fit into memory.
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
    """The training data of the run."""
    return assemble.make_data(self.config)

  @functools.cached_property
  def prompts(self) -> Prompts | None:
    """A prompt per class; None where the condition reads the label itself."""
    inputs = {} if self.model is None else self.model.condition.blank(1)
    return None if {*inputs} <= {'label'} else of_classes(self.data, [*inputs])

  @functools.cached_property
  def _encode(self):
    return self._rows('encoding', lambda codec, x: codec.encode(x).values)

  @functools.cached_property
  def _store(self):
    return self._rows('encoding', lambda codec, x: codec.store(x))

  @functools.cached_property
  def as_sampled(self) -> 'TrainedRun':
    """The same run with the tokenizer of the tokens of `sample_fn`."""
    tokenizer = self.sampler().tokenizer(self.tokenizer)
    return dataclasses.replace(self, tokenizer=tokenizer)

  @functools.cached_property
  def _decode(self):
    def decode(codec, rows):
      values, index, seed, inputs = rows
      draw = Draw.create(seed[0], index)
      return codec.decode(Tokens(values), draw, inputs)

    return self._rows('decoding', decode)

  def _rows(self, name, function):
    """x (b, ...) -> function(codec, x), split to fit into memory."""
    call = Rows(
      self.placement,
      lambda variables, x: function(self.tokenizer.bind(variables), x),
      name,
      say=self.say,
    )
    return lambda x: call(self.variables, jax.tree.map(np.asarray, x))

  def encode(self, image: Any) -> np.ndarray:
    """Encodes images (b, H, W, C) in [-1, 1].

    Returns:
      tokens (b, t) int32 or (b, t, c) float32.
    """
    return self._encode(image)

  def store(self, image: Any) -> np.ndarray:
    """Encodes images (b, H, W, C) in [-1, 1] for `arvision encode`."""
    return self._store(image)

  def decode(
    self,
    values: Any,
    index: Any = None,
    seed: int = 0,
    inputs: dict | None = None,
  ) -> np.ndarray:
    """Decodes tokens.

    Args:
      values: (b, t) int32 or (b, t, c) tokens.
      index: (b,) int32 indices of the images; None for 0, 1, ... The images of
        a decoder that samples depend on index and seed.
      seed: see `index`.
      inputs: see `Tokenizer.decode`.

    Returns:
      images (b, H, W, C) float32 in [-1, 1].
    """
    count = len(values)
    index = np.arange(count, dtype=np.int32) if index is None else index
    seeds = np.full(count, seed, np.uint32)
    return self._decode((values, index, seeds, inputs))

  def sampler(
    self,
    guidance: float | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
  ) -> Any:
    """The sampler of the config, with arguments that are not None replaced.

    Args:
      guidance: largest guidance scale; 1 is no guidance.
      temperature: of the logits; 0 is greedy.
      top_k: number of likeliest ids to sample from; 0 is all.
      top_p: probability of the likeliest ids to sample from; 1 is all.

    Raises:
      ConfigError: the config has no sampler, one that does not fit the model, or
        a value is out of range.
    """
    check(guidance, Guidance | None, 'guidance')
    check(temperature, Temperature | None, 'temperature')
    check(top_k, Natural | None, 'top_k')
    check(top_p, Share | None, 'top_p')
    if 'sampler' not in self.config:
      raise ConfigError('config.sampler is missing: the run does not sample')
    sampler = build(self.config.sampler, 'sampler')
    if self.model is not None:
      fit.check_sampler(self.model, sampler, self.tokenizer.spec.parts)
    if guidance is not None:
      sampler = sampler.guided_to(guidance)
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
  ) -> SampleFn:
    """A function that samples images, compiled once per batch size.

    Args:
      seed: seed; an image depends only on it, its index and its label.
      prompts: prompts that labels index. None: for a model that reads captions,
        a caption per class of its data.
      at_once: largest batch of the sampler; None: as many as fit into memory.
      **sampling: see `sampler`.

    Raises:
      ConfigError: the run is a tokenizer, or a value is out of range.
    """
    check(seed, Seed, 'seed')
    if self.model is None:
      raise ConfigError('the run is a tokenizer; wanted a generator')
    prompts = prompts or self.prompts
    for key in self.model.condition.blank(1):
      if prompts and key not in prompts.inputs:
        raise ConfigError(
          f"config.condition reads '{key}', but the prompts only have "
          + ', '.join(prompts.inputs)
        )
    tokens = self._sampling(self.sampler(**sampling), seed, at_once)
    return SampleFn(self, tokens, prompts, seed=seed)

  def edit_fn(
    self, *args: Any, **sampling: Any
  ) -> Callable[[Any, Any, Any, Any], tuple[np.ndarray, np.ndarray]]:
    """A function that samples a region of images again; see `sample_fn`.

    Every token is sampled given the tokens before it, and known tokens replace
    sampled ones in this order, see `process.editing`. This is not the
    distribution of the region given all known tokens.

    Returns:
      (labels (b,), index (b,), images (b, H, W, C) in [-1, 1], keep (b, H, W)
      bool) -> images and tokens. Tokens of pixels with keep = True stay, see
      `process.editing.kept_tokens`. A label equal to the number of classes
      means no class.

    Raises:
      ConfigError: see `sample_fn`; or the tokens have no positions in the
        image.
    """
    edit = dataclasses.replace(self.sample_fn(*args, **sampling), null=True)
    grids = self.as_sampled.tokenizer.image_grids

    def call(labels, index, images, keep):
      try:
        kept = kept_tokens(keep, grids)
      except ValueError as error:
        raise ConfigError(f'config.tokenizer: {error}') from error
      return edit(labels, index, (np.asarray(images), kept))

    return call

  def _sampling(self, sampler, seed, at_once) -> Rows:
    """(inputs, index, None or (images, kept tokens)) -> tokens."""
    model, tokenizer = self.model, sampler.tokenizer(self.tokenizer)
    assert model is not None

    def tokens(held, rows):
      (params, variables), (inputs, index, picture) = held, rows
      codec = tokenizer.bind(variables)
      keys, known = Draw.create(seed, index), None
      if picture is not None:
        image, keep = picture
        known = Known(codec.encode(image).values, keep)
        known = known.behind(tokenizer.before)
      return sample(model, params, sampler, inputs, keys, codec, known).values

    return Rows(self.placement, tokens, 'sampling', at_once, self.say)


def load_run(
  workdir: str | os.PathLike,
  ema: str | None = None,
  step: int | str | None = None,
  mesh: Mesh | None = None,
  allow: str | Iterable[str] = (),
  say: Callable[[str], None] = lambda text: None,
) -> TrainedRun:
  """Loads a run, and turns on the compilation cache.

  Args:
    workdir: folder of the run.
    ema: decay of a running average ('0.999'), 'raw', or None for the slowest.
    step: step of the checkpoint; None for the newest, 'best' for the best.
    mesh: mesh of devices of this process; None: all of them along `data`.
    allow: your own packages whose classes the run may name, ('my_package',).
      Other packages are refused and not imported.
    say: see `TrainedRun`.

  Raises:
    ConfigError: no run, no such average or step, or the run names a class that
      is neither in arvision nor in an allowed package.
    DataError: the checkpoint cannot be read.
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
  """Puts the weights of a run on devices.

  Args:
    found: config and trained weights.
    kept: {'tokenizer': variables} for a generator, {} for a tokenizer.
    mesh: mesh of devices of this process. The weights of a generator are
      sharded as in training; those of a tokenizer are replicated.
  """
  config, params = found.config, found.params
  placement = Placement(mesh, Rules(**config.get('rules', {})))
  tokenizer = assemble.make_tokenizer(config)
  variables = kept['tokenizer'] if kept else {'params': params['tokenizer']}
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
  # The shardings of a replicated model need no trace.
  where: Any = placement.whole
  if mesh.size > placement.batch_parts or mesh.shape['fsdp'] > 1:
    shapes = assemble.trained_shapes(config, boxed=True)
    where = placement.rules.shardings(mesh, shapes)
  return dataclasses.replace(
    run,
    model=assemble.make_model(config),
    params=jax.device_put(params, where),
  )
