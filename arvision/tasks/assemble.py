"""A whole config -> model, tokenizer and task: where parts meet."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.errors import FlaxError

from arvision.build import FAULTS, build, check, value
from arvision.data.base import Data
from arvision.errors import ConfigError, DataError
from arvision.layers.condition import NoCondition
from arvision.model import ARModel
from arvision.random import Draw
from arvision.ranges import Below1, Few, Seed
from arvision.structs import Tokens
from arvision.tasks.base import Task

# Keys that no part declares. A config has the blocks among them.
_SETTINGS: dict[str, Any] = {
  'seed': Seed,
  'ema': tuple[Below1, ...],
  'pictures.count': Few,
  'checkpoint.keep': Few,
  'checkpoint.best': str,
  'data': Mapping,
  'optim': Mapping,
  'mesh': Mapping,
  'train.duration': Mapping,
  'log.every': Mapping,
  'evals.every': Mapping,
  'pictures.every': Mapping,
  'checkpoint.every': Mapping,
}


_BLOCKS = (
  *('tokenizer', 'task', 'layout', 'feed', 'backbone', 'head', 'condition'),
  *('sampler', 'release', 'rules', 'frozen'),
)


def check_settings(config: Any) -> None:
  """Refuses a config that lacks a block, or whose own keys are out of range.

  Raises:
    ConfigError: with the key.
  """
  for name in _BLOCKS:
    if name in config:
      check(config[name], Mapping, f'config.{name}')
  for name, folder in config.get('frozen', {}).items():
    check(folder, str, f'config.frozen.{name}')
  for key, kind in _SETTINGS.items():
    value = config
    for name in key.split('.'):
      value = value.get(name) if hasattr(value, 'items') else None
    if value is not None or kind in (Mapping, Seed, _SETTINGS['ema']):
      check(value, kind, f'config.{key}')


@contextlib.contextmanager
def fitting() -> Iterator[None]:
  """Where parts are traced together, whose faults are those of the config.

  Raises:
    ConfigError: for what they raise.
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


# What a part of a block has, whoever wrote it.
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
  """The part of a block of a config.

  Args:
    config: whole.
    name: of the block.
    **given: see `build`.

  Raises:
    ConfigError: there is no such block, or a part of another kind in it.
  """
  found = build(config.get(name), name, **given)
  if name in _HAS and not hasattr(found, _HAS[name]):
    raise ConfigError(
      f'config.{name}.type={config[name].type!r} is no part for config.{name}: '
      f"it has no '{_HAS[name]}'"
    )
  return found


def complete(config: Any, data: Data) -> Any:
  """A config whose values that are left to the data are filled in.

  Args:
    config: `condition.classes=None` stands for as many as the data has.
    data: gives the number of classes.
  """
  if not open_classes(config):
    return config
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.condition.classes = data.num_classes
  return config


def open_classes(config: Any) -> bool:
  """Whether the number of classes is left to the data, see `complete`."""
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
  """Shapes of the parameters that a config trains, without any data.

  Args:
    config: whole; of a tokenizer or of a generator.
    boxed: with the logical names of their axes, see `Rules.shardings`.

  Returns:
    a tree of `jax.ShapeDtypeStruct`: of the model, or of the tokenizer without
    its discriminator.

  Raises:
    ConfigError: parts that do not fit one another.
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
  check_fit(config, model, tokenizer)
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
    model: the trained parts.
    make_codec: gives the bound tokenizer; nothing of it is computed.
    tokens: of one image; None: codes.
    boxed: see `trained_shapes`.
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
  """Whether a config trains a model over tokens, or a tokenizer."""
  return 'backbone' in config


def check_fit(config: Any, model: ARModel, tokenizer: Any) -> None:
  """Refuses a tokenizer whose tokens the layout or the head cannot hold.

  Raises:
    ConfigError: with both sizes and the keys to change.
  """
  spec = tokenizer.spec
  if spec.grids != model.layout.grids:
    raise ConfigError(
      f'the tokenizer emits grids {spec.grids} but config.layout holds '
      f'{model.layout.grids}; change config.layout or config.tokenizer'
    )
  sizes = {'channels': spec.parts}
  if spec.size:
    sizes = {'vocab_size': spec.size, 'levels': spec.size, **sizes}
  for key, size in sizes.items():
    found = config.head.get(key, size)
    if found != size:
      has = 'parts per token' if key == 'channels' else 'ids'
      raise ConfigError(
        f'config.head.{key}={found} but the tokenizer has {size} {has}'
      )


def check_data(config: Any, data: Data, tokenizer: Any) -> None:
  """Refuses data whose classes or image size the parts cannot take.

  Raises:
    ConfigError: with what was found and the key to change.
  """
  if is_generator(config):
    classes = config.get('condition', {}).get('classes', 0)
    if classes and classes < data.num_classes:
      raise ConfigError(
        f'config.condition.classes={classes} but the data has '
        f'{data.num_classes} classes; set config.condition.classes='
        f'{data.num_classes}, or 0 for an unconditional model'
      )
    check_text(config, data)
  image = jax.ShapeDtypeStruct((1, *data.shape), np.float32)
  try:
    out = jax.eval_shape(
      lambda x: tokenizer.init_with_output(jax.random.key(0), x)[0].image, image
    )
  except (*FAULTS, FlaxError) as error:
    raise ConfigError(
      f'the tokenizer cannot take images of {data.shape} (height, width, '
      'channels); change config.data.size, config.data.channels or '
      f'config.tokenizer: {error}'
    ) from error
  if out.shape != image.shape:
    raise ConfigError(
      f'the tokenizer returns images of {out.shape[1:]} for images of '
      f'{data.shape}; change config.data.size, config.data.channels or '
      'config.tokenizer'
    )


def check_text(config: Any, data: Data) -> None:
  """Refuses captions of another shape than the condition reads.

  Raises:
    ConfigError: with both and the keys to change.
  """
  keys = ('length', 'channels')
  if not all(key in config.get('condition', {}) for key in keys):
    return
  text = getattr(data, 'text', None)
  if text is None:
    raise ConfigError(
      'config.condition reads features of captions, but config.data.text is '
      "None; set it to a block, {'type': 'data.text.Stored', 'path': ...}"
    )
  for key in keys:
    wanted, got = config.condition[key], getattr(text, key)
    if wanted != got:
      raise ConfigError(
        f'config.data.text.{key}={got}, but config.condition.{key}={wanted}; '
        'make them agree'
      )


def check_sampler(model: ARModel, sampler: Any) -> None:
  """Refuses a sampler that cannot draw what the feed and the head train on.

  Raises:
    ConfigError: with both and the key to change.
  """
  fills = model.feed.fills
  noisy = model.feed.sees_own and not fills
  wanted = 'samplers.entity.EntityAR'
  if fills:
    wanted = 'samplers.masked.Masked'
  elif noisy:
    wanted = 'samplers.refine.Refine'

  def refuse(key, part, wanted):
    raise ConfigError(
      f'config.{key} ({type(part).__name__}) and config.sampler '
      f'({type(sampler).__name__}) do not fit: wanted {wanted}'
    )

  if sampler.site not in sampler.sites:
    raise ConfigError(
      f"config.sampler.site='{sampler.site}': {type(sampler).__name__} can guide "
      + ' or '.join(f"'{site}'" for site in sampler.sites)
    )
  if fills != sampler.fills or noisy != sampler.refines:
    refuse('feed', model.feed, wanted)
  if sampler.refines and model.head.draws:
    refuse('head', model.head, 'a head with a field alone, heads.velocity')
  if not (sampler.refines or model.head.draws):
    refuse('head', model.head, 'a head that samples, or samplers.refine.Refine')


def _trained(config):
  """What the optimizer trains; None for all parameters."""
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
    config: whole config.
    data: gives the image shape and the number of classes.
    tx: optimizer; None where no step will be taken.
    frozen: weights that no step changes, see `Task`.
    steps: of the whole run.

  Raises:
    ConfigError: parts that do not fit one another or the data.
  """
  tokenizer = make_tokenizer(config)
  check_data(config, data, tokenizer)
  given: dict[str, Any] = {
    'tokenizer': tokenizer,
    'tx': tx or optax.identity(),
    'image_shape': tuple(data.shape),
    'ema': tuple(config.ema),
    'ema_warmup': config.get('ema_warmup', False),
    'accumulate': value(config.optim, 'accumulate'),
    'trained': _trained(config),
    'seed': config.seed,
    'frozen': frozen or {},
  }
  if is_generator(config):
    model = make_model(config)
    check_fit(config, model, tokenizer)
    sampler = part(config, 'sampler') if 'sampler' in config else None
    if sampler is not None:
      check_sampler(model, sampler)
    given |= {
      'model': model,
      'sampler': sampler,
      'classes': config.get('condition', {}).get('classes', 0),
      'steps': steps,
    }
  return part(config, 'task', **given)
