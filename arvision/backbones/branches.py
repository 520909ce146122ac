"""A decoder with several outputs per slot, each for a prediction of its own."""

import jax.numpy as jnp

from arvision.backbones.decoder import Decoder


class Branches(Decoder):
  """A trunk, and layers after it for every further branch (NAR).

  Branch 0 is read after the trunk of `depth` layers, branch r after r times
  `extra` layers more; every branch has a last norm of its own.

  Source: arXiv 2503.10696; ThisisBillhe/NAR, whose one further branch has one
  layer.

  Attributes:
    branches: how many.
    extra: layers between one branch and the next.
  """

  branches: int = 2
  extra: int = 1

  @property
  def layers(self):
    return self.depth + (self.branches - 1) * self.extra

  def _layers(self, x, inputs, cond, cache, layout, slots):
    hidden, written, start = [], (), 0
    for r in range(self.branches):
      end = f'_{r}' if r else ''
      depth = self.extra if r else self.depth
      own = None if cache is None else cache[start : start + depth]
      x, own = self._stack(f'stack{end}', depth)(x, inputs, own)
      written += own or ()
      start += depth
      hidden.append(self._last_norm(f'norm{end}', x, cond))
    return jnp.stack(hidden, axis=2), written if cache is not None else None
