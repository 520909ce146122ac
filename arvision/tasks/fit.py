"""Checks that the parts of a config fit together and fit the data."""

from typing import Any

import jax
import numpy as np
from flax.errors import FlaxError

from arvision.build import FAULTS
from arvision.data.base import Data
from arvision.errors import ConfigError
from arvision.feeds.shift import Shift
from arvision.model import ARModel


def check_tokenizer(config: Any, model: ARModel, tokenizer: Any) -> None:
  """Checks that layout and head have the sizes of the tokenizer's tokens.

  Raises:
    ConfigError: they do not; with both sizes and the keys to change.
  """
  spec = tokenizer.spec
  if spec.grids != model.layout.grids:
    raise ConfigError(
      f'the tokenizer emits grids {spec.grids} but config.layout holds '
      f'{model.layout.grids}; change config.layout or config.tokenizer'
    )
  head, feed = (getattr(x, 'stages', None) for x in (model.head, model.feed))
  if head != feed:
    raise ConfigError(
      f'config.head.stages={head}, but config.feed.stages={feed}; make them agree'
    )
  head, feed = (getattr(x, 'process', None) for x in (model.head, model.feed))
  if head != feed:
    raise ConfigError(
      f'config.head.process={head}, but config.feed.process={feed}; make them '
      'agree'
    )
  check_masks(model)
  sizes = {'channels': spec.parts, 'parts': spec.parts}
  if spec.size:
    sizes = {'vocab_size': spec.size, 'levels': spec.size, **sizes}
  for key, size in sizes.items():
    # A head that has this field predicts one part where it is not set.
    default = getattr(model.head, key, size) if key == 'parts' else size
    found = config.head.get(key, default)
    if found != size:
      has = 'parts per token' if key in ('channels', 'parts') else 'ids'
      raise ConfigError(
        f'config.head.{key}={found} but the tokenizer has {size} {has}'
      )


def check_masks(model: ARModel) -> None:
  """Checks that the input embedding has a row for the codes that a feed masks.

  Raises:
    ConfigError: next-token prediction masks codes, and there is no such row.
  """
  share = model.feed.masked if isinstance(model.feed, Shift) else 0.0
  embed = getattr(model.backbone, 'input', None)
  if share and not getattr(embed, 'keywords', {}).get('extra', 0):
    raise ConfigError(
      f'config.feed.masked={share}, but config.backbone.input has no row for '
      'masked codes; wanted backbones.decoder.CodeInput with '
      'config.backbone.input.extra=1'
    )


def check_data(config: Any, data: Data, tokenizer: Any) -> None:
  """Checks that the parts take the classes and the image size of the data.

  Raises:
    ConfigError: they do not; with both values and the key to change.
  """
  if 'backbone' in config:
    images = getattr(tokenizer, 'images', 1)
    companions = getattr(data, 'companions', images - 1)
    if companions != images - 1:
      raise ConfigError(
        f'config.data.companions={companions}, but config.tokenizer makes '
        f'sequences of {images} images; wanted {images - 1}'
      )
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
  """Checks that caption features have the shape that the condition reads.

  Raises:
    ConfigError: they do not; with both shapes and the keys to change.
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


def check_sampler(model: ARModel, sampler: Any, parts: int = 1) -> None:
  """Checks that the sampler fits the feed and the head.

  Args:
    model: with feed and head.
    sampler: of its tokens.
    parts: of a token.

  Raises:
    ConfigError: it does not; with both parts and the key to change.
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

  discrete = hasattr(model.feed, 'process')
  if discrete != getattr(sampler, 'reverses', False):
    refuse(
      'feed',
      model.feed,
      'feeds.transition.Transition with a sampler of samplers.discrete',
    )
  if fills and parts > 1 and model.feed.masks_parts != sampler.fills_parts:
    refuse(
      'feed', model.feed, 'feeds.mask.RandomParts with samplers.masked.Masked'
    )
  own, theirs = (getattr(x, 'together', 1) for x in (sampler, model.feed))
  if own != theirs or model.layout.tokens % own:
    raise ConfigError(
      f'config.sampler.together={own}, config.feed.together={theirs}: wanted the '
      f'same, a divisor of the {model.layout.tokens} tokens of config.layout'
    )
  if sampler.site not in sampler.sites:
    raise ConfigError(
      f"config.sampler.site='{sampler.site}': {type(sampler).__name__} can guide "
      + ' or '.join(f"'{site}'" for site in sampler.sites)
    )
  guided = sampler.guided_layers
  if guided and (sampler.fills or sampler.refines):
    raise ConfigError(
      f'config.sampler.guided_layers={guided}: {type(sampler).__name__} does not '
      'guide inside of layers; set it to ()'
    )
  if sampler.site == 'layers' and not guided:
    raise ConfigError(
      "config.sampler.site='layers': config.sampler.guided_layers names no layer; "
      "set it to (-1,) or the like, or the site to 'field'"
    )
  if fills != sampler.fills or noisy != sampler.refines:
    refuse('feed', model.feed, wanted)
  if sampler.recalls != getattr(model.backbone, 'recalls', False):
    refuse(
      'backbone',
      model.backbone,
      'backbones.stages.Stages with samplers.stages.Stages',
    )
  joint = getattr(model.head, 'joint', False)
  if getattr(sampler, 'joint', joint) != joint:
    refuse(
      'head',
      model.head,
      'a head that samples all tokens of an entity together with '
      'samplers.random_order.Joint, others with RandomOrder',
    )
  if sampler.refines and sampler.solver.velocities:
    path = model.feed.path
    if not path.velocities:
      refuse('feed.path', path, 'a solver of process.solvers')
  if sampler.refines and model.head.draws:
    refuse('head', model.head, 'a head with a field alone, heads.velocity')
  if not (sampler.refines or model.head.draws):
    refuse('head', model.head, 'a head that samples, or samplers.refine.Refine')
