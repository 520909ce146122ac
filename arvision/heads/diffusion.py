"""A distribution over latents by diffusion, token by token."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from arvision.heads.base import Guide
from arvision.heads.mlp import TokenMLP
from arvision.process import diffusion
from arvision.process.counts import ConstantSteps, Counts, inner
from arvision.random import Draw
from arvision.ranges import Natural
from arvision.structs import Query


class Diffusion(TokenMLP):
  """Diffusion of every token by itself, given z: a small MLP with adaLN (MAR).

  Source: arXiv 2406.11838; LTH14/mar, models/diffloss.py and diffusion/.

  Attributes:
    counts: diffusion steps at every step of the sampler.
    highest: time that sampling starts from. As published it is the last, where
      x is 20 000 times what the network says wrong of the noise; at 990 it is 71
      times. That matters to small models.
    channels, width, depth, repeats, remat, unroll, dtype: see `TokenMLP`.
  """

  counts: Counts = ConstantSteps(100)
  highest: Natural = diffusion.TRAIN_STEPS - 1

  adjustable: ClassVar[tuple[str, ...]] = ('counts', 'highest')
  # The noise, and where its variance lies.
  outputs = 2

  def field(self, z: jax.Array, query: Query) -> jax.Array:
    """The noise in tokens, and its variance, see `process.diffusion`.

    Args:
      z: (b, t, 1, d).
      query: `values` (b, t, c) float32 tokens with noise, or (b, r t, c) with r
        times as many, all tokens once, then again; `level` (b or 1, 1 or r t)
        int32 times in [0, 1000).

    Returns:
      (b, r t, 2, c) float32.
    """
    x, times = jnp.asarray(query.values), jnp.asarray(query.level)
    return self.network(z, x, times)

  def loss(
    self, z: jax.Array, targets: jax.Array, draw: Draw, query: Query
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean squared error of the noise, and the bound that the variance learns.

    Args:
      z: (b, t, 1, d).
      targets: (b, t, c) float32 tokens.
      draw: 'head/time' (repeats, t), of which a thousandth is a step, and
        'head/noise' (repeats, t, c) of an example.
      query: see `field`; its values and level are set here.

    Returns:
      (b, t) float32 losses, and the metrics 'mse' and 'bound' (bits).
    """
    terms = self.terms(z, targets, draw, query)
    mse, bits = (jnp.mean(x, 1) for x in terms)
    return mse + bits, {'mse': mse, 'bound': bits}

  def terms(
    self, z: jax.Array, targets: jax.Array, draw: Draw, query: Query
  ) -> tuple[jax.Array, jax.Array]:
    """Both parts of `loss`, (b, repeats, t) float32 each."""
    batch, count, _ = targets.shape
    shape = (self.repeats, count)
    steps = diffusion.TRAIN_STEPS
    time = jnp.floor(draw.uniform('head/time', shape) * steps).astype(jnp.int32)
    time = jnp.minimum(time, steps - 1).reshape(batch, -1)
    noise = draw.normal('head/noise', (*shape, self.channels))
    noise = noise.reshape(batch, -1, self.channels)
    x = jnp.concatenate([targets] * self.repeats, 1)
    rows = diffusion.coefficients(diffusion.train_table(), time)
    noisy = diffusion.noised(rows, x, noise)
    field = self.field(z, query.replace(values=noisy, level=time))
    seen, share = field[..., 0, :], field[..., 1, :]
    mse = jnp.mean((seen - noise) ** 2, -1)
    # The bound shall not pull at the noise: its terms differ too much in size.
    said = jax.lax.stop_gradient(seen), share
    bits = diffusion.bound(rows, said, x, noisy, time == 0)
    return mse.reshape(batch, *shape), bits.reshape(batch, *shape)

  def sample(
    self,
    z: jax.Array,
    draw: Draw,
    guide: Guide,
    sampling: Any,
    query: Query,
  ) -> jax.Array:
    """Tokens (b, t, c) float32, by ancestral sampling from noise to data.

    The noise is guided, the variance is that of the conditional half. Both
    halves look at the same x.

    Args:
      z: (b or 2b, t, 1, d); conditional rows, then null rows.
      draw: 'head/noise' (t, c) of an example: the first at `fold(0)`, what the
        i-th step adds at `fold(i + 1)`.
      guide: merges the two halves of the noise at a level.
      sampling: its temperature multiplies the noise that steps add.
      query: with the step of the sampler.

    Raises:
      ValueError: `sampling` filters ids.
    """
    if sampling.top_k or 0 < sampling.top_p < 1:
      raise ValueError(
        f'top_k={sampling.top_k}, top_p={sampling.top_p}: latents have no ids to '
        'choose from; wanted config.sampler.logits_filter with a temperature alone'
      )
    table, count = inner(self.counts, self._rows, query)
    shape = (z.shape[1], self.channels)
    start = draw.fold(0).normal('head/noise', shape)
    halves = len(z) // len(start)
    head, variables = self.unbind()

    def advance(i, x):
      k = count - 1 - i
      rows = {name: numbers[k] for name, numbers in table.items()}
      time = rows.pop('times')
      both = jnp.concatenate([x] * halves)
      asked = query.replace(values=both, level=time[None, None])
      field: Any = head.apply(variables, z, asked, method='field')
      seen = guide(field[..., 0, :], time / diffusion.TRAIN_STEPS)
      share = field[: len(x), ..., 1, :]
      noise = draw.fold(i + 1).normal('head/noise', shape)
      noise = jnp.where(k > 0, sampling.temperature * noise, 0)
      return diffusion.step_back(rows, (seen, share), x, noise)

    # The trip count may be traced: one program for all counts.
    return jax.lax.fori_loop(0, count, advance, start)

  def _rows(self, count):
    """name -> (count,) numbers of the steps of a loop."""
    table = diffusion.sample_table(count, self.highest)
    return {**table.numbers, 'times': table.times}
