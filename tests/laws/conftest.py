"""Runs the laws config by config, and says how many there are."""

import jax

from tests.configs import GENERATORS, TINY

_MODULE = 'tests/laws/test_generators.py'


def _config(item):
  """The name of the config that a law is tried on, '' for laws of their own."""
  callspec = getattr(item, 'callspec', None)
  return callspec.id if callspec and callspec.id in TINY else ''


def pytest_terminal_summary(terminalreporter):
  terminalreporter.write_line(
    f'laws: {len(TINY)} tiny configs, for {len(GENERATORS) - len(TINY)} others'
  )


def pytest_collection_modifyitems(items):
  """All laws of one config follow one another: they share its programs."""
  places = [i for i, x in enumerate(items) if x.nodeid.startswith(_MODULE)]
  order = {name: i for i, name in enumerate(['', *TINY])}
  laws = sorted((items[i] for i in places), key=lambda x: order[_config(x)])
  for place, item in zip(places, laws):
    items[place] = item


def pytest_runtest_teardown(item, nextitem):
  """What one config compiled goes before the next: see the tests' conftest."""
  if not nextitem or _config(nextitem) != _config(item):
    jax.clear_caches()
