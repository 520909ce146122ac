"""Nearest codes, and how much of a codebook is used."""

import jax
import jax.numpy as jnp

# Below this share of the uniform count a code does not count as used.
# Source: FoundationVision/VAR, quant.py, the margin of its usage meter.
USED_SHARE = 0.08


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


def straight_through(z: jax.Array, quantized: jax.Array) -> jax.Array:
  """The value of `quantized` with the gradient of `z`."""
  return z + jax.lax.stop_gradient(quantized - z)


def entropy_loss(far: jax.Array, temperature: float = 0.01) -> jax.Array:
  """Mean entropy of the code of one place, minus entropy of the mean code.

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
