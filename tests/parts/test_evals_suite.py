"""The tokenizer suite: sizes, details and text."""

import dataclasses

import numpy as np
import pytest

from arvision.build import build
from arvision.errors import ConfigError, DataError
from arvision.evals.base import Run
from arvision.evals.lpips import Lpips
from arvision.evals.suite import (
  TokenizerSuite,
  details,
  joined,
  magnified,
)
from arvision.evals.text import Tesseract
from arvision.structs import TokenSpec
from tests.parts.evals_toys import two_classes


def images(count=5, shape=(6, 9, 2), seed=0):
  random = np.random.default_rng(seed)
  return random.uniform(-1, 1, (count, *shape)).astype(np.float32)


@pytest.mark.parametrize('factor, count', [(2, 20), (3, 45), (-3, 1)])
def test_tiles_are_put_together_again(factor, count):
  x = images()
  tiles = magnified(x, factor)
  assert tiles.shape == (count, 6, 9, 2)
  whole = joined(tiles, factor)
  k = abs(factor)
  if factor > 0:
    assert whole.shape == (5, 6 * k, 9 * k, 2)
    # A tile is a corner of its image.
    np.testing.assert_array_equal(tiles[0], whole[0, :6, :9])
    np.testing.assert_array_equal(tiles[k * k - 1], whole[0, -6:, -9:])
  else:
    small = x.reshape(5, 2, 3, 3, 3, 2).mean((2, 4))
    np.testing.assert_allclose(whole[:5], small, atol=1e-6)
    np.testing.assert_array_equal(whole[5:], whole[4:5].repeat(4, 0))


def test_details_are_the_most_varied_patches():
  x = np.zeros((2, 8, 9, 1), np.float32)
  x[0, 3:6, 5:8] = images(1, (3, 3, 1))[0]
  x[1, 0:3, 0:3] = images(1, (3, 3, 1))[0]
  first, second = details(x, x + 1, 3)
  np.testing.assert_array_equal(first[0], x[0, 3:6, 5:8])
  np.testing.assert_array_equal(first[1], x[1, :3, :3])
  np.testing.assert_array_equal(second, first + 1)


@dataclasses.dataclass(frozen=True)
class Bright:
  """Reads 'yes' where a picture has ink."""

  name: str = 'bright'

  def __call__(self, image):
    assert image.dtype == np.uint8
    return 'yes' if image.min() < 100 else 'no'


def run(data, decode, said=None):
  calls = []

  def encode(image):
    calls.append(image.shape)
    return image

  spec = TokenSpec(0, 1, 4, ((2, 2),))
  say = (said if said is not None else []).append
  return Run(data, 'toy', spec, encode, decode, say=say), calls


def figures(suite, given):
  """(figure, protocol without the name of the data) -> value."""
  return {
    (name.split('/')[0], name.split('toy-')[-1]): value
    for name, value in suite(given)
  }


def test_a_perfect_tokenizer_loses_nothing_at_any_size():
  given, calls = run(two_classes(40, (9, 12, 1)), lambda x: x)
  found = figures(TokenizerSuite(sizes=(2, -3), batch_size=4), given)
  assert set(calls) == {(4, 9, 12, 1), (2, 9, 12, 1)}
  places = ('3px-of-9x12px-10', '18x24px-tiles-10', '3x4px-tiles-10')
  assert {place for _, place in found} == set(places)
  for (name, _), value in found.items():
    assert value == pytest.approx(1 if 'ssim' in name else 100, abs=1e-5)


def test_what_is_lost_is_seen_where_it_is():
  coarse = lambda x: np.repeat(x[:, ::2], 2, axis=1)  # every second row is lost
  given, _ = run(two_classes(40, (12, 12, 1)), coarse)
  found = figures(TokenizerSuite(sizes=(2, -2)), given)
  size = {
    place: value
    for (name, place), value in found.items()
    if name == 'tiles_psnr_db'
  }
  # The larger the image is, the smoother are its rows.
  assert size['24px-tiles-10'] > size['6px-tiles-10']
  assert ('detail_psnr_db', '3px-of-12px-10') in found


def test_text_is_read_before_and_after():
  shape = (40, 200, 1)
  blank = lambda x: np.ones_like(x)
  given, _ = run(two_classes(8, shape), blank)
  suite = TokenizerSuite(sizes=(), texts=('yes', 'yes'), ocr=Bright())
  found = {name: value for name, value in suite(given) if 'er' in name[:3]}
  assert found == {
    'cer_of_originals/text-40x200px-16px-bright-2': 0.0,
    'wer_of_originals/text-40x200px-16px-bright-2': 0.0,
    'cer/text-40x200px-16px-bright-2': 1.0,
    'wer/text-40x200px-16px-bright-2': 1.0,
  }


def test_without_ocr_text_is_not_available():
  said = []
  given, _ = run(two_classes(8), lambda x: x, said)
  found = figures(TokenizerSuite(sizes=()), given)
  assert {name for name, _ in found} == {'detail_psnr_db', 'detail_ssim'}
  assert 'error rates of text are not available' in said[-1]


@pytest.mark.parametrize(
  'fields, error, text',
  [
    ({'sizes': (0,)}, ConfigError, 'k for k times that size'),
    ({'sizes': (-4,)}, ConfigError, '-4 for a tokenizer of 6x9px'),
    ({'sizes': (), 'patch': 7}, ConfigError, 'patch=7: wanted 3 to 6'),
    ({'sizes': (), 'ocr': Bright()}, DataError, 'does not fit into 9 x 6'),
  ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(fields, error, text):
  given, calls = run(two_classes(8), lambda x: x)
  with pytest.raises(error, match=text):
    list(TokenizerSuite(**fields)(given))
  assert not calls


def test_parts_of_evaluators_come_from_the_config():
  block = {
    'type': 'evals.suite.TokenizerSuite',
    'ocr': {'type': 'evals.text.Tesseract', 'language': 'deu'},
  }
  assert build(block, 'evals.suite').ocr == Tesseract('deu')
  lpips = {'type': 'evals.lpips.Lpips', 'backbone': 'a', 'linear': 'b'}
  block = {'type': 'evals.reconstruction.Reconstruction', 'lpips': lpips}
  assert build(block, 'evals.reconstruction').lpips == Lpips('a', 'b', 'alex')
