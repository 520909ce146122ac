"""Models of a config with random weights, for the benchmarks."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from arvision.build import build
from arvision.model import ARModel, sample
from arvision.random import Draw
from arvision.structs import Tokens
from arvision.tasks import assemble
from arvision.tasks.autoregressive import Autoregressive
from arvision.tasks.base import Averages
from arvision.training.schedule import Clock


def random_like(shapes: Any, std: float = 0.02) -> Any:
  """Arrays with random normal numbers of the given shapes, on the device."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda s: jnp.asarray(rng.standard_normal(s.shape, np.float32) * std),
    shapes,
  )


def of_dtype(config: ConfigDict, dtype: str) -> ConfigDict:
  """A config that computes in a dtype, without remat."""
  config = config.copy_and_resolve_references().unlock()
  config.backbone.update(dtype=dtype, remat='none')
  config.tokenizer.decoder.dtype = dtype
  if 'remat' in config.head:
    config.head.update(dtype=dtype, remat='none')
  return config


@dataclasses.dataclass(frozen=True, eq=False)
class Generator:
  """A generator with random weights.

  Attributes:
    config: the complete config.
    model, tokenizer, sampler: its parts.
    params: parameters of the model, float32.
    frozen: variables of the tokenizer.
  """

  config: ConfigDict
  model: ARModel
  tokenizer: Any
  sampler: Any
  params: Any
  frozen: Any

  @classmethod
  def create(cls, config: ConfigDict) -> 'Generator':
    model = assemble.make_model(config)
    tokenizer = assemble.make_tokenizer(config)
    frozen = random_like(_tokenizer_shapes(config, tokenizer))
    shapes = assemble.model_shapes(
      model, lambda: tokenizer.bind(frozen), tokenizer.spec.blank()
    )
    sampler = build(config.sampler, 'sampler')
    params = random_like(shapes)
    return cls(config, model, tokenizer, sampler, params, frozen)

  def labels(self, batch: int) -> jax.Array:
    return jnp.arange(batch) % self.config.condition.classes

  def sampling(self, batch: int):
    """A function that samples the tokens of a batch, and its arguments."""

    def run(params, frozen, labels):
      codec = self.tokenizer.bind(frozen)
      draw = Draw.create(0, jnp.arange(batch))
      inputs = {'label': labels}
      return sample(
        self.model, params, self.sampler, inputs, draw, codec
      ).values

    return run, (self.params, self.frozen, self.labels(batch))

  def forward(self, batch: int):
    """A function that computes all logits in one pass, and its arguments."""

    def run(params, frozen, codes, labels):
      return self.model.apply(
        {'params': params},
        Tokens(codes),
        {'label': labels},
        self.tokenizer.bind(frozen),
        method='logits',
      )

    tokens = self.tokenizer.spec.blank(batch).values
    return run, (self.params, self.frozen, tokens, self.labels(batch))

  def decoder(self, batch: int):
    """A function that decodes tokens to images, and its arguments."""

    def run(frozen, tokens):
      return self.tokenizer.bind(frozen).decode(Tokens(tokens))

    return run, (self.frozen, self.tokenizer.spec.blank(batch).values)


def _tokenizer_shapes(config, tokenizer):
  image = jnp.zeros((1, *config.data.size, config.data.channels), jnp.float32)
  return nn.unbox(jax.eval_shape(tokenizer.init, jax.random.key(0), image))


def training(config: ConfigDict, batch: int, shapes: bool = False):
  """A train step over cached tokens, and its arguments.

  Args:
    config: the complete config.
    batch: examples of a step.
    shapes: return shapes instead of arrays, for compilation only.

  Returns:
    the function (state, frozen, examples) -> (state, loss), and its arguments.
  """
  tokenizer = assemble.make_tokenizer(config)
  frozen = {'tokenizer': _tokenizer_shapes(config, tokenizer)}
  clock = Clock(total=1000, batch_size=batch, examples=100 * batch)
  optimizer = build(config.optim, 'optim')
  task = Autoregressive(
    model=assemble.make_model(config),
    sampler=build(config.sampler, 'sampler'),
    tokenizer=tokenizer,
    tx=optimizer.make(clock),
    image_shape=(*config.data.size, config.data.channels),
    classes=config.condition.classes,
    ema=Averages(tuple(config.ema)),
    trained=optimizer.trained or None,
  )

  def init(key):
    return nn.unbox(task.init(key))

  key = jax.random.key(0)
  if shapes:
    state = jax.eval_shape(init, key)
  else:
    state, frozen = jax.jit(init)(key), random_like(frozen)
  tokens = tokenizer.spec.blank(batch).values
  labels = jnp.arange(batch) % (config.condition.classes or 10)
  examples = {'tokens': tokens, 'label': labels}

  def run(state, frozen, examples):
    state, metrics = task.step(state, frozen, examples)
    return state, metrics['loss']

  return run, (state, frozen, examples)
