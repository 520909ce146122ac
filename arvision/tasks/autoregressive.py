"""Training an autoregressive model over the tokens of a frozen tokenizer."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from arvision.metrics import Metric
from arvision.model import ARModel, sample_images
from arvision.random import Draw
from arvision.ranges import FewOr0, Natural
from arvision.structs import Tokens
from arvision.tasks.base import (
  Batch,
  Frozen,
  GradientTask,
  Objective,
  TrainState,
  inputs_of,
)

# Added to the seed of samples, so that they share no keys with training.
_SAMPLE_SEED = 1_000_003


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Autoregressive(GradientTask):
  """Trains a generator: the weighted mean of the head's loss over all tokens.

  Attributes:
    model: the trained model.
    sampler: samples the images of `pictures`; None: there are no pictures.
    tokenizer: frozen; it encodes images inside the step unless the batch has
      tokens.
    classes: number of classes, 0 for unconditional.
    frozen: {'tokenizer': variables}.
    draws: number of images of `pictures`.
    copies: (name, other) of modules: parameters of `name` that a run started by
      `--init_from` brings no values for start as those of `other`.
  """

  model: ARModel
  sampler: Any
  tokenizer: Any
  classes: Natural
  draws: FewOr0 = 32
  copies: tuple[tuple[str, str], ...] = ()

  binds = ('tokenizer',)

  def fresh(self, key: jax.Array) -> Any:
    # Parameters of the model do not depend on the values of the codec, so a
    # fresh codec serves, and shapes are known before any tokenizer is trained.
    image = jnp.zeros((1, *self.image_shape), jnp.float32)
    codec = self.tokenizer.bind(self.tokenizer.init(key, image))
    tokens = self.tokenizer.spec.blank()
    inputs = self.model.condition.blank(1)
    draw = Draw.create(self.seed, jnp.arange(1))
    return self.model.init(
      {'params': key, 'dropout': key},
      tokens,
      inputs,
      draw,
      codec,
      method='losses',
    )['params']

  def codec(self, frozen: Frozen) -> Any:
    """The tokenizer bound to its frozen variables."""
    return self.tokenizer.bind(frozen['tokenizer'])

  def stored(self, frozen: Frozen, batch: Batch) -> jax.Array:
    """Stored tokens of a batch: cached ones, or those of its images.

    Those of `companions` (b, n, ...), further images of the class of every
    example, come before its own.
    """
    store = lambda image: self.codec(frozen).store(image)
    own = batch['tokens'] if 'tokens' in batch else store(batch['image'])
    if 'companions' not in batch:
      return own
    others = batch['companions']
    if 'tokens' not in batch:
      others = store(others.reshape(-1, *others.shape[2:]))
    others = others.reshape(len(own), -1, *own.shape[2:])
    return jnp.concatenate([others, own], 1)

  def tokens(self, frozen: Frozen, batch: Batch) -> Tokens:
    """Tokens of a batch; deterministic."""
    stored = self.stored(frozen, batch)
    draw = Draw.create(self.seed, jnp.arange(stored.shape[0]))
    return self.codec(frozen).visit(stored, draw)

  def inputs(self, batch: Batch) -> dict[str, jax.Array]:
    """The inputs of the condition in a batch, see `inputs_of`."""
    return inputs_of(batch, self.model.condition.blank(1), 'condition')

  def rows(self, state: TrainState, frozen: Frozen, batch: Batch) -> Batch:
    rows = {'stored': self.stored(frozen, batch), 'inputs': self.inputs(batch)}
    return rows | {k: batch[k] for k in ('weight',) if k in batch}

  def objective(
    self,
    params: Any,
    state: TrainState,
    frozen: Frozen,
    rows: Batch,
    draw: Draw,
  ) -> Objective:
    tokens = self.codec(frozen).visit(rows['stored'], draw)
    dropout = {'dropout': draw.key('task/dropout')}
    return self._losses(params, frozen, tokens, rows, draw, rngs=dropout)

  def _losses(self, params, frozen, tokens, rows, draw, **options):
    found: Any = self.model.apply(
      {'params': params},
      tokens,
      rows['inputs'],
      draw,
      self.codec(frozen),
      weight=rows.get('weight'),
      method='losses',
      **options,
    )
    terms, metrics = found
    return Objective(terms, metrics=metrics)

  def evaluate(
    self, params: Any, frozen: Frozen, batch: Batch
  ) -> dict[str, Metric]:
    tokens = self.tokens(frozen, batch)
    draw = Draw.create(self.seed, jnp.arange(tokens.values.shape[0]))
    rows = {**batch, 'inputs': self.inputs(batch)}
    found = self._losses(params, frozen, tokens, rows, draw, train=False)
    return found.measured

  def check(self, frozen: Frozen, batch: Batch) -> dict[str, jax.Array]:
    """The images of a batch, and their tokens decoded again."""
    tokens = self.tokens(frozen, batch)
    draw = Draw.create(self.seed, jnp.arange(tokens.values.shape[0]))
    inputs = self.inputs(batch)
    decoded = self.codec(frozen).decode(tokens, draw, inputs)
    if 'image' not in batch:
      return {'decoded': decoded}
    return {'images': batch['image'], 'decoded': decoded}

  def pictures(self, params: Any, frozen: Frozen, batch: Batch) -> dict:
    """Samples of every class in turn, or of the captions of a batch."""
    if self.sampler is None:
      return {}
    rows = jnp.arange(self.draws)
    draw = Draw.create(self.seed + _SAMPLE_SEED, rows)
    inputs = {'label': rows % max(self.classes, 1)}
    if not {*self.model.condition.blank(1)} <= {*inputs}:
      some = self.inputs(batch)
      inputs = {k: x[rows % len(x)] for k, x in some.items()}
    tokenizer = self.sampler.tokenizer(self.tokenizer)
    codec = tokenizer.bind(frozen['tokenizer'])
    images, _ = sample_images(
      self.model, params, self.sampler, inputs, draw, codec
    )
    return {'samples': images}
