"""docs/denoising_and_filling.md and its picture."""

import importlib.util
import xml.etree.ElementTree

import numpy as np

from arvision.layouts import masks
from tests.configs import ROOT

SPEC = importlib.util.spec_from_file_location(
  'denoising_and_filling', ROOT.parent / 'launch' / 'denoising_and_filling.py'
)
drawn = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(drawn)


def test_the_page_and_its_picture_are_up_to_date():
  """`python launch/denoising_and_filling.py` writes them."""
  shown = drawn.families()
  assert drawn.PAGE.read_text(encoding='utf-8') == drawn.page(shown)
  picture = drawn.svg(shown)
  assert drawn.PICTURE.read_text(encoding='utf-8') == picture
  xml.etree.ElementTree.fromstring(picture)


def test_cells_are_those_of_layouts_and_samplers():
  for family in drawn.families():
    seen = family.seen != ''
    np.testing.assert_array_equal(seen, masks.dense(family.layout))
    assert (np.diag(family.seen) == 'own').all()
    # Every token is made at some pass, and stays.
    for token in family.made:
      kinds = [*token, 'done']
      first = kinds.index('done')
      assert first and {*kinds[first:]} == {'done'}
      assert kinds[first - 1] not in ('', 'masked')
