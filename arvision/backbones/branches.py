"""A decoder with several outputs per slot, each for a prediction of its own."""

import jax.numpy as jnp

from arvision.backbones.decoder import Decoder
from arvision.ranges import Few, Natural


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

  branches: Few = 2
  extra: Natural = 1

  @property
  def stacks(self):
    depths = self.depth, *(self.extra,) * (self.branches - 1)
    return tuple((depth, self.width, self.heads) for depth in depths)

  def _layers(self, x, inputs, cond, cache, layout, slots):
    hidden, written = [], []
    for r, (depth, *_) in enumerate(self.stacks):
      end = f'_{r}' if r else ''
      own = None if cache is None else cache[r]
      x, own = self._stack(f'stack{end}', depth)(x, inputs, own)
      written.append(own)
      hidden.append(self._last_norm(f'norm{end}', x, cond))
    caches = None if cache is None else tuple(written)
    return jnp.stack(hidden, axis=2), caches
