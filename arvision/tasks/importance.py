"""Training with times that are sampled by importance (VQ-Diffusion)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from arvision.ranges import Below1, Natural
from arvision.tasks.autoregressive import Autoregressive
from arvision.tasks.base import Batch, Frozen, Objective, TrainState


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ImportanceSampled(Autoregressive):
  """Trains a discrete diffusion; times with a large loss come more often.

  The probability of a time is proportional to the root of a running average of
  the squared bound of its examples; that of the first time is that of the second.
  Times are uniform until every one has been drawn more than `least` times. The
  averages are part of the state and so of checkpoints.

  Source: arXiv 2102.09672 (importance sampling); microsoft/VQ-Diffusion,
    diffusion_transformer.py.

  Differs: examples of a step with one time enter the average as their mean, over
    all devices; the official result is any one of them, on each device by itself.

  Attributes:
    decay: of the averages.
    least: see above.
  """

  decay: Below1 = 0.9
  least: Natural = 10

  def extra(self) -> dict[str, jax.Array]:
    zeros = jnp.zeros((self.model.feed.process.steps,), jnp.float32)
    return {'squares': zeros, 'times': zeros}

  def odds(self, extra: dict[str, jax.Array]) -> jax.Array:
    """(steps,) float32 probabilities of the times."""
    root = jnp.sqrt(extra['squares'] + 1e-10) + 1e-4
    root = root.at[0].set(root[1])
    known = jnp.all(extra['times'] > self.least)
    root = jnp.where(known, root, 1.0)
    return root / jnp.sum(root)

  def objective(
    self,
    params: Any,
    state: TrainState,
    frozen: Frozen,
    rows: Batch,
    draw: Any,
  ) -> Objective:
    draw = draw.replace(odds=self.odds(state.extra))
    tokens = self.codec(frozen).visit(rows['stored'], draw)
    found: Any = self.model.apply(
      {'params': params},
      tokens,
      rows['inputs'],
      draw,
      self.codec(frozen),
      weight=rows.get('weight'),
      method='losses',
      rngs={'dropout': draw.key('task/dropout')},
      mutable=['intermediates'],
    )
    (terms, metrics), seen = found
    seen = seen['intermediates']['head']
    bound = jax.lax.stop_gradient(jnp.sum(seen['bound'][0], 1))
    steps = self.model.feed.process.steps
    there = jax.nn.one_hot(seen['time'][0] - 1, steps)
    aux = {
      'squares': jnp.sum(there * bound[:, None] ** 2, 0),
      'times': jnp.sum(there, 0),
    }
    return Objective(terms, metrics=metrics, aux=aux)

  def after(
    self, state: TrainState, aux: dict[str, jax.Array]
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    squares, times = state.extra['squares'], aux['times']
    mean = aux['squares'] / jnp.maximum(times, 1)
    moved = self.decay * squares + (1 - self.decay) * mean
    extra = {
      **state.extra,
      'squares': jnp.where(times > 0, moved, squares),
      'times': state.extra['times'] + times,
    }
    return state.replace(extra=extra), {}
