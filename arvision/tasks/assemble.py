"""Builds the model, the tokenizer and the task of a config."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.errors import FlaxError

from arvision.build import FAULTS, build, value
from arvision.data import urls
from arvision.data.base import Data
from arvision.errors import ConfigError, DataError
from arvision.layers.condition import NoCondition
from arvision.model import ARModel
from arvision.random import Draw
from arvision.structs import Tokens
from arvision.tasks import fit
from arvision.tasks.base import Averages, Task


@contextlib.contextmanager
def fitting() -> Iterator[None]:
  """Turns errors of parts that are traced together into errors of the config.

  Raises:
    ConfigError: the parts do not fit together.
  """
  try:
    yield
  except (ConfigError, DataError):
    raise
  except (*FAULTS, NotImplementedError, FlaxError) as error:
    raise ConfigError(
      'the parts of the config do not fit one another: '
      f'{type(error).__name__}: {error}'
    ) from error


def make_data(config: Any) -> Data:
  """The data part of a config."""
  return part(config, 'data')


# An attribute that every part of a block has.
_HAS = {
  'data': 'train',
  'optim': 'make',
  'task': 'step',
  'tokenizer': 'encode',
  'layout': 'readout',
  'feed': 'fills',
  'backbone': 'empty_cache',
  'head': 'draws',
  'condition': 'reads_slots',
  'sampler': 'fills',
}


def part(config: Any, name: str, **given) -> Any:
  """The part that a block of a config describes.

  Args:
    config: the whole config.
    name: name of the block.
    **given: see `build`.

  Raises:
    ConfigError: there is no such block, or it describes a part of another kind.
  """
  block = config.get(name)
  if name == 'data':
    block = urls.here(block)
  found = build(block, name, **given)
  if name in _HAS and not hasattr(found, _HAS[name]):
    raise ConfigError(
      f'config.{name}.type={config[name].type!r} is no part for config.{name}: '
      f"it has no '{_HAS[name]}'"
    )
  return found


def complete(config: Any, data: Data) -> Any:
  """A config with `condition.classes=None` replaced by the number of the data.

  Args:
    config: the whole config; it is not changed.
    data: gives the number of classes.
  """
  if not open_classes(config):
    return config
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.condition.classes = data.num_classes
  return config


def open_classes(config: Any) -> bool:
  """Whether the data decides on the number of classes, see `complete`."""
  condition = config.get('condition', {})
  return 'classes' in condition and condition['classes'] is None


def make_tokenizer(config: Any) -> nn.Module:
  """The tokenizer of a config."""
  return part(config, 'tokenizer')


def make_model(config: Any) -> ARModel:
  """The ARModel of a config's layout, feed, backbone, head and condition.

  Raises:
    ConfigError: the number of classes is left open, see `complete`.
  """
  if open_classes(config):
    raise ConfigError(
      'config.condition.classes=None: wanted a number; arvision train fills in '
      'the number of classes of the data'
    )
  names = ['backbone', 'head', 'layout', 'feed', *({'condition'} & {*config})]
  found = {name: part(config, name) for name in names}
  return ARModel(**{'condition': NoCondition(), **found})


def trained_shapes(config: Any, boxed: bool = False) -> Any:
  """Shapes of the parameters that a config trains; needs no data.

  Args:
    config: the whole config of a tokenizer or of a generator.
    boxed: whether leaves are boxed with the logical names of their axes, see
      `Rules.shardings`.

  Returns:
    a tree of `jax.ShapeDtypeStruct`: parameters of the model, or of the
    tokenizer without its discriminator.

  Raises:
    ConfigError: parts that do not fit together.
  """
  tokenizer = make_tokenizer(config)
  with fitting():
    size = (1, *config.data.size, value(config.data, 'channels'))
    image = jnp.zeros(size, jnp.float32)
  key = jax.random.key(0)
  if not is_generator(config):
    with fitting():
      variables = jax.eval_shape(tokenizer.init, key, image)
    shapes = variables['params']
    return shapes if boxed else nn.unbox(shapes)
  model = make_model(config)
  fit.check_tokenizer(config, model, tokenizer)
  return model_shapes(
    model,
    lambda: tokenizer.bind(tokenizer.init(key, image)),
    tokenizer.spec.blank(),
    boxed,
  )


def model_shapes(
  model: ARModel,
  make_codec: Callable[[], Any] = lambda: None,
  tokens: Tokens | None = None,
  boxed: bool = False,
) -> Any:
  """Shapes of the parameters of a model.

  Args:
    model: the model.
    make_codec: returns the bound tokenizer; it is traced and not run.
    tokens: tokens of one image; None: codes.
    boxed: see `trained_shapes`.

  Returns:
    a tree of `jax.ShapeDtypeStruct`.
  """
  if tokens is None:
    tokens = Tokens(jnp.zeros((1, model.layout.tokens), jnp.int32))

  def init(key):
    inputs = model.condition.blank(1)
    draw = Draw.create(0, jnp.arange(1))
    return model.init(
      key, tokens, inputs, draw, make_codec(), train=False, method='losses'
    )

  with fitting():
    shapes = jax.eval_shape(init, jax.random.key(0))['params']
  return shapes if boxed else nn.unbox(shapes)


def is_generator(config: Any) -> bool:
  """Whether a config trains a generator; otherwise it trains a tokenizer."""
  return 'backbone' in config


def _trained(config):
  """The selection of trained parameters; None for all."""
  selected = getattr(part(config, 'optim'), 'trained', None)
  return selected or None


def make_task(
  config: Any,
  data: Data,
  tx: optax.GradientTransformation | None = None,
  frozen: dict[str, Any] | None = None,
  steps: int = 0,
) -> Task:
  """The task of a config.

  Args:
    config: the whole config.
    data: gives the image shape and the number of classes.
    tx: optimizer; None where no step will be taken.
    frozen: frozen weights, see `Task`.
    steps: number of steps of the whole run.

  Raises:
    ConfigError: parts that do not fit together, or do not fit the data.
  """
  tokenizer = make_tokenizer(config)
  fit.check_data(config, data, tokenizer)
  given: dict[str, Any] = {
    'tokenizer': tokenizer,
    'tx': tx or optax.identity(),
    'image_shape': tuple(data.shape),
    'ema': Averages(tuple(config.ema), config.get('ema_warmup', False)),
    'accumulate': value(config.optim, 'accumulate'),
    'trained': _trained(config),
    'seed': config.seed,
    'frozen': frozen or {},
    'steps': steps,
  }
  if is_generator(config):
    model = make_model(config)
    fit.check_tokenizer(config, model, tokenizer)
    sampler = part(config, 'sampler') if 'sampler' in config else None
    if sampler is not None:
      fit.check_sampler(model, sampler, tokenizer.spec.parts)
    given |= {
      'model': model,
      'sampler': sampler,
      'classes': config.get('condition', {}).get('classes', 0),
    }
  return part(config, 'task', **given)
