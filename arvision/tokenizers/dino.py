"""The discriminator on features of DINO: a frozen transformer, small heads.

Source: Sauer et al., arXiv 2301.09515 (StyleGAN-T), as FoundationVision/vaex,
models/dino.py, and amazon-far/BAR, modeling/modules/discriminator_dino.py, have it.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.errors import ConfigError
from arvision.kernels.attention import AttentionMask
from arvision.layers.attention import Attention, BlockInputs
from arvision.layers.blocks import GELU, Block
from arvision.layers.conv import conv, norm
from arvision.layers.norm import AffineLayerNorm
from arvision.layers.param import fixed, normal, param
from arvision.layers.stack import Stack
from arvision.layouts import masks
from arvision.ranges import Few, Natural, Side, Width
from arvision.tokenizers.adversarial import BatchNorm

# Collection of the vectors of the power iterations, see `SpectralConv`.
SPECTRAL = 'spectral'
_EPSILON = 1e-6


class ViT(nn.Module):
  """Features of patches before the blocks and after some of them.

  To every patch the class row is added, as StyleGAN-T does it.

  Attributes:
    width: d.
    depth: number of blocks.
    heads: attention heads.
    patch: side of the square patches, in pixels.
    taps: numbers of the blocks whose outputs are features, from 0 on.
  """

  width: Width = 384
  depth: Few = 12
  heads: Few = 6
  patch: Side = 16
  taps: tuple[Natural, ...] = (2, 5, 8, 11)

  @nn.compact
  def __call__(self, image: jax.Array) -> list[jax.Array]:
    """(b, H, W, 3), normalised -> features (b, n, d) float32, 1 + taps."""
    if max(self.taps, default=0) >= self.depth:
      raise ConfigError(
        f'taps={self.taps}: the transformer has blocks 0 to {self.depth - 1}'
      )
    patches = conv(
      self.width,
      self.patch,
      stride=self.patch,
      padding=((0, 0),) * 2,
      name='patches',
    )
    x = patches(image).reshape(len(image), -1, self.width)
    own = self._table('class_embedding', 1)
    own = jnp.broadcast_to(own, (len(x), 1, self.width))
    x = jnp.concatenate([own, x], 1)
    x = x + self._table('position', x.shape[1])
    part = functools.partial
    block = part(
      Block,
      attention=part(Attention, biases=('q', 'k', 'v', 'out')),
      mlp=part(GELU, hidden=4 * self.width),
      norm=part(AffineLayerNorm, epsilon=_EPSILON),
      heads=self.heads,
    )
    every = masks.same(np.zeros(x.shape[1], np.int32))
    stack = Stack(block, self.depth, keep=True, name='stack')
    _, (_, kept) = stack(x, BlockInputs(mask=AttentionMask(every)))
    layers: Any = [x, *(kept[i] for i in self.taps)]
    return [y[:, 1:] + y[:, :1] for y in layers]

  def _table(self, name, rows):
    shape = (rows, self.width)
    table = param(self, name, normal(0.02), (None, 'embed'), shape)
    return jnp.asarray(table)


class SpectralConv(nn.Module):
  """A circular convolution along a sequence, its kernel over its spectral norm.

  The norm is estimated by one power iteration per step. Its vector is the
  parameter `u`, which is never trained: a pass puts the next one into the
  collection `SPECTRAL`, and the task stores it.

  Source: Miyato et al., arXiv 1802.05957; torch.nn.utils.spectral_norm.

  Attributes:
    features: output channels.
    kernel: its length, odd.
  """

  features: Width
  kernel: Few = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """(b, n, c) -> (b, n, features) float32."""
    shape = (self.kernel, x.shape[-1], self.features)
    init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
    kernel = param(self, 'kernel', init, (None, 'conv_in', 'conv_out'), shape)
    bound = math.prod(shape[:2]) ** -0.5
    start = lambda key, shape, dtype=jnp.float32: jax.random.uniform(
      key, shape, dtype, -bound, bound
    )
    bias = param(self, 'bias', start, ('conv_out',), (self.features,))
    u = fixed(self, 'u', normal(1.0), (None,), (self.features,))
    kernel = jnp.asarray(kernel)
    matrix = kernel.reshape(-1, self.features)
    still = jax.lax.stop_gradient(matrix)
    v = unit(still @ unit(u))
    u = unit(v @ still)
    last = lambda old, new: new
    self.sow(SPECTRAL, 'u_fixed', u, reduce_fn=last, init_fn=lambda: None)
    half = self.kernel // 2
    if half:
      x = jnp.concatenate([x[:, -half:], x, x[:, :half]], 1)
    y = jax.lax.conv_general_dilated(
      x.astype(jnp.float32),
      kernel / (v @ matrix @ u),
      (1,),
      'VALID',
      dimension_numbers=('NWC', 'WIO', 'NWC'),
    )
    return y + bias


def unit(x: jax.Array) -> jax.Array:
  """x / |x|."""
  return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)


class Heads(nn.Module):
  """Logits of every patch in every layer of features.

  Attributes:
    kernel: length of the second convolution of a head.
    norm: 'batch' or 'group'.
    examples: examples that share the statistics of a batch norm, at most; 0: all.
    groups: of the group norm.
  """

  kernel: Few = 9
  norm: str = 'batch'
  examples: Natural = 8
  groups: Few = 32

  @nn.compact
  def __call__(self, features: list[jax.Array]) -> jax.Array:
    """Features (b, n, d) of l layers -> (b, l n) float32 logits."""
    if self.norm not in ('batch', 'group'):
      raise ConfigError(
        f"config.task.adversary.net.norm='{self.norm}': wanted 'batch' or "
        "'group'"
      )
    logits = []
    for i, x in enumerate(features):
      x = self._block(x, 1, f'head_{i}_first')
      x = (self._block(x, self.kernel, f'head_{i}_second') + x) / math.sqrt(2)
      logits.append(SpectralConv(1, name=f'head_{i}_logits')(x)[..., 0])
    return jnp.concatenate(logits, 1)

  def _block(self, x, kernel, name):
    y = SpectralConv(x.shape[-1], kernel, name=f'{name}_conv')(x)
    if self.norm == 'batch':
      y = BatchNorm(
        _EPSILON, examples=self.examples, std=0.0, name=f'{name}_norm'
      )(y)
    else:
      y = norm(y.shape[-1], self.groups, name=f'{name}_norm', epsilon=_EPSILON)(
        y
      )
    return nn.leaky_relu(y, 0.2)
