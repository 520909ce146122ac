"""The processor of this machine, and how fast it multiplies matrices."""

import functools
import platform
import time


def processor() -> str:
  """The name of the CPU."""
  try:
    with open('/proc/cpuinfo', encoding='utf-8') as file:
      for line in file:
        if line.startswith('model name'):
          return line.split(':', 1)[1].strip()
  except OSError:
    pass
  return platform.processor() or platform.machine()


def vectors() -> str:
  """The best vector instructions of the CPU, '' if unknown."""
  kinds = ('amx_bf16', 'avx512_bf16', 'avx512f', 'avx2', 'avx', 'bf16', 'asimd')
  try:
    with open('/proc/cpuinfo', encoding='utf-8') as file:
      words = set(file.read().split())
  except OSError:
    return ''
  return next((kind for kind in kinds if kind in words), '')


def matmul_peak(dtype: str, size: int = 2048, repeats: int = 5) -> float:
  """GFLOP/s of a square matmul in JAX, accumulated in float32.

  Args:
    dtype: of both factors.
    size: side of the matrices.
    repeats: calls, of which the fastest counts.
  """
  # Imported here: benchmarks choose their cores before JAX starts its threads.
  import jax
  import jax.numpy as jnp

  x = jnp.ones((size, size), dtype)
  dot = functools.partial(jnp.matmul, preferred_element_type=jnp.float32)
  run = jax.jit(dot)
  run(x, x).block_until_ready()
  seconds = []
  for _ in range(repeats):
    start = time.perf_counter()
    run(x, x).block_until_ready()
    seconds.append(time.perf_counter() - start)
  return 2 * size**3 / min(seconds) / 1e9
