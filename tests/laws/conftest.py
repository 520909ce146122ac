"""Says how many configs the laws were run over, and drops their programs."""

import jax

from tests.configs import GENERATORS, TINY


def pytest_terminal_summary(terminalreporter):
  terminalreporter.write_line(
    f'laws: {len(TINY)} tiny configs, for {len(GENERATORS) - len(TINY)} others'
  )


def pytest_runtest_teardown(item, nextitem):
  """What one law compiled goes before the next law: see the tests' conftest."""
  if getattr(nextitem, 'originalname', '') != item.originalname:
    jax.clear_caches()
