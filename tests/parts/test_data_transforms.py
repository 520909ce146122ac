"""Geometry of crops and resizing."""

import numpy as np
import pytest
from PIL import Image

from arvision.data import transforms
from arvision.data.preparation import Preparation


def ramp(height, width, channels=1):
  """Every pixel of a small picture is different."""
  values = np.arange(height * width).reshape(height, width, 1)
  return np.repeat(values, channels, -1).astype(np.uint8)


def preparation(**changes):
  fields = {
    'size': (4, 6),
    'channels': 1,
    'resize': 'fit',
    'filter': 'lanczos',
    'crop': 'center',
    'flip': False,
  }
  return Preparation(**{**fields, **changes})


@pytest.mark.parametrize('filter', transforms.FILTER_NAMES)
def test_filters_keep_a_flat_picture(filter):
  image = np.full((13, 17, 3), 77, np.uint8)
  for size in ((5, 6), (30, 31)):
    out = transforms.resize(image, size, filter)
    assert out.shape == (*size, 3) and (out == 77).all()


def test_filters_differ_and_area_is_the_mean():
  image = np.random.default_rng(0).integers(0, 256, (8, 8, 1), np.uint8)
  small = {f: transforms.resize(image, (4, 4), f) for f in transforms.FILTERS}
  mean = image.reshape(4, 2, 4, 2).mean((1, 3))
  assert np.abs(small['area'][..., 0] - mean).max() <= 1
  others = [small[f].tobytes() for f in small]
  assert len(set(others)) == len(others)


def test_adm_filter_halves_first():
  image = np.random.default_rng(0).integers(0, 256, (32, 32, 1), np.uint8)
  half = transforms.resize(image, (16, 16), 'area')
  half = transforms.resize(half, (8, 8), 'area')
  np.testing.assert_array_equal(transforms.resize(image, (8, 8), 'adm'), half)


@pytest.mark.parametrize('shape', [(9, 40), (40, 9), (2, 3), (6, 6)])
def test_fit_leaves_just_enough(shape):
  image = np.zeros((*shape, 1), np.uint8)
  height, width = transforms.fit(image, (4, 6))
  assert height >= 4 and width >= 6 and (height == 4 or width == 6)
  assert abs(height / width - shape[0] / shape[1]) < 0.2 * max(
    1, shape[0] / shape[1]
  )


def adm_center_crop(image, size):
  """What ADM's evaluator code does, in Pillow's words."""
  picture = Image.fromarray(image)
  while min(*picture.size) >= 2 * size:
    half = tuple(x // 2 for x in picture.size)
    picture = picture.resize(half, resample=Image.BOX)
  scale = size / min(*picture.size)
  new = tuple(round(x * scale) for x in picture.size)
  array = np.array(picture.resize(new, resample=Image.BICUBIC))
  y, x = (array.shape[0] - size) // 2, (array.shape[1] - size) // 2
  return array[y : y + size, x : x + size]


def test_adm_pictures_are_those_of_its_evaluator():
  rng = np.random.default_rng(0)
  prepare = preparation(size=(16, 16), channels=3, filter='adm')
  by_side = preparation(size=(16, 16), channels=3, filter='adm', resize=16)
  moved = 0
  shapes = [*rng.integers(9, 150, (150, 2)), (33, 100), (65, 131), (16, 16)]
  for height, width in shapes:
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    wanted = adm_center_crop(image, 16)
    for how in (prepare, by_side):
      scaled = how.scale(image, 'x')
      np.testing.assert_array_equal(how.views(scaled, 'center')[0], wanted)
    moved += scaled.shape[:2] != transforms.fit(image, (16, 16))
  assert moved > 10, 'halving first changes the size of some'


def test_short_side():
  for shape, size in (((100, 50), (20, 10)), ((9, 40), (10, 44))):
    image = np.zeros((*shape, 1), np.uint8)
    for filter in ('lanczos', 'nearest'):
      scaled = preparation(resize=10, filter=filter).scale(image, 'x')
      assert scaled.shape == (*size, 1)


def test_random_crop_reaches_every_place_and_no_other():
  image = ramp(5, 6)
  draws = np.linspace(0, 1, 50, endpoint=False)
  corners = {
    int(transforms.crop(image, (4, 4), y, x)[0, 0, 0])
    for y in draws
    for x in draws
  }
  assert corners == {0, 1, 2, 6, 7, 8}


def test_ten_crop_geometry():
  image = ramp(7, 9)
  views = transforms.ten_crop(image, (3, 5))
  assert len(views) == 10
  assert all(view.shape == (3, 5, 1) for view in views)
  corners = [int(view[0, 0, 0]) for view in views[:5]]
  assert corners == [2 * 9 + 2, 0, 4, 4 * 9, 4 * 9 + 4]
  for plain, flipped in zip(views[:5], views[5:]):
    np.testing.assert_array_equal(flipped, plain[:, ::-1])


def test_adm_crop_shows_at_least_the_smallest_share():
  image = ramp(16, 16)
  rng = np.random.default_rng(0)
  spans = []
  for draws in rng.random((40, 3)):
    view = transforms.adm_random_crop(image, (8, 8), draws)
    assert view.shape == (8, 8, 1)
    spans.append(int(view[0].max()) - int(view[0].min()))
  assert len(set(spans)) > 1
  whole = transforms.adm_random_crop(image, (8, 8), np.zeros(3))
  np.testing.assert_array_equal(whole, transforms.resize(image, (8, 8), 'adm'))


def test_floats_and_back():
  values = np.arange(256, dtype=np.uint8)
  floats = transforms.to_float(values)
  assert floats.dtype == np.float32
  assert floats[0] == -1 and floats[-1] == 1
  np.testing.assert_array_equal(transforms.to_uint8(floats), values)


def test_channels():
  grey = ramp(2, 3)
  colour = transforms.to_channels(grey, 3)
  assert colour.shape == (2, 3, 3)
  np.testing.assert_array_equal(transforms.to_channels(colour, 1), grey)


def test_preparation_of_pictures_that_are_not_square():
  prepare = preparation(crop='random', flip=True)
  image = prepare.scale(prepare.open(ramp(9, 9, 3)), 'x')
  assert image.shape == (6, 6, 1)
  still, turned = (
    prepare.train(image, np.array([0, 0.3, 0.3, flip])) for flip in (0.9, 0.1)
  )
  assert still.shape == (4, 6, 1)
  np.testing.assert_array_equal(turned, still[:, ::-1])


def test_views_begin_with_the_centre():
  prepare = preparation(resize=8)
  image = prepare.scale(ramp(12, 14), 'x')
  for which, count in (('center', 1), ('flip', 2), ('ten_crop', 10)):
    views = prepare.views(image, which)
    assert len(views) == count
    np.testing.assert_array_equal(views[0], transforms.center(image, (4, 6)))


def test_resize_from_a_flag_is_text():
  assert preparation(resize='8').scale(ramp(12, 14), 'x').shape[0] == 8
