"""Lookup-free quantisation: every channel becomes its sign (MAGVIT-v2, MaskBit)."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from arvision.metrics import Mean
from arvision.quantizers.base import Losses, Quantizer
from arvision.quantizers.lookup import nats
from arvision.random import Draw
from arvision.ranges import AtLeast0, Few, Positive, Share, Width

# Bits whose combinations are computed at once.
_AT_ONCE = 10


class LFQ(Quantizer, kw_only=True):
  """Bits: 1 where a channel is positive; their vectors are -1 and 1.

  A token is one id or several, each of as many bits, the first channel lowest.

  Source: arXiv 2310.05737; markweberdev/maskbit (arXiv 2409.16211).

  Attributes:
    channels: number of bits.
    ids: ids of a token; they divide the bits.
    commitment: weight of the pull on the encoder towards its signs.
    entropy: weight of H(code of a place) - gamma H(mean code), see `entropies`.
    gamma: see `entropy`.
    temperature: of the distribution of a place's code.
    extra: added to `entropy` at the start, as a multiple of it; it falls to 0.
    extra_until: share of the run after which it is 0.
  """

  channels: Width
  ids: Few = 1
  commitment: AtLeast0 = 0.25
  entropy: AtLeast0 = 0.0
  gamma: AtLeast0 = 1.0
  temperature: Positive = 0.01
  extra: AtLeast0 = 0.0
  extra_until: Share = 0.0

  adjustable: ClassVar[tuple[str, ...]] = ('ids',)

  @property
  def size(self) -> int:
    if self.channels % self.ids:
      raise ValueError(
        f'config.tokenizer.quantizer.ids={self.ids} does not divide '
        f'{self.channels} channels'
      )
    return 2 ** (self.channels // self.ids)

  @property
  def parts(self) -> int:
    return self.ids

  @property
  def radices(self) -> tuple[int, ...]:
    return (2,) * self.channels

  def pull(self, latent: jax.Array, vectors: jax.Array) -> Losses:
    square = (jax.lax.stop_gradient(vectors) - latent) ** 2
    return {'commitment': self.commitment * jnp.mean(square)}

  def spread(self, latent: jax.Array, draw: Draw | None = None) -> Losses:
    if not self.entropy:
      return {}
    flat = latent.reshape(-1, self.channels)
    each, mean = entropies(flat, self.temperature)
    weight = jnp.asarray(self.entropy)
    if self.extra_until and draw is not None and draw.progress is not None:
      left = jnp.maximum(1 - draw.progress / self.extra_until, 0)
      weight *= 1 + self.extra * left
    return {'entropy': weight * (each - self.gamma * mean)}

  def metrics(self, latent: jax.Array) -> dict[str, Mean]:
    return {'bits_set': Mean.of(latent > 0)}

  def quantize(self, latent: jax.Array) -> jax.Array:
    bits = (latent > 0).astype(jnp.int32)
    bits = bits.reshape(*latent.shape[:-1], self.ids, -1)
    values = jnp.sum(bits << np.arange(bits.shape[-1]), -1)
    return values if self.ids > 1 else values[..., 0]

  def embed(self, values: jax.Array) -> jax.Array:
    return 2.0 * jnp.asarray(self.digits(values)) - 1


def entropies(
  latent: jax.Array, temperature: float = 0.01
) -> tuple[jax.Array, jax.Array]:
  """Mean entropy of a place's code, and entropy of the mean code, in nats.

  The code of a place is distributed as softmax(2 z . code / temperature) over
  all combinations of -1 and 1. Its bits are independent, so the 2^c
  probabilities are products. They are made 2^10 at a time: 18 bits of 4,096
  places would take 4 GB.

  Source: markweberdev/maskbit; logarithms end at log 1e-5.

  Args:
    latent: (n, c) float32, with gradient.
    temperature: of the softmax.
  """
  z = latent.astype(jnp.float32) * (4 / temperature)
  bits = jax.nn.log_sigmoid(jnp.stack([-z, z], -1))
  low, high = (_joint(b) for b in (bits[:, :_AT_ONCE], bits[:, _AT_ONCE:]))

  @jax.checkpoint
  def some(column):
    p = jnp.exp(column[:, None] + low)
    mean = jnp.mean(p, 0)
    return jnp.mean(jnp.sum(nats(p), -1)), jnp.sum(nats(mean))

  each, mean = jax.lax.map(some, high.T)
  return jnp.sum(each), jnp.sum(mean)


def _joint(bits):
  """Log p of bits (n, c, 2) -> of their combinations (n, 2^c)."""
  joint = jnp.zeros((len(bits), 1))
  for i in range(bits.shape[1]):
    pair = bits[:, i, :, None] + joint[:, None]
    joint = pair.reshape(len(bits), -1)
  return joint
