"""PSNR, SSIM, codebook figures and the names of figures."""

import dataclasses
import types

import jax.numpy as jnp
import numpy as np
import pytest

from arvision.errors import DataError
from arvision.evals.base import Run
from arvision.evals.image import psnr, squared_error, ssim, window_size
from arvision.evals.protocol import dataset_name, headline, size_name
from arvision.evals.reconstruction import CodeCounts, Reconstruction
from arvision.structs import TokenSpec
from tests.parts.evals_toys import two_classes


def pictures(count=3, shape=(12, 15, 2), seed=0):
  generator = np.random.default_rng(seed)
  return generator.uniform(-1, 1, (count, *shape)).astype(np.float32)


def slow_ssim(a, b, size, sigma=1.5):
  """SSIM of one channel, place by place, as the paper writes it."""
  a, b = (np.asarray(x, np.float64) / 2 + 0.5 for x in (a, b))
  at = np.arange(size) - size // 2
  w = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * sigma**2))
  w /= w.sum()
  values = []
  for i in range(a.shape[0] - size + 1):
    for j in range(a.shape[1] - size + 1):
      x, y = a[i : i + size, j : j + size], b[i : i + size, j : j + size]
      mx, my = (w * x).sum(), (w * y).sum()
      vx, vy = (w * (x - mx) ** 2).sum(), (w * (y - my) ** 2).sum()
      vxy = (w * (x - mx) * (y - my)).sum()
      top = (2 * mx * my + 1e-4) * (2 * vxy + 9e-4)
      values.append(top / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
  return np.mean(values)


def test_psnr_of_a_constant_difference():
  a = np.zeros((2, 4, 5, 1), np.float32)
  b = a + np.array([0.2, 0.02], np.float32)[:, None, None, None]
  # 0.2 of [-1, 1] is 0.1 of [0, 1]: 20 dB; ten times less is 20 dB more.
  got = psnr(squared_error(a, b))
  np.testing.assert_allclose(got, [20, 40], rtol=1e-4)
  np.testing.assert_allclose(psnr(squared_error(a, a)), [100, 100])


def test_psnr_clips_what_no_picture_can_show():
  white = jnp.ones((1, 4, 4, 1))
  assert squared_error(white, 5 * white) == 0


def test_ssim_equals_the_definition():
  a = pictures()
  b = np.clip(a + 0.3 * pictures(seed=1), -1, 1)
  got = ssim(a, b, window=5)
  for i in range(len(a)):
    wanted = np.mean([slow_ssim(a[i, ..., c], b[i, ..., c], 5) for c in (0, 1)])
    assert got[i] == pytest.approx(wanted, abs=1e-5)


def test_ssim_is_one_for_equal_and_near_none_for_unrelated():
  a, b = pictures(), pictures(seed=1)
  np.testing.assert_allclose(ssim(a, a), 1, atol=1e-6)
  assert np.all(np.abs(ssim(a, b)) < 0.3)


@pytest.mark.parametrize(
  'shape, window', [((8, 8), 7), ((7, 30), 7), ((32, 32), 11), ((11, 64), 11)]
)
def test_window_fits_inside(shape, window):
  assert window_size(shape) == window
  a = pictures(1, (*shape, 1))
  assert ssim(a, a, window=window).shape == (1,)


def test_window_that_does_not_fit_is_refused():
  with pytest.raises(ValueError, match='wanted odd and <= 4'):
    ssim(pictures(1, (4, 4, 1)), pictures(1, (4, 4, 1)))


def test_code_counts_tell_collapse_from_use():
  spec = TokenSpec(8, 1, 4, ((1, 1), (2, 2)))
  codes = np.array([[5, 0, 1, 2, 3], [5, 4, 5, 6, 7]])
  metrics = CodeCounts.empty(spec).add(codes[:1]).add(codes[1:]).metrics('p')
  figures = headline(metrics)
  assert figures['codebook_usage'] == {'1x1': 1 / 8, '2x2': 1.0, 'all': 1.0}
  assert figures['codebook_perplexity']['1x1'] == pytest.approx(1)
  assert figures['codebook_perplexity']['2x2'] == pytest.approx(8)
  assert figures['codebook_reach'] == {'1x1': 2 / 8, '2x2': 1.0, 'all': 1.0}


def test_equal_grids_keep_rows_of_their_own():
  spec = TokenSpec(8, 1, 4, ((2, 2), (2, 2)))
  assert CodeCounts.empty(spec).names == ['0-2x2', '1-2x2']


def run(data, decode, batch_size=8):
  spec = TokenSpec(4, 1, 4, ((1, 2),))
  seen = []

  def encode(image):
    seen.append(len(image))
    return (image[:, :1, :2, 0] > 0).astype(np.int32).reshape(len(image), 2)

  images = iter(data.held_out(batch_size))
  again = lambda values: decode(next(images)['image'])
  given = Run(data, 'toy', spec, encode, again)
  metrics = dict(Reconstruction(batch_size)(given))
  assert set(seen) == {batch_size}  # one shape, so one program
  return headline(metrics), metrics


def test_reconstruction_leaves_out_the_padding():
  data = two_classes(count=44)  # 11 held out: 8 and 3
  figures, _ = run(data, lambda image: image)
  assert figures['psnr_db'] == pytest.approx(100)

  def spoil_padding(image):
    # The second batch holds 3 images; what is decoded for the rest is wrong.
    if np.array_equal(image[0], image[3]):
      image = image.copy()
      image[3:] = 1
    return image

  figures, names = run(data, spoil_padding)
  assert figures['psnr_db'] == pytest.approx(100)
  assert figures['ssim'] == pytest.approx(1, abs=1e-5)
  assert 'ssim/held-out-toy-6x9px-gauss5' in names
  # Codes are 0 or 1 of 4, 22 of them.
  assert figures['codebook_usage']['1x2'] <= 0.5
  assert figures['codebook_reach'] == {'1x2': 1.0}


def test_mean_of_psnr_is_not_psnr_of_mean():
  data = two_classes(count=32)
  good_and_bad = np.where(np.arange(8) < 4, 0.02, 0.2)[:, None, None, None]
  figures, _ = run(data, lambda image: image * 0.5 + good_and_bad)
  assert figures['psnr_of_mean_db'] < figures['psnr_db'] - 0.05


def test_no_held_out_split_is_an_error():
  data = dataclasses.replace(two_classes(), every=0)
  with pytest.raises(DataError, match='held_out_share'):
    run(data, lambda image: image)


def test_held_out_images_without_a_weight_are_an_error():
  data = types.SimpleNamespace(
    held_out_examples=2,
    shape=(6, 9, 1),
    held_out=lambda *_: [
      {'image': np.zeros((2, 6, 9, 1), np.float32), 'weight': np.zeros(2)}
    ],
  )
  with pytest.raises(
    DataError, match=r'none of 2 held-out .*config\.data\.text'
  ):
    run(data, lambda image: image)


@pytest.mark.parametrize(
  'source, name',
  [
    ({'type': 'data.digits.Digits'}, 'digits'),
    ({'type': 'data.idx.Idx', 'folder': '/a/fashion-mnist/'}, 'fashion-mnist'),
    ({'type': 'mine.MyOwnSource'}, 'my-own-source'),
    ({'type': 'data.tfds.Tfds', 'name': 'cifar10:3.0.2'}, 'cifar10-3-0-2'),
  ],
)
def test_dataset_names(source, name):
  assert dataset_name(source) == name


def test_size_names():
  assert size_name((8, 8, 1)) == '8px'
  assert size_name((16, 24, 3)) == '16x24px'


def test_the_first_of_two_protocols_is_in_the_headline():
  two = {'frechet/a-1000': 1.0, 'frechet/a-50000': 2.0}
  assert headline(two) == {'frechet': 1.0}
