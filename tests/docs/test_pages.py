"""Pages in Markdown: links, pictures, anchors, the tree of the site, numbers."""

import collections
import math
import re
import sys

import pytest

from tests.configs import ALL, ROOT

HOME = ROOT.parent
PAGES = [HOME / 'README.md', HOME / 'CONTRIBUTING.md']
PAGES += sorted(
  page for page in HOME.glob('docs/**/*.md') if '_build' not in page.parts
)
CODE = re.compile(r'```.*?```|`[^`\n]*`', re.DOTALL)
LINKS = re.compile(r'\]\(([^)\s]+)\)|src="([^"]+)"')


def without_code(path):
  return CODE.sub('', path.read_text(encoding='utf-8'))


def anchors(path):
  """Anchors of headings, as GitHub and the site name them."""
  text = re.sub(r'```.*?```', '', path.read_text('utf-8'), flags=re.DOTALL)
  seen = collections.Counter()
  for title in re.findall(r'^#+ (.+)$', text, re.M):
    title = re.sub(r'[`*]|\]\([^)]*\)|\[', '', title).strip().lower()
    slug = re.sub(r'[^\w\- ]', '', title).replace(' ', '-')
    yield f'{slug}-{seen[slug]}' if seen[slug] else slug
    seen[slug] += 1


@pytest.mark.parametrize('page', PAGES, ids=lambda p: str(p.relative_to(HOME)))
def test_links_pictures_and_anchors_exist(page):
  broken = []
  for found in LINKS.findall(without_code(page)):
    link = found[0] or found[1]
    if re.match(r'\w+:', link):
      continue
    name, _, anchor = link.partition('#')
    target = page.parent / name if name else page
    if not target.exists() or anchor and anchor not in anchors(target):
      broken.append(link)
  assert not broken


def test_every_page_is_in_the_tree_once():
  trees = re.findall(
    r'```{toctree}\n(.*?)```', (HOME / 'docs/index.md').read_text('utf-8'), re.S
  )
  named = [
    line
    for tree in trees
    for line in tree.splitlines()
    if line and not line.startswith(':')
  ]
  docs = HOME / 'docs'
  there = {p.relative_to(docs).with_suffix('').as_posix() for p in PAGES[2:]}
  assert sorted(named) == sorted(there - {'index'})


def test_losses_at_the_start_are_those_of_the_configs():
  """The table of docs/troubleshooting.md."""
  text = (HOME / 'docs/troubleshooting.md').read_text('utf-8')
  rows = re.findall(r'^\| `([\w/]+)` \| ([\d,]+) \| ([\d.]+) \|$', text, re.M)
  assert len(rows) == 5
  for name, ids, loss in rows:
    full = next(key for key in ALL if key.split(':')[0] == name)
    count = ALL[full]().head.vocab_size
    assert (ids, loss) == (f'{count:,}', f'{math.log(count):.2f}'), name


def types(block):
  """Every `type` in a block."""
  for value in block.values():
    if isinstance(value, str):
      continue
    for inner in value if isinstance(value, (tuple, list)) else (value,):
      if hasattr(inner, 'items'):
        yield from types(inner)
  if isinstance(block.get('type'), str):
    yield block.get('type')


def test_the_reference_has_every_part_of_every_config(monkeypatch):
  monkeypatch.setattr(sys, 'path', [*sys.path, str(HOME / 'docs/extensions')])
  import parts

  listed = {}
  for page in (HOME / 'docs/reference').glob('*.md'):
    text = page.read_text(encoding='utf-8')
    for names, without in re.findall(
      r'```{parts} ([\w. ]+)\n(?::without: ([\w ]+)\n)?```', text
    ):
      listed |= parts.parts(*names.split(), without=tuple(without.split()))
  used = {name for make in ALL.values() for name in types(make())}
  used = {name for name in used if not name.startswith('importers.')}
  assert used - {*listed} == set()
  markdown = parts.markdown('heads.categorical')
  assert '`vocab_size` · a whole number, 1 or more · **required**' in markdown
  assert ': number of ids.' in markdown


def test_links_of_moved_pages_fit_their_place(monkeypatch):
  monkeypatch.setattr(sys, 'path', [*sys.path, str(HOME / 'docs/extensions')])
  import repository_links

  text = '[a](docs/runs.md#resume) [b](launch/test.sh) [c](https://x.y) [d](#e)'
  moved = repository_links.moved(
    text, 'CONTRIBUTING.md', 'docs/contributing.md'
  )
  assert moved == (
    '[a](runs.md#resume) [b](../launch/test.sh) [c](https://x.y) [d](#e)'
  )
