"""Resampling against numbers of torch.nn.functional.interpolate."""

import jax.numpy as jnp
import numpy as np
import pytest

from arvision.layers.resize import KINDS, matrix, resize

# arange(20) ** 1.5 as (5, 4), resized to (3, 6) by torch 2.13.
TORCH = {
  'area': [
    [4.0, 5.0451, 6.0902, 8.7627, 10.3104, 11.8582],
    [24.0655, 26.2082, 28.3508, 32.9010, 35.3001, 37.6993],
    [52.7846, 55.6335, 58.4825, 64.3754, 67.4161, 70.4570],
  ],
  'bicubic': [
    [1.5652, 2.3005, 3.7485, 5.0824, 7.2242, 8.6332],
    [22.2479, 24.3803, 27.9586, 30.6134, 34.4862, 36.9048],
    [57.4790, 60.3683, 65.1627, 68.6556, 73.6735, 76.7800],
  ],
  'bicubic-antialias': [
    [2.1691, 3.0110, 4.5004, 6.1544, 8.2869, 9.7048],
    [22.7060, 24.7784, 28.1148, 31.1895, 34.8124, 37.1414],
    [55.3319, 58.1050, 62.5356, 66.5484, 71.2020, 74.1747],
  ],
  'bilinear': [
    [2.6667, 3.5301, 4.7920, 6.3861, 8.2111, 9.6375],
    [22.6274, 24.8137, 27.7705, 30.8523, 34.0528, 36.4829],
    [56.5231, 59.4378, 63.3559, 67.3694, 71.4752, 74.5776],
  ],
  'bilinear-antialias': [
    [3.4286, 4.3958, 5.7883, 7.4896, 9.4107, 10.9065],
    [23.5862, 25.7434, 28.6630, 31.7125, 34.8844, 37.2938],
    [54.3868, 57.2640, 61.1323, 65.0973, 69.1557, 72.2229],
  ],
  'nearest': [
    [0.0, 0.0, 1.0, 2.8284, 2.8284, 5.1962],
    [8.0, 8.0, 11.1803, 14.6969, 14.6969, 18.5203],
    [41.5692, 41.5692, 46.8722, 52.3832, 52.3832, 58.0948],
  ],
}


@pytest.mark.parametrize('kind', TORCH)
def test_agrees_with_torch(kind):
  x = np.arange(20, dtype=np.float32).reshape(1, 5, 4, 1) ** 1.5
  y = resize(jnp.asarray(x), (3, 6), kind)
  np.testing.assert_allclose(y[0, :, :, 0], TORCH[kind], rtol=2e-6, atol=6e-5)


def by_loop(x, out):
  """ResizeBilinear of TensorFlow 1: no half pixels, no antialiasing."""
  y = np.zeros((out, out))
  for i, j in np.ndindex(out, out):
    top, left = i * len(x) / out, j * len(x) / out
    a, b = int(top), int(left)
    for k, m in ((a, b), (a, b + 1), (a + 1, b), (a + 1, b + 1)):
      weight = (1 - abs(top - k)) * (1 - abs(left - m))
      y[i, j] += weight * x[min(k, len(x) - 1), min(m, len(x) - 1)]
  return y


@pytest.mark.parametrize('into', [7, 32])
def test_bilinear_of_tensorflow_1(into):
  x = np.random.default_rng(0).normal(size=(into, into)).astype(np.float32)
  wanted = by_loop(x, 23)
  for kind, close in (('bilinear-tf1', True), ('bilinear', False)):
    y = resize(jnp.asarray(x)[None, :, :, None], (23, 23), kind)[0, :, :, 0]
    assert np.allclose(y, wanted, atol=1e-5) == close


def test_bicubic_has_torchs_kernel():
  # a = -0.75; jax.image.resize has 0.8672, 0.2266, -0.0703, -0.0234.
  row = matrix('bicubic', 8, 4)[3]
  np.testing.assert_array_equal(
    row, [-0.10546875, 0.87890625, 0.26171875, -0.03515625]
  )


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('out, into', [(13, 16), (16, 13), (1, 5), (5, 1)])
def test_rows_are_averages(kind, out, into):
  weights = matrix(kind, out, into)
  assert weights.shape == (out, into)
  np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize('kind', KINDS)
def test_the_same_size_is_the_identity(kind):
  np.testing.assert_array_equal(matrix(kind, 7, 7), np.eye(7))


def test_area_windows_overlap_where_sides_do_not_divide():
  wanted = np.array([[1, 1, 0], [0, 1, 1]]) / 2
  np.testing.assert_array_equal(matrix('area', 2, 3), wanted)


def test_the_cached_matrix_cannot_be_changed():
  with pytest.raises(ValueError, match='read-only'):
    matrix('area', 2, 4)[0, 0] = 5


def test_dtype_is_kept():
  x = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
  assert resize(x, (2, 3), 'area').dtype == jnp.bfloat16


def test_unknown_kinds_and_sizes_are_refused():
  with pytest.raises(ValueError, match="'cubic'; wanted one of"):
    matrix('cubic', 2, 2)
  with pytest.raises(ValueError, match='4 samples to 0'):
    matrix('area', 0, 4)
