"""docs/add_a_paper.md, followed word by word in a folder outside of the tree."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from tests.endtoend.conftest import SHORT

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / 'docs' / 'add_a_paper.md').read_text()
# Files by the names that stand before them.
FILES = re.findall(
  r'^`([\w/]+\.py)`[^\n]*:\n\n```python\n(.*?)```', PAGE, re.M | re.S
)
COMMANDS = [
  line
  for block in re.findall(r'```bash\n(.*?)```', PAGE, re.S)
  for line in block.splitlines()
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('mine')
  for name, text in FILES:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
  return folder


def run(folder, line, *more):
  environment = {**os.environ, 'PYTHONPATH': f'{ROOT}'}
  words = shlex.split(line)
  while '=' in words[0]:
    name, _, value = words.pop(0).partition('=')
    environment[name] = str(folder / value)
  words = {'arvision': ['-m', 'arvision'], 'python': []}[words[0]] + words[1:]
  where = ROOT if 'pytest' in words else folder
  done = subprocess.run(
    [sys.executable, *words, *more],
    cwd=where,
    env=environment,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


def test_the_page_holds_what_it_says(folder):
  (name, parts), (other, config) = FILES
  assert (name, other) == ('mypaper/parts.py', 'mypaper_tiny.py')
  lines = [line for line in parts.splitlines() if line.strip()]
  assert len(lines) <= 60
  assert [line.split()[1] for line in COMMANDS[:3]] == [
    'train',
    'train',
    'sample',
  ]


def test_it_trains_samples_and_keeps_the_laws(folder):
  *commands, laws = COMMANDS
  for line in commands:
    run(folder, line, *(SHORT if ' train ' in line else ('--number=1',)))
  assert list((folder / 'runs/mypaper/samples').rglob('*.png'))
  said = run(folder, laws, '-q', '-p', 'no:cacheprovider')
  assert 'laws: 1 tiny configs' in said and '.....' in said
