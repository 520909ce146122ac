"""Says how many configs the laws were run over, and drops their programs."""

import jax

from tests.laws.groups import GROUPS


def pytest_terminal_summary(terminalreporter):
  count = sum(len(names) for names in GROUPS.values())
  terminalreporter.write_line(
    f'laws: {count} generator configs, {len(GROUPS)} of different structure'
  )


def pytest_runtest_teardown(item, nextitem):
  """What one law compiled goes before the next law: see the tests' conftest."""
  if getattr(nextitem, 'originalname', '') != item.originalname:
    jax.clear_caches()
