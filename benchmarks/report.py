"""Writes docs/benchmarks.md from the JSON files of the benchmarks.

    python -m benchmarks.report twins.json input_pipeline.json compile.json

Every file updates the section of its name. Other sections keep their figures, and
so do rows that the file does not have, if they were measured on the same hardware.
"""

import argparse
import importlib
import json
import pathlib
import re

PAGE = pathlib.Path(__file__).parents[1] / 'docs' / 'benchmarks.md'
SECTIONS = {
  'twins': 'Beside plain PyTorch',
  'sampling': 'Sampling',
  'markov': 'HMAR beside VAR',
  'convolutions': 'Convolutions',
  'features': 'Features of FID',
  'metrics': 'Scores',
  'input_pipeline': 'Input',
  'compile': 'Start',
}
HEAD = """# How fast

Written by `python -m benchmarks.report` from what the commands below measured.
Random weights, so nothing is downloaded. A matmul peak of the same run stands
beside what computes; `--quick` runs every command at small sizes, `--threads=2`
keeps it on two cores, and `--help` says what else there is.
"""


def section(name: str, found: dict | None, kept: str) -> str:
  """A section: heading, command, description, and figures if there are any."""
  module = importlib.import_module(f'benchmarks.{name}')
  about = module.__doc__.split('\n\n', 2)
  text = [
    f'## {SECTIONS[name]}',
    f'```bash\npython -m benchmarks.{name} --json={name}.json\n```',
    about[0],
    f'```text\n{about[2].strip()}\n```',
  ]
  if found is not None:
    where = ', '.join(f'{k} {v}' for k, v in found.items() if k != 'rows') + '.'
    old, notes = [], ''
    if kept.startswith(f'{where}\n'):
      old, notes = others(kept, module.COLUMNS, found['rows'])
    made = table(module.COLUMNS, [*old, *found['rows']])
    kept = '\n\n'.join(filter(None, [where, made, old and notes]))
  return '\n\n'.join([*text, kept] if kept else text)


def figures(text: str) -> dict[str, str]:
  """The figures of a page: heading -> hardware and table."""
  return {
    part.split('\n', 1)[0]: part.rsplit('```\n', 1)[1].strip()
    for part in re.split(r'^## ', text, flags=re.MULTILINE)[1:]
  }


def others(
  kept: str, columns: dict[str, str], rows: list[dict]
) -> tuple[list[dict], str]:
  """The rows of a section that are not measured again, and what follows them.

  Rows are told apart by their words and whole numbers.
  """
  _, old, *rest = kept.split('\n\n', 2)
  heads, _, *lines = (
    [c.strip() for c in x.split('|')[1:-1]] for x in old.split('\n')
  )
  names = {column.split(':')[0]: name for name, column in columns.items()}
  apart = [k for k, c in columns.items() if '.' not in c.split(':')[1]]
  seen = {tuple(str(row.get(k, '')) for k in apart) for row in rows}
  found = [dict(zip((names[h] for h in heads), line)) for line in lines]
  left = [r for r in found if tuple(r.get(k, '') for k in apart) not in seen]
  return left, ''.join(rest)


def table(columns: dict[str, str], rows: list[dict]) -> str:
  """A Markdown table of the columns that occur in any row.

  Args:
    columns: name -> heading and format, such as 'images/s:10.2f'.
    rows: name -> number, or text that was formatted before.
  """
  used = {
    k: c.split(':') for k, c in columns.items() if any(k in r for r in rows)
  }
  heads = [head for head, _ in used.values()]
  rules = [
    '---' if form.startswith('<') else '--:' for _, form in used.values()
  ]
  lines = [heads, rules]
  for row in rows:
    lines.append([_cell(row.get(k), form) for k, (_, form) in used.items()])
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _cell(value, form):
  if value is None or isinstance(value, str):
    return value or ''
  return f'{value:{form}}'.strip()


def page(files: list[pathlib.Path], old: str = '') -> str:
  """The whole page.

  Args:
    files: JSON files of benchmarks.
    old: the present page.

  Raises:
    ValueError: a file without a section of its name.
  """
  found = {}
  for file in files:
    if file.stem not in SECTIONS:
      raise ValueError(
        f'{file}: wanted files named '
        + ', '.join(f'{name}.json' for name in SECTIONS)
      )
    found[file.stem] = json.loads(file.read_text(encoding='utf-8'))
  kept = figures(old)
  sections = (
    section(name, found.get(name), kept.get(heading, ''))
    for name, heading in SECTIONS.items()
  )
  return '\n\n'.join([HEAD.strip(), *sections]) + '\n'


def main() -> None:
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('files', nargs='*', type=pathlib.Path)
  old = PAGE.read_text(encoding='utf-8') if PAGE.exists() else ''
  PAGE.write_text(page(parser.parse_args().files, old), encoding='utf-8')
  print(PAGE)


if __name__ == '__main__':
  main()
