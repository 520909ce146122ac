"""PNG sheets."""

import numpy as np
import pytest
from PIL import Image

from arvision.data.transforms import to_uint8
from arvision.training import pictures


def test_values_become_bytes():
  images = np.array([-2.0, -1.0, 0.0, 1.0, np.nan]).reshape(1, 1, 5, 1)
  assert to_uint8(images).ravel().tolist() == [0, 0, 128, 255, 0]


def test_a_grid_keeps_every_pixel_as_a_square():
  images = np.linspace(-1, 1, 3 * 2 * 4).reshape(3, 2, 4, 1)
  made = pictures.grid(images, columns=2, scale=5)
  assert made.shape == (2 * 10 + 2, 2 * 20 + 2, 3)
  assert (made[:10, :20] == to_uint8(images[0]).repeat(5, 0).repeat(5, 1)).all()
  assert (made[12:22, :20:5, 0][::5] == to_uint8(images[2])[..., 0]).all()


def test_small_digits_are_blown_up():
  assert pictures.grid(np.zeros((1, 8, 8, 1))).shape == (48, 48, 3)
  assert pictures.grid(np.zeros((1, 64, 64, 3))).shape == (64, 64, 3)


def test_several_series_are_named_and_aligned(tmp_path):
  dark, light = -np.ones((5, 8, 8, 1)), np.ones((5, 8, 8, 1))
  made = pictures.sheet({'dark': dark, 'light': light}, columns=5)
  pictures.save(tmp_path / 'a' / 'sheet.png', made)
  read = np.asarray(Image.open(tmp_path / 'a' / 'sheet.png'))
  assert (read == made).all()
  wide = 5 * 48 + 4 * 2
  assert (made[:48, -48:] == 0).all() and (made[50:98, -48:] == 255).all()
  margin = made[:, : made.shape[1] - wide]
  assert margin[:48].max() > 150 and margin[50:98].max() > 150


def test_a_wrong_shape_is_refused():
  with pytest.raises(ValueError, match='wanted'):
    pictures.grid(np.zeros((8, 8, 1)))


def test_enlarged_images_are_told():
  assert pictures.enlarged(8, 16).startswith(
    'images of 8 x 16 px; grid.png has'
  )
  assert '6 times' in pictures.enlarged(8, 16)
  assert pictures.enlarged(48, 64) == ''
