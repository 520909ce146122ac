"""Random numbers: drawn by name for every example, or replayed.

Vocabulary: b batch, t tokens, v vocabulary.
"""

import zlib
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray


@flax.struct.dataclass
class Draw:
  """Every random number of the library, one key per example.

  Draws are named, and a name begins with the part that draws ('feed/noise'), so
  that two draws of one step never share bits and so that recorded draws can be
  replayed by name. A key depends on (seed, step, global example index) alone: the
  batch an example sits in does not matter.

  Attributes:
    keys: (b,) typed PRNG keys.
    progress: share of the run that is over, for what is drawn differently late
      in a run; None outside of training.
  """

  keys: jax.Array
  progress: Any = None

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
    """The draws of the i-th pass through a loop."""
    keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(self.keys, i)
    return self.replace(keys=keys)

  def normal(self, name: str, shape: tuple[int, ...] = ()) -> jax.Array:
    """(b, *shape) float32 standard normal numbers."""
    return self._map(name, lambda key: jax.random.normal(key, shape))

  def uniform(self, name: str, shape: tuple[int, ...] = ()) -> jax.Array:
    """(b, *shape) float32 numbers in [0, 1)."""
    return self._map(name, lambda key: jax.random.uniform(key, shape))

  def categorical(self, name: str, logits: jax.Array) -> jax.Array:
    """(b, ...) int32 samples of float32 logits (b, ..., v)."""
    keys = self._named(name)
    sample = jax.vmap(lambda key, row: jax.random.categorical(key, row))
    return sample(keys, logits).astype(jnp.int32)

  def permutation(self, name: str, n: int) -> jax.Array:
    """(b, n) int32: a random order of n things for every example."""
    return self._map(name, lambda key: jax.random.permutation(key, n))

  def key(self, name: str) -> jax.Array:
    """One key for draws that are not per example (dropout of a batch)."""
    return self._named(name)[0]

  def _named(self, name: str) -> jax.Array:
    code = np.uint32(zlib.crc32(name.encode()))
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(self.keys, code)

  def _map(self, name, draw):
    return jax.vmap(draw)(self._named(name))


@flax.struct.dataclass
class Replay:
  """A `Draw` that returns recorded arrays.

  Attributes:
    arrays: name, with or without its part, -> array, or a tuple of arrays where their shapes differ; every
      `fold(i)` takes the i-th row of all of them.
    progress: see `Draw`.
    size: batch size of the recording.
  """

  arrays: dict[str, Any]
  progress: Any = None
  size: int = flax.struct.field(pytree_node=False, default=1)

  @property
  def batch(self) -> int:
    return self.size

  def fold(self, i: int | Array) -> 'Replay':
    rows = {
      k: v[i] if isinstance(v, tuple) else jnp.asarray(v)[i]
      for k, v in self.arrays.items()
    }
    return self.replace(arrays=rows)

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

  uniform = normal

  def categorical(self, name: str, logits: jax.Array) -> jax.Array:
    return self._get(name, logits.shape[1:-1])

  def permutation(self, name: str, n: int) -> jax.Array:
    return self._get(name, (n,))


@flax.struct.dataclass
class Picked:
  """The random numbers of some tokens, as if all tokens had been drawn.

  The numbers of a token depend on its place alone, and not on which other tokens
  are sampled in the same step.

  Attributes:
    draw: a `Draw` or a `Replay`, which draws numbers for all tokens.
    place: (b, m) int32 raster indices of the tokens that are picked.
    tokens: static; of an example.
  """

  draw: Any
  place: Array
  tokens: int = flax.struct.field(pytree_node=False)

  @property
  def batch(self) -> int:
    return self.draw.batch

  def fold(self, i: int | Array) -> 'Picked':
    return self.replace(draw=self.draw.fold(i))

  def normal(self, name: str, shape: tuple[int, ...]) -> jax.Array:
    """(b, m, ...) float32, given a shape (m, ...)."""
    drawn = self.draw.normal(name, (self.tokens, *shape[1:]))
    place = jnp.asarray(self.place).reshape(
      *self.place.shape, *[1] * (len(shape) - 1)
    )
    return jnp.take_along_axis(drawn, place, 1)

  def categorical(self, name: str, logits: jax.Array) -> jax.Array:
    """(b, m) int32, given logits (b, m, v)."""
    batch, _, size = logits.shape
    place = jnp.asarray(self.place)
    whole = jnp.zeros((batch, self.tokens, size), logits.dtype)
    whole = jax.vmap(lambda w, p, x: w.at[p].set(x))(whole, place, logits)
    drawn = self.draw.categorical(name, whole)
    return jnp.take_along_axis(drawn, place, 1)
