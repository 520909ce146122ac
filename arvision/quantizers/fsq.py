"""Finite scalar quantisation: every channel becomes one of a few levels."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from arvision.quantizers.base import Quantizer
from arvision.random import Draw
from arvision.ranges import Few, Fews


class FSQ(Quantizer, kw_only=True):
  """The rounded tanh of every channel.

  All channels together are one id, or groups of channels are one id each.

  Source: Mentzer et al., arXiv 2309.15505, appendix A.1.

  Attributes:
    levels: of every channel.
    ids: ids of a token; each has as many channels and as many values.
  """

  levels: Fews
  ids: Few = 1

  adjustable: ClassVar[tuple[str, ...]] = ('ids',)

  @property
  def channels(self) -> int:
    return len(self.levels)

  @property
  def size(self) -> int:
    key = 'config.tokenizer.quantizer'
    if self.channels % self.ids:
      raise ValueError(
        f'{key}.ids={self.ids} does not divide the {self.channels} channels of '
        f'{key}.levels'
      )
    sizes = sorted({int(x) for x in np.prod(self._groups, -1)})
    if len(sizes) > 1:
      raise ValueError(
        f'{key}.levels={self.levels}: the {self.ids} ids of a token have '
        f'{" and ".join(map(str, sizes))} values; all need as many'
      )
    return sizes[0]

  @property
  def parts(self) -> int:
    return self.ids

  @property
  def radices(self) -> tuple[int, ...]:
    return tuple(self.levels)

  def latent(self, moments: jax.Array, draw: Draw | None = None) -> jax.Array:
    """Within the levels of every channel, from about -1 to 1."""
    levels = np.array(self.levels, np.float32)
    width = (levels - 1) * 1.001 / 2
    offset = np.where(levels % 2, 0, 0.5).astype(np.float32)
    bound = jnp.tanh(moments + np.arctanh(offset / width)) * width - offset
    return self._number(bound + self._half)

  def quantize(self, latent: jax.Array) -> jax.Array:
    digits = jnp.round(self._level(latent)).astype(jnp.int32)
    digits = digits.reshape(*latent.shape[:-1], *self._groups.shape)
    values = jnp.sum(digits * self._basis, -1)
    return values if self.ids > 1 else values[..., 0]

  def embed(self, values: jax.Array) -> jax.Array:
    return self._number(self.digits(values))

  def _number(self, level):
    """Levels from 0 on, in between too -> numbers of the latent."""
    return (level - self._half) / self._half

  def _level(self, latent):
    return latent * self._half + self._half

  @property
  def _half(self):
    return np.float32(np.array(self.levels) // 2)

  @property
  def _groups(self):
    """(ids, channels of an id) int32 levels."""
    return np.array(self.levels, np.int32).reshape(self.ids, -1)

  @property
  def _basis(self):
    ones = np.ones((self.ids, 1), np.int32)
    return np.cumprod(np.hstack([ones, self._groups[:, :-1]]), -1, np.int32)


class SymmetricFSQ(FSQ, kw_only=True):
  """The same with levels at equal distances from -1 to 1.

  FSQ has even numbers of levels end before 1: two of them are -1 and 0.

  Source: arXiv 2602.09024 (BAR), whose two levels are -1 and 1.
  """

  def _number(self, level):
    return 2 * level / self._last - 1

  def _level(self, latent):
    return (latent + 1) * self._last / 2

  @property
  def _last(self):
    return np.float32(np.array(self.levels)) - 1
