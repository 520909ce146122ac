"""Settings of all tests: one device, exact matmuls, a shared compile cache."""

import gc
import os

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
# Tests compile more than they compute. Their processes inherit this, too.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')

import jax
import pytest
from absl import flags

jax.config.update('jax_default_matmul_precision', 'highest')
# Read when the first program is compiled. The newer emitters of XLA take twice
# as long to compile as the older ones.
os.environ['XLA_FLAGS'] = ' '.join(
  [os.environ.get('XLA_FLAGS', ''), '--xla_cpu_use_fusion_emitters=false']
).strip()

# Grain reads an absl flag when it starts worker processes.
flags.FLAGS.mark_as_parsed()


def pytest_collection_finish():
  """Looks for cycles less often, and not among what was imported.

  Tracing makes many objects; with the defaults a tenth of its time goes here.
  """
  gc.freeze()
  gc.set_threshold(50_000, 10, 10)


@pytest.fixture(scope='session', autouse=True)
def _own_cache(tmp_path_factory):
  """Classifiers that tests train stay out of the user's cache."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
    yield


@pytest.fixture(scope='module', autouse=True)
def _few_programs():
  """A process has room for some thousands of compiled programs and crashes then."""
  yield
  jax.clear_caches()
  gc.collect()
