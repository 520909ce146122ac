"""What a config is apart from its numbers: the parts and their options."""

import dataclasses
import functools

from arvision import build
from arvision.training.workdir import to_json
from tests.configs import ALL, GENERATORS, family, module

_BLOCKS = ('layout', 'feed', 'backbone', 'head', 'condition', 'sampler')
# How something is computed, and not what.
_SPEED = {'dtype', 'remat', 'unroll'}
_CODERS = {'encoder', 'decoder', 'pixel_decoder'}
_NUMBERS = {'number', 'numbers', 'zero'}


def structure(config, strict=True):
  """Block -> its types and options, defaults included, without numbers.

  Of the tokenizer of a generator, encoder and decoder are left out.

  Args:
    config: a config.
    strict: whether a number that switches something off, 0, is told from others;
      and whether the options of a generator's tokenizer, the table of released
      weights, and a number of classes that is left to the data count.
  """
  plain = to_json(config.copy_and_resolve_references())
  generator = 'backbone' in plain
  tokenizer = dict(plain['tokenizer'])
  if generator:
    kept = tokenizer.keys() - _CODERS if strict else {'type'}
    tokenizer = {k: v for k, v in tokenizer.items() if k in kept}
  blocks = {key: plain[key] for key in _BLOCKS if key in plain}
  if strict:
    blocks['release'] = plain.get('release')
  elif plain.get('condition', {}).get('classes', 0) is None:
    blocks['condition'] = {**plain['condition'], 'classes': 10}
  found = {key: _options(block, strict) for key, block in blocks.items()}
  if generator and not strict:
    return {'tokenizer': tokenizer, **found}
  return {'tokenizer': _options(tokenizer, strict), **found}


def _options(value, zeros):
  if isinstance(value, dict):
    value = _defaults(value['type']) | value if 'type' in value else value
    return {k: _options(v, zeros) for k, v in value.items() if k not in _SPEED}
  if isinstance(value, (list, tuple)):
    found = [_options(v, zeros) for v in value]
    strings = [x for x in found if isinstance(x, str) and x not in _NUMBERS]
    return strings or 'numbers'
  if isinstance(value, (int, float)) and not isinstance(value, bool):
    return 'zero' if zeros and value == 0 else 'number'
  return value


def tiny_of(name):
  """The tiny configs of a paper, of generators or of tokenizers."""
  like = 'tiny' if name in GENERATORS else 'tiny_tokenizer'
  return [n for n in ALL if module(n) == like and family(n) == family(name)]


@functools.cache
def _defaults(path):
  fields = build.fields(build.resolve(path)) or {}
  return {
    name: _stated(field.default)
    for name, field in fields.items()
    if field.default is not build.REQUIRED
  }


def _stated(value):
  """A default as a config would state it."""
  if isinstance(value, functools.partial):
    return {'type': build.type_path(value.func), **value.keywords}
  if isinstance(value, type):
    return build.type_path(value)
  return build.to_block(value) if dataclasses.is_dataclass(value) else value
