"""Random streams: named random numbers per example, sampled or replayed.

Vocabulary: b batch, t tokens, v vocabulary.
"""

import zlib

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray


@flax.struct.dataclass
class Draw:
  """The random stream of the library, with one key per example.

  Every draw has a name that starts with its part ('feed/noise'). So draws of
  one step are independent, and recorded ones can be replayed by name. A key
  depends on (seed, step, global example index) only, not on the batch.

  Attributes:
    keys: (b,) typed PRNG keys.
    progress: share of the run that is over, in [0, 1], for draws that depend on
      it; None outside of training.
    odds: (times,) float32 probabilities of the times of a diffusion, where a task
      adapts them; None: those of the feed.
  """

  keys: jax.Array
  progress: Array | float | None = None
  odds: Array | None = None

  @classmethod
  def create(cls, seed: int | Array, index: Array, step: int | Array = 0):
    """Keys of the examples with global indices `index` (b,) at a step."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    return cls(fold(key, jnp.asarray(index, jnp.uint32)))

  @property
  def batch(self) -> int:
    return self.keys.shape[0]

  def fold(self, i: int | Array) -> 'Draw':
    """The random stream of the i-th iteration of a loop."""
    keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(self.keys, i)
    return self.replace(keys=keys)

  def normal(self, name: str, shape: tuple[int, ...] = ()) -> jax.Array:
    """(b, *shape) float32 standard normal numbers."""
    return self._map(name, lambda key: jax.random.normal(key, shape))

  def uniform(self, name: str, shape: tuple[int, ...] = ()) -> jax.Array:
    """(b, *shape) float32 numbers in [0, 1)."""
    return self._map(name, lambda key: jax.random.uniform(key, shape))

  def gumbel(self, name: str, shape: tuple[int, ...] = ()) -> jax.Array:
    """(b, *shape) float32 standard Gumbel numbers."""
    return gumbel(self.uniform(name, shape))

  def exponential(self, name: str, shape: tuple[int, ...] = ()) -> jax.Array:
    """(b, *shape) float32 standard exponential numbers of 64 random bits."""
    words = self._map(name, lambda key: jax.random.bits(key, (2, *shape)))
    return exponential(words[:, 0], words[:, 1])

  def categorical(self, name: str, logits: jax.Array) -> jax.Array:
    """(b, ...) int32 samples of float32 logits (b, ..., v)."""
    keys = self._named(name)
    sample = jax.vmap(lambda key, row: jax.random.categorical(key, row))
    return sample(keys, logits).astype(jnp.int32)

  def permutation(self, name: str, n: int) -> jax.Array:
    """(b, n) int32 random permutations of range(n), one per example."""
    return self._map(name, lambda key: jax.random.permutation(key, n))

  def key(self, name: str) -> jax.Array:
    """One key for random numbers of the whole batch (dropout)."""
    return self._named(name)[0]

  def _named(self, name: str) -> jax.Array:
    code = np.uint32(zlib.crc32(name.encode()))
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(self.keys, code)

  def _map(self, name, sample):
    return jax.vmap(sample)(self._named(name))


@flax.struct.dataclass
class Replay:
  """A `Draw` that returns recorded arrays.

  Attributes:
    arrays: name, with or without its part, -> array, or a tuple of arrays of
      different shapes. `fold(i)` takes entry i of all.
    progress, odds: see `Draw`.
    size: batch size of the recording.
  """

  arrays: dict[str, Array | tuple[Array, ...]]
  progress: Array | float | None = None
  odds: Array | None = None
  size: int = flax.struct.field(pytree_node=False, default=1)

  @property
  def batch(self) -> int:
    return self.size

  def fold(self, i: int | Array) -> 'Replay':
    arrays = {
      k: v[i] if isinstance(v, tuple) else jnp.asarray(v)[i]
      for k, v in self.arrays.items()
    }
    return self.replace(arrays=arrays)

  def _get(self, name, shape):
    if name not in self.arrays:
      name = name.rpartition('/')[2]
    if name not in self.arrays:
      raise KeyError(
        f"no draw '{name}' was recorded; recorded: {sorted(self.arrays)}"
      )
    array = jnp.asarray(self.arrays[name])
    if array.shape != (self.size, *shape):
      raise ValueError(
        f"draw '{name}': recorded {array.shape}, wanted {(self.size, *shape)}"
      )
    return array

  def normal(self, name: str, shape: tuple[int, ...] = ()) -> jax.Array:
    return self._get(name, shape)

  uniform = gumbel = exponential = normal

  def categorical(self, name: str, logits: jax.Array) -> jax.Array:
    return self._get(name, logits.shape[1:-1])

  def permutation(self, name: str, n: int) -> jax.Array:
    return self._get(name, (n,))


@flax.struct.dataclass
class Picked:
  """The random stream of some tokens: a slice of the numbers of all tokens.

  So the numbers of a token depend on its position only, not on the other tokens
  that are sampled in the same step.

  Attributes:
    draw: a `Draw` or `Replay` for all tokens.
    position: (b, m) int32 raster indices of the tokens.
    tokens: static; number of tokens of an example.
  """

  draw: Draw | Replay
  position: Array
  tokens: int = flax.struct.field(pytree_node=False)

  @property
  def batch(self) -> int:
    return self.draw.batch

  def fold(self, i: int | Array) -> 'Picked':
    return self.replace(draw=self.draw.fold(i))

  def normal(self, name: str, shape: tuple[int, ...]) -> jax.Array:
    """(b, m, ...) float32, given a shape (m, ...)."""
    return self._of(self.draw.normal, name, shape)

  def gumbel(self, name: str, shape: tuple[int, ...]) -> jax.Array:
    """(b, m, ...) float32, given a shape (m, ...)."""
    return self._of(self.draw.gumbel, name, shape)

  def exponential(self, name: str, shape: tuple[int, ...]) -> jax.Array:
    """(b, m, ...) float32, given a shape (m, ...)."""
    return self._of(self.draw.exponential, name, shape)

  def _of(self, sample, name, shape):
    drawn = sample(name, (self.tokens, *shape[1:]))
    ones = [1] * (len(shape) - 1)
    position = jnp.reshape(self.position, (*self.position.shape, *ones))
    return jnp.take_along_axis(drawn, position, 1)

  def categorical(self, name: str, logits: jax.Array) -> jax.Array:
    """(b, m) int32, given logits (b, m, v)."""
    batch, _, size = logits.shape
    position = jnp.asarray(self.position)
    whole = jnp.zeros((batch, self.tokens, size), logits.dtype)
    whole = jax.vmap(lambda w, p, x: w.at[p].set(x))(whole, position, logits)
    drawn = self.draw.categorical(name, whole)
    return jnp.take_along_axis(drawn, position, 1)


def gumbel(u: jax.Array) -> jax.Array:
  """Standard Gumbel numbers of numbers that are uniform in [0, 1)."""
  u = jnp.maximum(u, 1e-20)
  return -jnp.log(jnp.maximum(-jnp.log(u), 1e-20))


def exponential(high: jax.Array, low: jax.Array) -> jax.Array:
  """Standard exponential numbers of the words of 64 random bits.

  The bits are those of x in (0, 1), and the number is -log(1 - x). Float32 has 24
  bits of every x, however small, so numbers down to 2^-65 occur; uniform float32
  numbers end at 2^-23.

  Args:
    high, low: uint32 words.

  Returns:
    float32, with a relative error of some 1e-7.
  """
  # 1 - x of the upper half has the inverted bits.
  upper = high >= np.uint32(1 << 31)
  high, low = jnp.where(upper, ~high, high), jnp.where(upper, ~low, low)
  rest = (low.astype(jnp.float32) + 0.5) * 2.0**-32
  x = (high.astype(jnp.float32) + rest) * 2.0**-32
  return jnp.where(upper, -jnp.log(x), -jnp.log1p(-x))
