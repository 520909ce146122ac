"""A whole config -> model, tokenizer and task: where parts meet."""

from typing import Any

import jax.numpy as jnp

from arvision.build import build
from arvision.model import ARModel

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


def make_model(config: Any) -> ARModel:
  """The ARModel of a config's layout, feed, backbone, head and condition."""
  return ARModel(
    condition=build(config.condition, 'condition'),
    backbone=build(config.backbone, 'backbone'),
    head=build(config.head, 'head'),
    layout=build(config.layout, 'layout'),
    feed=build(config.feed, 'feed'),
  )
