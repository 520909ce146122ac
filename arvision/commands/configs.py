"""Lists the installed configs, by paper.

    arvision configs
    arvision configs | grep digits

Every config stands with its variants, its command and its cost.
"""

import argparse
import itertools

from arvision import catalog
from arvision.commands import common
from arvision.errors import ConfigError


def main(argv: list[str]) -> int:
  """`arvision configs`: prints names, variants, commands and costs."""
  _, overrides = common.parse(parser(), argv)
  if overrides:
    raise ConfigError(
      f"'--config.{overrides[0]}': arvision configs takes no overrides; use "
      'arvision config'
    )
  papers = catalog.papers()
  found = itertools.groupby(catalog.entries(), lambda entry: entry.paper)
  for folder, entries in found:
    paper = papers.get(folder)
    print(f'{paper["name"]} ({paper["source"]})' if paper else folder)
    for entry in entries:
      variants = f':{{{",".join(entry.variants)}}}' if entry.variants else ''
      print(f'  {entry.name}{variants}\n    {entry.title}')
      print(f'    {entry.command}')
      if entry.cost:
        print(f'    cost: {entry.cost}')
    print()
  return 0


def parser() -> argparse.ArgumentParser:
  """The flags of the command."""
  return common.parser('configs', __doc__)
