"""The directive `parts`: the parts of modules with their fields, for Sphinx.

```{parts} heads training.optim
:without: Some Classes
```
"""

import inspect

import parts
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective


class Parts(SphinxDirective):
  """Writes what `parts.markdown` returns."""

  required_arguments = 1
  final_argument_whitespace = True
  option_spec = {'without': directives.unchanged}

  def run(self):
    """The parsed Markdown."""
    names = self.arguments[0].split()
    without = tuple(self.options.get('without', '').split())
    for part in parts.parts(*names).values():
      self.env.note_dependency(inspect.getfile(inspect.unwrap(part)))
    text = parts.markdown(*names, without=without)
    return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app):
  """Registers the directive."""
  app.add_directive('parts', Parts)
  return {'parallel_read_safe': True, 'parallel_write_safe': True}
