"""Settings of all tests: one device, exact matmuls, a shared compile cache."""

import os

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')

import jax
from absl import flags

jax.config.update('jax_default_matmul_precision', 'highest')

# Grain reads an absl flag when it starts worker processes.
flags.FLAGS.mark_as_parsed()
