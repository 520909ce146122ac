"""Writes docs/papers.md from `configs/<paper>` and docs/planned.txt.

    python launch/papers.py

A line of docs/planned.txt is 'group | name | title'.
"""

import pathlib

from arvision import catalog

DOCS = pathlib.Path(__file__).parents[1] / 'docs'
PAGE = DOCS / 'papers.md'
GROUPS = {
  'A': 'Image generation',
  'B': 'Tokenizers',
  'C': 'Faster sampling',
  'D': 'Post-training, editing, control, safety',
  'E': 'Evaluation',
  'F': 'Text to image, and unified models',
  'G': 'Video',
  'H': 'Shapes, motion and views',
  'I': 'Masked image modelling',
  'J': 'Discrete and masked diffusion',
  'K': 'Optimizers, infrastructure and objectives',
}
HEAD = """# Papers

Made by `python launch/papers.py` from `PAPER` and the docstrings of every folder of
`configs`, and from docs/planned.txt. `arvision configs` lists all configs with
their commands. Published figures were not obtained here; what was measured, on
digits, is in [families.md](families.md).
"""
_TABLE = """
| paper | status | configs | published | deviations |
|---|---|---|---|---|
"""


def planned() -> list[tuple[str, str, str]]:
  """(group, name, title) of every planned paper."""
  text = (DOCS / 'planned.txt').read_text(encoding='utf-8')
  lines = [line.split(' | ', 2) for line in text.splitlines()]
  return [(group, name, title) for group, name, title in lines]


def page() -> str:
  """The text of docs/papers.md."""
  papers, entries = catalog.papers(), catalog.entries()
  parts = [HEAD]
  for group, title in GROUPS.items():
    here = [
      _row(paper, [e for e in entries if e.paper == folder])
      for folder, paper in papers.items()
      if paper['group'] == group
    ]
    later = [
      f'- {name}: {title}' for other, name, title in planned() if other == group
    ]
    if here or later:
      parts.append(f'\n## {title}\n')
    if here:
      parts.append(_TABLE + '\n'.join(here) + '\n')
    if later:
      parts.append('\nPlanned:\n\n' + '\n'.join(later) + '\n')
  return ''.join(parts)


def _row(paper, entries):
  entries = [e for e in entries if not _module(e).startswith('tiny')]
  said = [e for e in entries if e.figures or e.deviations]
  title = paper['title'].removeprefix(f'{paper["name"]}: ')
  links = [f'[{paper["source"]}]({_url(paper["source"])})']
  if name := paper['repository']:
    links.append(f'[{name}](https://github.com/{name})')
  cells = (
    f'**{paper["name"]}**: {title} ({", ".join(links)})',
    paper['status'],
    '<br>'.join(
      f'`{e.name}`' + (f' {", ".join(e.variants)}' if e.variants else '')
      for e in entries
    ),
    '<br>'.join(f'{_module(e)}: {e.figures}' for e in said if e.figures),
    '<br>'.join(f'{_module(e)}: {e.deviations}' for e in said if e.deviations),
  )
  return f'| {" | ".join(cells)} |'


def _module(entry):
  return entry.name.split('/')[1]


def _url(source):
  return f'https://arxiv.org/abs/{source.removeprefix("arXiv ")}'


if __name__ == '__main__':
  PAGE.write_text(page(), encoding='utf-8')
  print(PAGE)
