"""Configs that are the same once they are shrunk, so that one stands for all.

The published sizes of a paper differ in numbers that shrinking makes equal, and
in rates and factors, which the laws do not depend on: weights are random here,
and no law is about how strong guidance is.
"""

import json

from arvision.configs.common import shrink
from arvision.training.workdir import to_json
from tests.configs import GENERATORS

_BLOCKS = (
  'tokenizer',
  'layout',
  'feed',
  'backbone',
  'head',
  'condition',
  'sampler',
)


def _structure(config):
  """A config as text, without its fractional numbers."""
  plain = to_json(shrink(config))
  return json.dumps(_plain({k: plain[k] for k in _BLOCKS}), sort_keys=True)


def _plain(value):
  if isinstance(value, dict):
    return {k: _plain(v) for k, v in value.items()}
  if isinstance(value, list):
    return [_plain(v) for v in value]
  return bool(value) if isinstance(value, float) else value


def _groups():
  found: dict[str, list[str]] = {}
  for name, make in GENERATORS.items():
    found.setdefault(_structure(make()), []).append(name)
  return found


# Structure -> names of the configs that have it.
GROUPS = _groups()
