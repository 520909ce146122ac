"""Training an autoregressive model over the tokens of a frozen tokenizer."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from arvision.model import ARModel, sample
from arvision.ranges import Below1, Count, FewOr0, Natural, Seed
from arvision.structs import Draw, Tokens
from arvision.tasks.base import (
  Batch,
  Metrics,
  TrainState,
  accumulate,
  start_ema,
  update_ema,
)

# Rows of draws that no training example has.
_SAMPLE_SEED = 1_000_003


@dataclasses.dataclass(frozen=True, eq=False)
class Autoregressive:
  """Weighted mean of the head's loss over all tokens of the global batch.

  Attributes:
    model: the trained parts.
    sampler: draws the pictures of `pictures`.
    tokenizer: frozen; images are encoded inside the step unless the batch
      brings tokens.
    tx: optimizer.
    image_shape: (H, W, C).
    classes: number of classes, 0 for unconditional.
    frozen: {'tokenizer': variables}.
    ema: decays of the running averages.
    ema_warmup: whether they warm up, see `update_ema`.
    accumulate: pieces that a step is cut into.
    seed: of every draw.
    draws: number of sampled pictures.
    steps: of the whole run, for draws that change in its course.
  """

  model: ARModel
  sampler: Any
  tokenizer: Any
  tx: optax.GradientTransformation
  image_shape: tuple[int, int, int]
  classes: Natural
  frozen: dict[str, Any] = dataclasses.field(default_factory=dict)
  ema: tuple[Below1, ...] = (0.999,)
  ema_warmup: bool = False
  accumulate: Count = 1
  seed: Seed = 0
  draws: FewOr0 = 32
  steps: Natural = 0

  def init(self, key: jax.Array) -> TrainState:
    # The values of a codec change no parameter of the model, so a fresh one
    # serves, and shapes are known before any tokenizer is trained.
    image = jnp.zeros((1, *self.image_shape), jnp.float32)
    codec = self.tokenizer.bind(self.tokenizer.init(key, image))
    tokens = self.tokenizer.spec.blank()
    inputs = self.model.condition.blank(1)
    draw = Draw.create(self.seed, jnp.arange(1))
    params = self.model.init(
      {'params': key, 'dropout': key},
      tokens,
      inputs,
      draw,
      codec,
      method='loss',
    )['params']
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      opt_state=self.tx.init(params),
      ema=start_ema(params, self.ema),
    )

  def codec(self, frozen: dict[str, Any]) -> Any:
    """The tokenizer bound to its frozen variables."""
    return self.tokenizer.bind(frozen['tokenizer'])

  def stored(self, frozen: dict[str, Any], batch: Batch) -> jax.Array:
    """What the tokens of a batch are made of: as cached, or from its images."""
    if 'tokens' in batch:
      return batch['tokens']
    return self.codec(frozen).store(batch['image'])

  def tokens(self, frozen: dict[str, Any], batch: Batch) -> Tokens:
    """Tokens of a batch, the same at every call."""
    stored = self.stored(frozen, batch)
    draw = Draw.create(self.seed, jnp.arange(stored.shape[0]))
    return self.codec(frozen).visit(stored, draw)

  def inputs(self, batch: Batch) -> dict[str, jax.Array]:
    """What the condition reads of a batch."""
    return {key: batch[key] for key in self.model.condition.blank(1)}

  def draw(self, state: TrainState, rows: jax.Array) -> Draw:
    """The draws of some rows (b,) of a step's batch."""
    return Draw.create(self.seed, rows, state.step)

  def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    stored = self.stored(state.frozen, batch)
    rows = {
      'stored': stored,
      'inputs': self.inputs(batch),
      'row': jnp.arange(stored.shape[0]),
    }
    if 'weight' in batch:
      rows['weight'] = batch['weight']
    progress = state.step / max(self.steps, 1)

    def loss(params, part, piece):
      draw = self.draw(state, part['row']).replace(progress=progress)
      codec = self.codec(state.frozen)
      return self.model.apply(
        {'params': params},
        codec.visit(part['stored'], draw),
        part['inputs'],
        draw,
        codec,
        weight=part.get('weight'),
        rngs={'dropout': draw.key('task/dropout')},
        method='loss',
      )

    gradient, metrics = accumulate(loss, state.params, rows, self.accumulate)
    updates, opt_state = self.tx.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics['gradient_norm'] = optax.tree.norm(gradient)
    state = state.replace(
      step=state.step + 1,
      params=params,
      opt_state=opt_state,
      ema=update_ema(
        state.ema, params, state.step if self.ema_warmup else None
      ),
    )
    return state, metrics

  def evaluate(self, state: TrainState, params: Any, batch: Batch) -> Metrics:
    tokens = self.tokens(state.frozen, batch)
    rows = jnp.arange(tokens.values.shape[0])
    out: Any = self.model.apply(
      {'params': params},
      tokens,
      self.inputs(batch),
      Draw.create(self.seed, rows),
      self.codec(state.frozen),
      weight=batch.get('weight'),
      train=False,
      method='loss',
    )
    weight, sums = out[1]
    return {**sums, 'weight': weight}

  def check(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """What the model will see: images, and their tokens decoded again."""
    tokens = self.tokens(state.frozen, batch)
    decoded = self.codec(state.frozen).decode(tokens)
    if 'image' not in batch:
      return {'decoded': decoded}
    return {'images': batch['image'], 'decoded': decoded}

  def pictures(self, state: TrainState, params: Any, batch: Batch) -> dict:
    """Samples of the classes in turn, or of the captions of a batch."""
    rows = jnp.arange(self.draws)
    draw = Draw.create(self.seed + _SAMPLE_SEED, rows)
    inputs = {'label': rows % max(self.classes, 1)}
    if 'label' not in self.model.condition.blank(1):
      some = self.inputs(batch)
      inputs = {k: x[rows % len(x)] for k, x in some.items()}
    tokenizer = self.sampler.tokenizer(self.tokenizer)
    codec = tokenizer.bind(state.frozen['tokenizer'])
    tokens = sample(self.model, params, self.sampler, inputs, draw, codec)
    return {'samples': codec.decode(tokens)}
