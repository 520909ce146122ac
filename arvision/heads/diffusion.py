"""A distribution over latents by diffusion, token by token."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.layers.dense import Dense
from arvision.layers.level import LevelEmbedding
from arvision.layers.norm import AffineLayerNorm, LayerNorm, modulate
from arvision.layers.param import normal
from arvision.layers.stack import BlockInputs, Stack
from arvision.process import diffusion
from arvision.process.counts import Counts, Same
from arvision.structs import Draw, Slots


class ResidualBlock(nn.Module):
  """x + gate * fc2(silu(fc1(norm(x) (1 + scale) + shift))).

  Shift, scale and gate come from the modulation by a linear map that starts at
  zero.

  Attributes:
    width: of x and of the modulation.
    dtype: compute dtype.
  """

  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, drop, rest, cache=None):
    """x (b, n, w) -> (x, None); `rest.modulation` is (b, 1 or n, w)."""
    del drop, cache

    def linear(name, features, names, std=None):
      return Dense(
        features, names, kernel_init=normal(std), dtype=self.dtype, name=name
      )

    three = linear('adaln', (3, self.width), ('embed', None, 'mlp'), 0.0)(
      jax.nn.silu(rest.modulation)
    )
    shift, scale, gate = (three[..., i, :] for i in range(3))
    y = AffineLayerNorm(dtype=self.dtype, name='norm')(x)
    y = linear('fc1', (self.width,), ('embed', 'mlp'))(
      modulate(y, scale, shift)
    )
    y = linear('fc2', (self.width,), ('mlp', 'embed'))(jax.nn.silu(y))
    return x + gate * y, None


class Diffusion(nn.Module):
  """Diffusion of every token by itself, given z: a small MLP with adaLN (MAR).

  Source: arXiv 2406.11838; LTH14/mar, models/diffloss.py and diffusion/.

  Attributes:
    channels: of a token.
    width: of the MLP.
    depth: residual blocks.
    repeats: times that every token is trained on, each at its own time and
      with its own noise; z is computed once.
    counts: diffusion steps at every step of the sampler.
    highest: time that sampling starts from. As published it is the last, where
      x is 20 000 times what the network says wrong of the noise; at 990 it is 71
      times. That matters to small models.
    remat, unroll: see `Stack`.
    dtype: compute dtype of the blocks.
  """

  channels: int
  width: int
  depth: int
  repeats: int = 4
  counts: Counts = Same(100)
  highest: int = diffusion.TRAIN_STEPS - 1
  remat: str = 'none'
  unroll: int = 1
  dtype: Any = jnp.float32

  adjustable: ClassVar[tuple[str, ...]] = (
    'counts',
    'highest',
    'remat',
    'unroll',
  )

  def setup(self):
    def linear(features, names, std=None):
      return Dense(features, names, kernel_init=normal(std))

    self.input = linear((self.width,), (None, 'embed'))
    self.cond = linear((self.width,), ('embed', 'mlp'))
    self.time = LevelEmbedding(self.width)
    self.stack = Stack(
      functools.partial(ResidualBlock, self.width, self.dtype),
      self.depth,
      remat=self.remat,
      unroll=min(self.unroll, self.depth),
    )
    self.norm = LayerNorm()
    self.adaln = linear((2, self.width), ('embed', None, 'mlp'), 0.0)
    self.linear = linear((2, self.channels), ('embed', None, None), 0.0)

  def field(
    self, z: jax.Array, x: jax.Array, times: jax.Array, at: Slots | None = None
  ) -> jax.Array:
    """The noise in x, and where its variance lies, see `process.diffusion`.

    Args:
      z: (b, t, 1, d).
      x: (b, t, c) float32 tokens with noise; (b, r t, c) with r times as many,
        all tokens once, then again.
      times: (b or 1, 1 or r t) int32 in [0, 1000).
      at: not read.

    Returns:
      (b, r t, 2, c) float32.
    """
    cond = self.cond(z[:, :, 0].astype(jnp.float32))
    cond = jnp.concatenate([cond] * (x.shape[1] // z.shape[1]), 1)
    cond = cond + self.time(times)
    inputs = BlockInputs(mask=None, modulation=cond.astype(self.dtype))
    h, _ = self.stack(self.input(x).astype(self.dtype), inputs)
    two = self.adaln(jax.nn.silu(cond))
    h = self.norm(h.astype(jnp.float32))
    return self.linear(modulate(h, two[..., 1, :], two[..., 0, :]))

  def loss(
    self, z: jax.Array, targets: jax.Array, draw: Draw, at: Slots
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean squared error of the noise, and the bound that the variance learns.

    Args:
      z: (b, t, 1, d).
      targets: (b, t, c) float32 tokens.
      draw: 'time' (repeats, t), of which a thousandth is a step, and 'noise'
        (repeats, t, c) of an example.
      at: rows of the slots that z was read from.

    Returns:
      (b, t) float32 losses, and the metrics 'mse' and 'bound' (bits).
    """
    terms = self.terms(z, targets, draw, at)
    mse, bits = (jnp.mean(x, 1) for x in terms)
    return mse + bits, {'mse': mse, 'bound': bits}

  def terms(
    self, z: jax.Array, targets: jax.Array, draw: Draw, at: Slots
  ) -> tuple[jax.Array, jax.Array]:
    """Both parts of `loss`, (b, repeats, t) float32 each."""
    batch, count, _ = targets.shape
    shape = (self.repeats, count)
    steps = diffusion.TRAIN_STEPS
    time = jnp.floor(draw.uniform('time', shape) * steps).astype(jnp.int32)
    time = jnp.minimum(time, steps - 1).reshape(batch, -1)
    noise = draw.normal('noise', (*shape, self.channels))
    noise = noise.reshape(batch, -1, self.channels)
    x = jnp.concatenate([targets] * self.repeats, 1)
    rows = diffusion.rows(diffusion.train_table(), time)
    noisy = diffusion.noised(rows, x, noise)
    field = self.field(z, noisy, time, at)
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
    guide: Callable[..., jax.Array],
    choose: Any,
    at: Slots,
  ) -> jax.Array:
    """Tokens (b, t, c) float32, by ancestral sampling from noise to data.

    The noise is guided, the variance is that of the conditional half. Both
    halves look at the same x.

    Args:
      z: (b or 2b, t, 1, d); conditional rows, then null rows.
      draw: 'noise' (t, c) of an example: the first at `fold(0)`, what the i-th
        step adds at `fold(i + 1)`.
      guide: merges the two halves of the noise at a level.
      choose: its temperature multiplies the noise that steps add.
      at: rows of the slots, with the step of the sampler.

    Raises:
      ValueError: `choose` filters ids.
    """
    if choose.top_k or 0 < choose.top_p < 1:
      raise ValueError(
        f'top_k={choose.top_k}, top_p={choose.top_p}: latents have no ids to '
        'choose from; wanted config.sampler.choice with a temperature alone'
      )
    tables, number, count = self._tables(at)
    shape = (z.shape[1], self.channels)
    start = draw.fold(0).normal('noise', shape)
    halves = len(z) // len(start)
    head, variables = self.unbind()

    def advance(i, x):
      k = count - 1 - i
      rows = {name: table[number, k] for name, table in tables.items()}
      time = rows.pop('times')
      both = jnp.concatenate([x] * halves)
      field: Any = head.apply(
        variables, z, both, time[None, None], method='field'
      )
      seen = guide(field[..., 0, :], time / diffusion.TRAIN_STEPS)
      share = field[: len(x), ..., 1, :]
      noise = draw.fold(i + 1).normal('noise', shape)
      noise = jnp.where(k > 0, choose.temperature * noise, 0)
      return diffusion.step_back(rows, (seen, share), x, noise)

    # The trip count may be traced: one program for all counts.
    return jax.lax.fori_loop(0, count, advance, start)

  def _tables(self, at):
    """Tables of all counts, (counts, longest); the row and the count of now."""
    steps = max(at.steps, 1)
    counts = [self.counts(s, steps) for s in range(steps)]
    kinds = sorted({*counts})
    tables = [diffusion.sample_table(count, self.highest) for count in kinds]
    short = lambda x: np.pad(x, (0, kinds[-1] - len(x)))

    def stacked(get, dtype):
      return jnp.asarray(np.stack([short(get(t)) for t in tables]), dtype)

    found = {
      name: stacked(lambda t, name=name: t.numbers[name], jnp.float32)
      for name in tables[0].numbers
    }
    found['times'] = stacked(lambda t: t.times, jnp.int32)
    if len(kinds) == 1:
      return found, 0, kinds[0]
    number = np.array([kinds.index(count) for count in counts])
    return found, jnp.asarray(number)[at.step], jnp.asarray(counts)[at.step]
