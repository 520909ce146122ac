"""Prepares runs for evaluators, after training and during training."""

import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from arvision import trust
from arvision.build import build, suggest
from arvision.data import records, urls
from arvision.data.base import Data
from arvision.data.latents import CachedTokens
from arvision.errors import ConfigError, DataError
from arvision.evals import cache
from arvision.evals.base import Metrics, Run, evaluators
from arvision.evals.protocol import data_name
from arvision.heads.categorical import Categorical
from arvision.parallel import host
from arvision.parallel.mesh import make_mesh
from arvision.runs.trained import TrainedRun, placed
from arvision.tasks import assemble
from arvision.tasks.base import TrainState
from arvision.training.evaluate import slowest_average
from arvision.training.weights import Weights

# Keys of config.data that change no image, and so no classifier.
_WITHOUT_EFFECT = (
  *('batch_size', 'threads', 'workers', 'cache', 'broken_share'),
  'companions',
)
# Keys of config.data that `Data.digest` covers.
_IN_DIGEST = ('source', 'path')


def measured(
  run: TrainedRun,
  sampling: Mapping[str, Any] | None = None,
  classifiers: pathlib.Path | None = None,
  say: Callable[[str], None] = host.say,
  note: Callable[[str, Mapping[str, Any]], None] = lambda name, facts: None,
  show: Callable[[str, Mapping[str, Any]], None] = lambda name, rows: None,
) -> Run:
  """The interface of a run for evaluators.

  Args:
    run: run of a tokenizer or of a generator.
    sampling: arguments of `run.sample_fn`.
    classifiers: folder of cached classifiers, None for the user's cache.
    say: function that logs a line.
    note, show: see `Run`.

  Raises:
    ConfigError: see `images_of`.
  """
  data, description = images_of(run)
  prepared = preparation_of(description)

  def classifier(recipe):
    if data.num_classes < 2:
      say('the data has one class: no classifier, so no Fréchet distance')
      return None
    return cache.load_or_train(recipe, data, prepared, classifiers, say)

  def sample_fn(at_once=None):
    return run.sample_fn(at_once=at_once, **(sampling or {}))

  spec = run.tokenizer.spec
  samples = run.model is not None and 'sampler' in run.config
  return Run(
    data=data,
    name=data_name(description, data.digest),
    spec=spec,
    encode=run.encode,
    decode=run.decode,
    radices=run.tokenizer.radices,
    digits=run.tokenizer.digits,
    sample_fn=sample_fn if samples else None,
    encode_sampled=(
      (lambda image: run.as_sampled.encode(image))
      if samples and spec.codes and not run.tokenizer.before
      else None
    ),
    classes=len(classes_of(run)) if samples else 0,
    nats=_nats(run),
    masked_nats=_masked_nats(run),
    classifier=classifier,
    preparation=prepared,
    say=say,
    note=note,
    show=show,
  )


def _nats(run: TrainedRun):
  """`Run.nats` of a run."""
  names = _likelihood_inputs(run)
  model = run.model
  if names is None or model is None or model.feed.sees_own:
    return None

  @jax.jit
  def nats(params, variables, image, inputs):
    codec = run.tokenizer.bind(variables)
    tokens = codec.encode(image)
    return model.apply({'params': params}, tokens, inputs, codec, method='nats')

  return lambda batch: nats(
    run.params, run.variables, batch['image'], {k: batch[k] for k in names}
  )


def _masked_nats(run: TrainedRun):
  """`Run.masked_nats` of a run."""
  names = _likelihood_inputs(run)
  model = run.model
  if names is None or model is None or model.layout.steps > 1:
    return None
  if not model.feed.fills or model.feed.masks_parts:
    return None

  @jax.jit
  def encode(variables, image):
    return run.tokenizer.bind(variables).encode(image)

  @jax.jit
  def nats(params, variables, tokens, inputs, masked):
    codec = run.tokenizer.bind(variables)
    args = tokens, inputs, codec, masked
    return model.apply({'params': params}, *args, method='masked_nats')

  def of(batch):
    tokens = encode(run.variables, batch['image'])
    inputs = {k: batch[k] for k in names}
    return lambda masked: nats(
      run.params, run.variables, tokens, inputs, masked
    )

  return of


def _likelihood_inputs(run: TrainedRun) -> set[str] | None:
  """Names of the inputs of a model of codes with a likelihood, else None."""
  model = run.model
  if model is None or not isinstance(model.head, Categorical):
    return None
  names = {*model.condition.blank(1)}
  # Captions have another likelihood each, and so has an image behind a prompt.
  codes = run.tokenizer.spec.codes and not run.tokenizer.before
  return names if codes and names <= {'label'} else None


class InTraining:
  """Evaluators that run during training.

  Attributes:
    every: name -> duration between two evaluations.
    protocols: name -> facts of the protocols of all metrics so far.
  """

  def __init__(
    self,
    config: ConfigDict,
    placement: host.Placement,
    frozen: Any,
    say: Callable[[str], None] = host.say,
  ):
    """Builds the evaluators; computes nothing.

    Args:
      config: config of the run.
      placement: placement of its state.
      frozen: frozen weights, numpy arrays.
      say: function that logs a line.

    Raises:
      ConfigError: an evaluator needs a sampler, and the run has none.
    """
    self._config, self._say = config, say
    self._whole = placement.jit(lambda x: x, out_shardings=placement.whole)
    self._generator = assemble.is_generator(config)
    self._frozen = frozen if self._generator else {}
    self._evaluators = evaluators(config)
    self.every: dict[str, Mapping[str, float]] = {}
    self.protocols: dict[str, Mapping[str, Any]] = {}
    samples = self._generator and 'sampler' in config
    for name, evaluator in self._evaluators.items():
      if evaluator.every is None:
        continue
      if why := getattr(evaluator, 'missing', ''):
        raise ConfigError(f'config.evals.{name}.every: {why}')
      self.every[name] = evaluator.every
      if 'sample_fn' in evaluator.needs and not samples:
        raise ConfigError(
          f'config.evals.{name}.every: {type(evaluator).__name__} needs a '
          'generator with config.sampler; set it to None'
        )

  def __call__(self, name: str, state: TrainState, step: int) -> Metrics:
    """Metrics of the slowest running average."""
    decay = max(state.ema, key=float) if state.ema else 'raw'
    params = jax.device_get(self._whole(slowest_average(state)))
    weights = Weights(self._config, params, step, decay)
    mesh = make_mesh({'data': -1}, jax.local_devices())
    run = measured(
      placed(weights, self._frozen, mesh),
      say=self._say,
      note=self.protocols.__setitem__,
    )
    found = dict(self._evaluators[name](run))
    self._check_best(name, found)
    return found

  def _check_best(self, name, found):
    """Checks that an evaluator has the figure of config.checkpoint.best."""
    best = self._config.get('checkpoint', {}).get('best') or ''
    evaluator, _, figure = best.removeprefix('-').partition('/')
    known = [metric.split('/')[0] for metric in found]
    if evaluator == f'evals.{name}' and figure not in known:
      raise ConfigError(
        f"config.checkpoint.best='{best}': no such figure."
        + suggest(figure, known)
      )


def classes_of(run: TrainedRun) -> tuple[str, ...]:
  """Names of the classes of a generator, () for an unconditional one.

  Without the data, which has the names, these are numbers.
  """
  condition = run.config.get('condition', {'classes': 0})
  if 'classes' not in condition:
    return run.data.classes  # each has a caption
  count = condition['classes']
  if not count:
    return ()
  try:
    return run.data.classes
  except DataError:
    return tuple(str(i) for i in range(count))


def images_of(run: TrainedRun) -> tuple[Data, dict[str, Any]]:
  """The training images of a run, see `images_in`."""
  return images_in(run.config, run.data, run.allow)


def images_in(
  config: ConfigDict, data: Data, allow: Collection[str]
) -> tuple[Data, dict[str, Any]]:
  """The images of the data of a config, and the block that describes them.

  For cached tokens these are the images that were encoded.

  Args:
    config: config of a run.
    data: its data.
    allow: packages whose classes a file of cached tokens may name.

  Raises:
    ConfigError: the cached tokens do not name their images, or name a class
      that is not allowed.
  """
  if not isinstance(data, CachedTokens):
    return data, plain(config.data)
  block = data.spec.get('data')
  if not block:
    raise ConfigError(
      f"config.data.path='{data.path}' holds tokens, and its spec.json has no "
      "'data' that describes their images; name a config with these images by "
      '--config'
    )
  trust.check(block, f'{data.path}/{records.SPEC}', allow, 'data')
  return build(urls.here(block), 'data'), dict(block)


def preparation_of(description: Mapping[str, Any]) -> dict[str, Any]:
  """What a block of data says about resizing and cropping.

  Args:
    description: see `images_in`.
  """
  left_out = (*_WITHOUT_EFFECT, *_IN_DIGEST)
  return {k: v for k, v in description.items() if k not in left_out}


def plain(block: Mapping) -> dict[str, Any]:
  """A block of a config as plain values."""
  return {k: plain(v) if hasattr(v, 'items') else v for k, v in block.items()}
