"""Says how many configs the laws were run over."""

from tests.laws.groups import GROUPS


def pytest_terminal_summary(terminalreporter):
  count = sum(len(names) for names in GROUPS.values())
  terminalreporter.write_line(
    f'laws: {count} generator configs, {len(GROUPS)} of different structure'
  )
