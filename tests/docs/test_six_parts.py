"""The pictures of docs/six_parts.md."""

import importlib.util
import xml.etree.ElementTree

from tests.configs import ROOT

SPEC = importlib.util.spec_from_file_location(
  'six_parts', ROOT.parent / 'launch' / 'six_parts.py'
)
drawn = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(drawn)


def test_pictures_are_up_to_date():
  """`python launch/six_parts.py` writes them."""
  found = drawn.svgs()
  assert {path.name for path in drawn.FOLDER.iterdir()} == {
    f'{name}.svg' for name in found
  }
  for name, content in found.items():
    path = drawn.FOLDER / f'{name}.svg'
    assert path.read_text(encoding='utf-8') == content, name
    picture = xml.etree.ElementTree.fromstring(content)
    assert picture.get('width') == '820' and len(content) < 60_000
    assert int(picture.get('viewBox').split()[-1]) <= 220
