"""What the train loop knows of a task, and what tasks share."""

from collections.abc import Callable
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import optax

from arvision.layers.spread import spread

Batch = dict[str, Any]
Metrics = dict[str, jax.Array]


@flax.struct.dataclass
class TrainState:
  """Everything that a training run needs to go on, as one pytree.

  Attributes:
    step: () int32 optimizer steps taken.
    params: trained parameters; several networks sit under several keys.
    opt_state: optax state(s), laid out as the task wants.
    ema: decay as text ('0.999') -> running average of `params`.
    extra: other arrays that steps change (usage counters, batch statistics).
    frozen: weights that no step changes (a bound tokenizer, LPIPS). They are
      kept in the workdir once, not in every checkpoint.
  """

  step: jax.Array
  params: Any
  opt_state: Any
  ema: dict[str, Any]
  extra: dict[str, Any] = flax.struct.field(default_factory=dict)
  frozen: dict[str, Any] = flax.struct.field(default_factory=dict)


class Task(Protocol):
  """A thing to train. `init` and `step` are pure and run under jit."""

  def init(self, key: jax.Array) -> TrainState:
    """A fresh state; parameters are boxed with their logical axes."""

  def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """One optimizer step. Metrics are float32 scalars, means of the batch."""

  def evaluate(self, state: TrainState, params: Any, batch: Batch) -> Metrics:
    """Sums over one held-out batch: {'loss': Σ wl, ..., 'weight': Σ w}.

    `batch['weight']` (b,) is 0 for examples that pad the last batch. Every
    metric is divided by `weight` after all batches were added.
    """

  def pictures(self, state: TrainState, params: Any, batch: Batch) -> dict:
    """name -> (k, H, W, C) float32 in [-1, 1], a row of the workdir's PNG."""


def accumulate(
  loss: Callable, params: Any, batch: Batch, pieces: int
) -> tuple[Any, Metrics]:
  """Gradient of Σ wl / Σ w over a batch worked off in equal pieces.

  Args:
    loss: (params, batch, piece index) -> (Σ wl, (Σ w, metrics)); metrics are
      sums too, divided by Σ w here.
    params: tree that is differentiated.
    batch: leading axis b, a multiple of `pieces`.
    pieces: static; how many pieces one step is cut into.

  Returns:
    gradient of the weighted mean, and metrics with 'loss' among them.
  """
  grad = jax.grad(loss, has_aux=True)

  def piece(carry, x):
    i, part = x
    g, (weight, metrics) = grad(params, part, i)
    return jax.tree.map(jnp.add, carry, (g, weight, metrics)), None

  if pieces == 1:
    total, (weight, metrics) = grad(params, batch, 0)
  else:
    size = jax.tree.leaves(batch)[0].shape[0]
    if size % pieces:
      raise ValueError(
        f'batch of {size} cannot be cut into {pieces} equal pieces; change '
        'config.data.batch_size or config.optim.accumulate'
      )

    def cut(x):
      x = x.reshape(pieces, size // pieces, *x.shape[1:])
      # Every device works on a share of every piece.
      return spread(x, (None, 'act_batch', *(None,) * (x.ndim - 2)))

    parts = jax.tree.map(cut, batch)
    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(grad, params, first, 0)
    g0, (w0, m0) = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    (total, weight, metrics), _ = jax.lax.scan(
      piece, (g0, w0, m0), (jnp.arange(pieces), parts)
    )
  # A batch may have no weight at all; its sums are 0 then, and so its means.
  scale = jnp.where(weight > 0, weight, 1)
  gradient = jax.tree.map(lambda g: g / scale, total)
  return gradient, {k: v / scale for k, v in metrics.items()}


def start_ema(params: Any, decays: tuple[float, ...]) -> dict[str, Any]:
  """One running average per decay, keyed by the decay as text."""
  return {str(d): jax.tree.map(jnp.array, params) for d in decays}


def update_ema(
  ema: dict[str, Any], params: Any, step: jax.Array | None = None
) -> dict[str, Any]:
  """avg <- (1 - d) params + d avg, in float32, where the two differ.

  Both products are rounded, as in the official trainers. What does not change has
  an average that does not change either.

  Args:
    ema: decay as text -> average.
    params: after a step.
    step: () int32 steps taken before it. With it decays warm up, from 0.1 to
      min(decay, (1 + step) / (10 + step)), so that an average follows a run that
      is short or has just begun. None: the decays themselves.

  Source: TensorFlow's ExponentialMovingAverage with `num_updates`; EMAModel of
    huggingface/diffusers and bytedance/1d-tokenizer.
  """

  def one(average, decay):
    new = 1 - decay
    if step is not None:
      new = jnp.maximum(new, 9 / (10 + step))
    moved = optax.incremental_update(params, average, new)
    return jax.tree.map(
      lambda p, old, new: jnp.where(p == old, old, new), params, average, moved
    )

  return {d: one(average, float(d)) for d, average in ema.items()}
