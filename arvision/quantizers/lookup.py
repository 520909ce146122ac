"""A table of codes: every latent becomes the nearest one (VQ-VAE, VQGAN)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.build import Checked
from arvision.quantizers.base import Losses, Quantizer
from arvision.random import Draw
from arvision.ranges import AtLeast0, Count, Positive, Width

# Below this share of the uniform count a code does not count as used.
# Source: FoundationVision/VAR, quant.py, the margin of its usage meter.
USED_SHARE = 0.08


def entropy_loss(far: jax.Array, temperature: float = 0.01) -> jax.Array:
  """Mean entropy of a place's code, minus the entropy of the mean code.

  Small where every place is sure of its code and all codes are used.

  Source: Chang et al., arXiv 2202.04200 (MaskGIT's tokenizer); the affinity
  is -distance / temperature.

  Args:
    far: (n, v) squared distances, with gradient.
    temperature: of the affinity.
  """
  log_p = jax.nn.log_softmax(-far / temperature)
  p = jnp.exp(log_p)
  each = -jnp.mean(jnp.sum(p * log_p, -1))
  mean = jnp.mean(p, 0)
  return each + jnp.sum(mean * jnp.log(mean + 1e-5))


@dataclasses.dataclass(frozen=True)
class ClampedEntropy(Checked):
  """The same with logarithms that end at log 1e-5, as `lfq.entropies` (VQGAN+).

  Source: markweberdev/maskbit (arXiv 2409.16211), modeling/quantizer.

  Attributes:
    gamma: weight of the entropy of the mean code.
    temperature: of the affinity.
  """

  gamma: AtLeast0 = 1.0
  temperature: Positive = 0.01

  def __call__(self, far: jax.Array) -> jax.Array:
    each, mean = self.entropies(far)
    return each - self.gamma * mean

  def entropies(self, far: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of the code of a place, the mean; and of the mean code; in nats."""
    p = jax.nn.softmax(-far / self.temperature)
    return jnp.mean(jnp.sum(nats(p), -1)), jnp.sum(nats(jnp.mean(p, 0)))


def nats(p: jax.Array) -> jax.Array:
  """-p log p, where the logarithm ends at log 1e-5."""
  return -p * jnp.log(jnp.maximum(p, 1e-5))


class Lookup(Quantizer, kw_only=True):
  """The nearest of `vocab_size` learned codes.

  Source: arXiv 1711.00937; FoundationVision/LlamaGen, vq_model.py.

  Attributes:
    vocab_size: number of codes.
    channels: width of a code.
    commitment: weight of the pull on the encoder towards its codes; the pull
      on the codes weighs 1.
    entropy: weight of the loss of entropies.
    std: codes start as normal numbers; None: uniform within 1 / vocab_size, as
      published.
    entropies: squared distances (n, v) -> that loss.
  """

  vocab_size: Count
  channels: Width
  commitment: AtLeast0 = 0.25
  entropy: AtLeast0 = 0.0
  std: AtLeast0 | None = None
  entropies: Callable = entropy_loss

  codebook_path = ('codebook',)

  def setup(self):
    # Every device holds all codes: a lookup reads all of them.
    init: Any = nn.with_logical_partitioning(self._init, (None, None))
    shape = (self.vocab_size, self.channels)
    self.codebook = self.param('codebook', init, shape)

  def _init(self, key, shape, dtype=jnp.float32):
    if self.std is not None:
      return self.std * jax.random.normal(key, shape, dtype)
    edge = 1 / shape[0]
    return jax.random.uniform(key, shape, dtype, -edge, edge)

  @property
  def size(self) -> int:
    return self.vocab_size

  @property
  def codes(self) -> jax.Array:
    """(v, c) the vectors that stand for the ids."""
    return jnp.asarray(self.codebook)

  def pull(self, latent: jax.Array, vectors: jax.Array) -> Losses:
    sg = jax.lax.stop_gradient
    return {
      'codebook': jnp.mean((vectors - sg(latent)) ** 2),
      'commitment': self.commitment * jnp.mean((sg(vectors) - latent) ** 2),
    }

  def spread(self, latent: jax.Array, draw: Draw | None = None) -> Losses:
    del draw
    if not self.entropy:
      return {}
    far = distances(latent.reshape(-1, self.channels), self.codes)
    return {'entropy': self.entropy * self.entropies(far)}

  def quantize(self, latent: jax.Array) -> jax.Array:
    return nearest(latent, self.codes)

  def embed(self, values: jax.Array) -> jax.Array:
    return self.codes[values]

  def mix(self, share: jax.Array) -> jax.Array:
    """Mean codes (..., c) under shares of the ids (..., v)."""
    return jnp.einsum('...v,vc->...c', share, self.codes)


class UnitLookup(Lookup, kw_only=True):
  """Latents and codes are projected onto the unit sphere at every use.

  The stored codes are not unit vectors.

  Source: FoundationVision/LlamaGen, vq_model.py (arXiv 2406.06525).
  """

  def __call__(self, latent, draw=None):
    return super().__call__(normalized(latent), draw)

  @property
  def codes(self) -> jax.Array:
    return normalized(jnp.asarray(self.codebook))

  def quantize(self, latent: jax.Array) -> jax.Array:
    return super().quantize(normalized(latent))


class AngleLookup(Lookup, kw_only=True):
  """The code of the nearest direction; codes keep their lengths.

  Source: FoundationVision/VAR, quant.py, `using_znorm`.
  """

  def quantize(self, latent: jax.Array) -> jax.Array:
    return nearest(normalized(latent), normalized(self.codes))


def distances(z: jax.Array, codebook: jax.Array) -> jax.Array:
  """(n, c) vectors, (v, c) codes -> (n, v) squared distances, float32."""
  z, codebook = z.astype(jnp.float32), codebook.astype(jnp.float32)
  # 'highest': rounding to bfloat16 on the matrix unit would change codes.
  product = jnp.matmul(z, codebook.T, precision='highest')
  squares = jnp.sum(z**2, -1, keepdims=True) + jnp.sum(codebook**2, -1)
  return squares - 2 * product


def nearest(z: jax.Array, codebook: jax.Array) -> jax.Array:
  """Index of the nearest code, the first of equals.

  Args:
    z: (..., c) vectors.
    codebook: (v, c).

  Returns:
    (...) int32. No gradient passes.
  """
  z, codebook = jax.lax.stop_gradient((z, codebook))
  far = distances(z.reshape(-1, z.shape[-1]), codebook)
  return jnp.argmin(far, axis=-1).reshape(z.shape[:-1]).astype(jnp.int32)


def normalized(x: jax.Array, epsilon: float = 1e-12) -> jax.Array:
  """x / max(|x|, epsilon) along the last axis, float32."""
  x = x.astype(jnp.float32)
  # The square root has no finite gradient at zero, hence inside the maximum.
  square = jnp.maximum(jnp.sum(x**2, -1, keepdims=True), epsilon**2)
  return x * jax.lax.rsqrt(square)


def histogram(codes: jax.Array, vocab_size: int) -> jax.Array:
  """How often each code occurs: (v,) float32."""
  return jnp.zeros(vocab_size, jnp.float32).at[codes.reshape(-1)].add(1.0)


def usage(counts: jax.Array) -> jax.Array:
  """Share of the codes that occur, of counts (v,)."""
  return jnp.mean(counts > USED_SHARE * jnp.mean(counts))


def perplexity(counts: jax.Array) -> jax.Array:
  """e to the entropy of the codes: v where all are equally frequent."""
  p = counts / jnp.maximum(jnp.sum(counts), 1e-10)
  return jnp.exp(-jnp.sum(jnp.where(p > 0, p * jnp.log(p + 1e-20), 0.0)))
