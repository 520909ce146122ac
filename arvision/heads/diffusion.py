"""Distributions over latents by diffusion: of a token, or of an entity."""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from arvision.heads.base import Guide
from arvision.heads.entity_transformer import EntityTransformer
from arvision.heads.mlp import TokenMLP
from arvision.layers.param import fixed
from arvision.process import diffusion
from arvision.process.counts import ConstantSteps, Counts, inner
from arvision.random import Draw
from arvision.ranges import Few, Natural, Side
from arvision.structs import Query


class Diffusion(TokenMLP):
  """Diffusion of every token by itself, given z: a small MLP with adaLN (MAR).

  Source: arXiv 2406.11838; LTH14/mar, models/diffloss.py and diffusion/.

  Attributes:
    counts: diffusion steps at every step of the sampler.
    highest: time that sampling starts from. As published it is the last, where an
      error in the predicted noise is multiplied by 20,000; at 990 by 71, which
      small models need.
    channels, width, depth, repeats, remat, unroll, dtype: see `TokenMLP`.
  """

  counts: Counts = ConstantSteps(100)
  highest: Natural = diffusion.TRAIN_STEPS - 1

  adjustable: ClassVar[tuple[str, ...]] = ('counts', 'highest')
  # The noise, and its variance between two bounds.
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
    time = random_times(draw, shape).reshape(batch, -1)
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
      query: with the step of the sampler. Where it has `masked` (b, t), tokens that
        are not masked are `values` (b, t, c): at every step they are replaced by
        these, with the noise that sampling started from.

    Raises:
      ValueError: `sampling` filters ids.
    """
    return _sampled(self, z, draw, guide, sampling, query)


class EntityDiffusion(EntityTransformer, kw_only=True):
  """Diffusion of all tokens of an entity together, given z: a DiT (Hi-MAR).

  The noise that a step adds has the largest variance of improved DDPM.

  Source: arXiv 2505.20288; HiDream-ai/himar, models/models.py.

  Attributes:
    grid: (height, width) of the tokens, for positions that are not trained.
    repeats: times that every entity is trained on, each at its own time and with
      its own noise; z is computed once.
    counts, highest: see `Diffusion`.
    channels, width, depth, heads, block, last_norm, rotary, std, remat, unroll,
      dtype: see `EntityTransformer`.
  """

  grid: tuple[Side, Side]
  repeats: Few = 4
  counts: Counts = ConstantSteps(250)
  highest: Natural = diffusion.TRAIN_STEPS - 1

  adjustable: ClassVar[tuple[str, ...]] = Diffusion.adjustable
  joint: ClassVar[bool] = True

  def setup(self):
    super().setup()
    shape = (math.prod(self.grid), self.width)
    start = lambda key, shape, dtype=jnp.float32: jnp.asarray(
      waves(self.grid, self.width), dtype
    )
    self.position = fixed(self, 'position', start, (None, 'embed'), shape)

  @property
  def stds(self):
    return 0.02, 0.0

  def embed(self, x):
    return self.input(x) + self.position

  def field(self, z: jax.Array, query: Query) -> jax.Array:
    """The noise in tokens, and its variance, which is the largest.

    Args:
      z: (b, t, 1, d).
      query: `values` (b, t, c) float32 tokens with noise; `level` (b or 1, 1) int32
        times in [0, 1000).

    Returns:
      (b, t, 2, c) float32.
    """
    x, times = jnp.asarray(query.values), jnp.asarray(query.level)
    noise = self.network(z, x, times, query)
    return jnp.stack([noise, jnp.ones_like(noise)], -2)

  def loss(
    self, z: jax.Array, targets: jax.Array, draw: Draw, query: Query
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean squared error of the noise.

    Args:
      z: (b, t, 1, d).
      targets: (b, t, c) float32 tokens.
      draw: 'head/time' (repeats,), of which a thousandth is a step, and
        'head/noise' (repeats, t, c) of an example.
      query: of the tokens of one entity.

    Returns:
      (b, t) float32 losses, and no metrics.
    """
    batch, count, channels = targets.shape
    times = random_times(draw, (self.repeats,)).reshape(-1, 1)
    noise = draw.normal('head/noise', (self.repeats, count, channels))
    noise = noise.reshape(-1, count, channels)
    rows = diffusion.coefficients(diffusion.train_table(), times)
    x, z = (jnp.repeat(a, self.repeats, 0) for a in (targets, z))
    noisy = diffusion.noised(rows, x, noise)
    field = self.field(z, query.replace(values=noisy, level=times))
    mse = jnp.mean((field[..., 0, :] - noise) ** 2, -1)
    return jnp.mean(mse.reshape(batch, self.repeats, count), 1), {}

  def sample(
    self,
    z: jax.Array,
    draw: Draw,
    guide: Guide,
    sampling: Any,
    query: Query,
  ) -> jax.Array:
    """Tokens (b, t, c) float32, see `Diffusion.sample`."""
    return _sampled(self, z, draw, guide, sampling, query)


def _sampled(head, z, draw, guide, sampling, query):
  """Tokens of a head with a `field` of noise and of its variance."""
  if sampling.top_k or 0 < sampling.top_p < 1:
    raise ValueError(
      f'top_k={sampling.top_k}, top_p={sampling.top_p}: latents have no ids to '
      'choose from; wanted config.sampler.logits_filter with a temperature alone'
    )

  def rows_of(count):
    """name -> (count,) numbers of the steps of a loop."""
    table = diffusion.sample_table(count, head.highest)
    return {**table.numbers, 'times': table.times}

  table, count = inner(head.counts, rows_of, query)
  shape = (z.shape[1], head.channels)
  start = draw.fold(0).normal('head/noise', shape)
  halves = len(z) // len(start)
  pure, variables = head.unbind()

  def advance(i, x):
    k = count - 1 - i
    rows = {name: numbers[k] for name, numbers in table.items()}
    time = rows.pop('times')
    if query.masked is not None:
      known = diffusion.noised(rows, query.values, start)
      x = jnp.where(query.masked[..., None], x, known)
    both = jnp.concatenate([x] * halves)
    asked = query.replace(values=both, level=time[None, None])
    field: Any = pure.apply(variables, z, asked, method='field')
    seen = guide(field[..., 0, :], time / diffusion.TRAIN_STEPS)
    share = field[: len(x), ..., 1, :]
    noise = draw.fold(i + 1).normal('head/noise', shape)
    noise = jnp.where(k > 0, sampling.temperature * noise, 0)
    return diffusion.step_back(rows, (seen, share), x, noise)

  # The trip count may be traced: one program for all counts.
  return jax.lax.fori_loop(0, count, advance, start)


def random_times(draw: Draw, shape: tuple[int, ...]) -> jax.Array:
  """(b, *shape) int32 uniform times in [0, 1000), of 'head/time'."""
  steps = diffusion.TRAIN_STEPS
  time = jnp.floor(draw.uniform('head/time', shape) * steps).astype(jnp.int32)
  return jnp.minimum(time, steps - 1)


def waves(grid: tuple[int, int], width: int) -> np.ndarray:
  """(h * w, width) float64 sines and cosines of x, then of y.

  Source: facebookresearch/mae, util/pos_embed.py.
  """
  quarter = width // 4
  frequency = 10000.0 ** -(np.arange(quarter) / quarter)
  y, x = np.divmod(np.arange(math.prod(grid)), grid[1])
  angles = (axis[:, None] * frequency for axis in (x, y))
  return np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], 1)
