"""Sphinx builds the documentation site; see launch/docs.sh."""

import importlib.metadata
import pathlib
import re
import sys

DOCS = pathlib.Path(__file__).parent
sys.path[:0] = [str(DOCS / 'extensions'), str(DOCS.parent)]

project = 'arvision'
copyright = 'the authors of arvision'
try:
  release = importlib.metadata.version(project)
except importlib.metadata.PackageNotFoundError:  # a checkout on PYTHONPATH
  release = ''

extensions = [
  'myst_parser',
  'sphinx.ext.autodoc',
  'sphinx.ext.napoleon',
  'sphinx_copybutton',
  'config_reference',
  'repository_links',
]
exclude_patterns = ['_build']

# The pages are read on GitHub too: its anchors, and nothing that it lacks
# except on pages that are generated.
myst_heading_anchors = 4
myst_enable_extensions = ['deflist']

default_role = 'code'  # docstrings have `names` in single backticks
autodoc_member_order = 'bysource'
autodoc_typehints = 'none'  # docstrings say types and shapes
napoleon_use_ivar = True
add_module_names = False
nitpicky = True
# Links of pages are checked; names that are on no page stay text.
nitpick_ignore_regex = [(r'py:.*', r'.*')]
# Fields of the same name in several classes.
suppress_warnings = ['ref.python']

html_theme = 'furo'
html_title = 'arvision'
html_static_path = ['static']
html_css_files = ['arvision.css']
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
# A prompt is not copied with its command.
copybutton_prompt_text = '$ '


def plain(app, what, name, obj, options, lines):
  """Docstrings are no reStructuredText.

  * and | outside of `code` are text, a line that goes on is indented, and
  'Source:', 'Differs:' and '`name`:' begin a paragraph.
  """
  del app, what, name, obj, options
  found = []
  for line in lines:
    before = found[-1] if found else ''
    if re.match(r'(Source|Differs|`[\w`, ]+`): ', line) and before:
      found.append('')
    elif re.match(r'  +\S', line) and re.match(r'\S.*[^:]$', before):
      found.pop()
      line = f'{before} {line.strip()}'
    found.append(line)
  for i, line in enumerate(found):
    pieces = re.split('(`[^`]*`)', line)
    pieces[::2] = [re.sub(r'([*|])', r'\\\1', piece) for piece in pieces[::2]]
    found[i] = ''.join(pieces)
  lines[:] = found


def setup(app):
  """Runs before napoleon, which writes reStructuredText."""
  app.connect('autodoc-process-docstring', plain, priority=100)
