"""Links from pages to files of the repository, for Sphinx.

On GitHub such a link opens the file. In the site a Markdown file outside of
docs/ is a page of its own, made here from the file (`PAGES`); any other file is
copied by MyST and offered for download.
"""

import pathlib
import posixpath
import re

DOCS = pathlib.Path(__file__).parents[1]
# Page of the site -> file of the repository.
PAGES = {'contributing': 'CONTRIBUTING.md'}
_LINK = re.compile(r'(\]\()(?!https?:|#)([^)\s#]+)')


def moved(text: str, source: str, page: str) -> str:
  """Markdown with relative links that fit its place in the site.

  Args:
    text: Markdown of a file.
    source: path of the file below the repository.
    page: path of the page below the repository, with its suffix.
  """
  here, there = posixpath.dirname(source), posixpath.dirname(page)
  names = {file: f'docs/{name}.md' for name, file in PAGES.items()}

  def place(found):
    target = posixpath.normpath(posixpath.join(here, found[2]))
    target = names.get(target, target)
    return found[1] + posixpath.relpath(target, there or '.')

  return _LINK.sub(place, text)


def _read(app, name, content):
  page = f'docs/{name}.md'
  source = PAGES.get(name, page)
  if name in PAGES:
    content[0] = (DOCS.parent / source).read_text(encoding='utf-8')
  content[0] = moved(content[0], source, page)


def setup(app):
  """Registers the extension."""
  app.connect('source-read', _read)
  return {'parallel_read_safe': True, 'parallel_write_safe': True}
