"""A transformer over the noisy tokens of an entity, conditioned on z."""

import functools
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.kernels.attention import AttentionMask
from arvision.layers.attention import BlockInputs, Memory
from arvision.layers.dense import Dense
from arvision.layers.level import LevelEmbedding
from arvision.layers.norm import modulate
from arvision.layers.param import normal
from arvision.layers.position import Rotary
from arvision.layers.stack import Stack
from arvision.layouts import masks
from arvision.parallel.constrain import gather_rows
from arvision.ranges import AtLeast0, Dtype, Few, Width
from arvision.structs import Query, Template


class EntityTransformer(nn.Module):
  """Blocks with adaLN over noisy tokens, which see those of their own entity.

  Base of the heads that denoise the tokens of an entity together.

  Source: arXiv 2412.15205 (FlowAR); arXiv 2212.09748 (DiT).

  Attributes:
    channels: of a token.
    width: of the transformer.
    depth: number of layers.
    heads: attention heads.
    block: template of a block, with those of its parts. Condition and level
      modulate it token by token; `block.cross` reads z again.
    last_norm: template of the last norm.
    rotary: rotations by coordinates, or None.
    std: standard deviation of the maps outside of the blocks; None: Xavier's.
    remat, unroll: see `Stack`.
    dtype: compute dtype of the blocks.
  """

  channels: Width
  width: Width
  depth: Few
  heads: Few
  block: Template
  last_norm: Template
  rotary: Rotary | None = None
  std: AtLeast0 | None = None
  remat: str = 'none'
  unroll: Few = 1
  dtype: Dtype = jnp.float32

  draws: ClassVar[bool] = True

  def setup(self):
    level, last = self.stds

    def linear(features, names, std=self.std):
      return Dense(features, names, kernel_init=normal(std))

    block = functools.partial(self.block, heads=self.heads, dtype=self.dtype)
    self.input = linear((self.width,), (None, 'embed'))
    self.cond = linear((self.width,), ('embed', 'mlp'))
    self.level = LevelEmbedding(self.width, std=level)
    self.stack = Stack(
      block,
      self.depth,
      remat=self.remat,
      unroll=min(self.unroll, self.depth),
    )
    self.out_norm = self.last_norm()
    self.last_adaln = linear((2, self.width), ('embed', None, 'mlp'), last)
    self.linear = linear((self.channels,), ('embed', None), last)

  @property
  def stds(self) -> tuple[float | None, float | None]:
    """Standard deviations of the maps of levels, and of the last maps."""
    return self.std, self.std

  def embed(self, x: jax.Array) -> jax.Array:
    """Noisy tokens (b, t, c) -> (b, t, w)."""
    return self.input(x)

  def network(
    self, z: jax.Array, x: jax.Array, times: jax.Array, query: Query
  ) -> jax.Array:
    """Outputs (b, t, c) float32 for noisy tokens.

    Args:
      z: (b, t, 1, d).
      x: (b, t, c) float32.
      times: (b, s) of every entity, or (b or 1, 1) where all have the same; see
        `layers.level.sinusoid`.
      query: `entity` and `coords` of the tokens.
    """
    z = z[:, :, 0]
    level = self.level(times)
    if level.shape[1] > 1:
      level = gather_rows(level, query.entity)
    cond = self.cond(z.astype(jnp.float32)) + level
    rotation = None
    if self.rotary is not None:
      rotation = self.rotary.at(query.coords, self.width // self.heads)
    mask = _within(query.entity)
    inputs = BlockInputs(
      mask=mask,
      modulation=cond,
      level=level,
      memory=Memory(z, mask, rotation),
      rotation=rotation,
    )
    h, _ = self.stack(self.embed(x).astype(self.dtype), inputs)
    two = self.last_adaln(jax.nn.silu(cond))
    h = self.out_norm(h.astype(jnp.float32))
    return self.linear(modulate(h, two[..., 1, :], two[..., 0, :]))


def _within(entity):
  """The mask of tokens that see those of their own entity (t,) alone."""
  if isinstance(entity, np.ndarray):
    return AttentionMask(masks.same(entity))
  return (entity[:, None] == entity)[None]
