"""Nearest training images: distances, copies, and the picture."""

import numpy as np
import pytest

from arvision.evals import neighbours
from arvision.evals.base import Run
from arvision.evals.features import Features
from arvision.structs import TokenSpec
from tests.parts.evals_toys import Arrays

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(-1, 1, (40, 4, 4, 1)).astype(np.float32)
DATA = Arrays(IMAGES, np.arange(40) % 2)
TRAIN = IMAGES[[i for i in range(40) if i % 4]]
HELD_OUT = IMAGES[::4]


class Mean:
  name, weights, resize = 'mean', 'ab' * 32, ''

  def __call__(self, images):
    return Features(images.reshape(len(images), -1).astype(np.float32))


def run_of(samples, shown, **given):
  """A run that draws these samples; its codes are the signs of the pixels."""
  encode = lambda x: (np.asarray(x).reshape(len(x), -1) > 0).astype(np.int32)

  def sample(labels, index):
    return samples[index], encode(samples[index])

  sample.fit = lambda count: count
  return Run(
    data=DATA,
    name='toy',
    spec=TokenSpec(2, 1, 1, ((4, 4),)),
    encode=encode,
    decode=lambda tokens: tokens,
    sample_fn=lambda at_once: sample,
    encode_sampled=encode,
    classes=2,
    show=lambda name, rows: shown.update({name: rows}),
    **given,
  )


@pytest.fixture(scope='module')
def found():
  """Ten samples, of which the first four are training images."""
  fresh = RNG.uniform(-1, 1, (6, 4, 4, 1)).astype(np.float32)
  samples = np.concatenate([TRAIN[:4], fresh])
  shown, facts = {}, {}
  run = run_of(samples, shown, note=facts.__setitem__)
  part = neighbours.Neighbours(
    samples=10, shown=3, extractor=Mean(), batch_size=7
  )
  metrics = dict(part(run))
  return samples, metrics, shown, facts


def test_distances_are_those_to_the_nearest_training_image(found):
  samples, metrics, _, facts = found
  figures = {name.split('/')[0]: value for name, value in metrics.items()}

  def pixels(images):
    gaps = images[:, None] - TRAIN[None]
    return np.sqrt((gaps**2).mean((2, 3, 4))).min(1) / 2

  assert figures['nearest_pixels'] == pytest.approx(
    pixels(samples).mean(), abs=1e-6
  )
  assert figures['nearest_pixels_of_held_out'] == pytest.approx(
    pixels(HELD_OUT).mean(), abs=1e-6
  )
  limit = np.quantile(pixels(HELD_OUT), 0.05)
  share = (pixels(samples) < limit).mean()
  assert figures['copied_pixels'] == pytest.approx(share) and share >= 0.4
  differ = ((samples[:, None] > 0) != (TRAIN[None] > 0)).mean((2, 3, 4)).min(1)
  assert figures['nearest_tokens'] == pytest.approx(differ.mean())
  assert {name.split('/')[1] for name in metrics} == {*facts}
  assert {f['extractor'] for f in facts.values()} == {
    'pixels',
    'tokens',
    'mean',
  }
  assert all(f['reference_images'] == 30 for f in facts.values())


def test_the_picture_shows_the_nearest_first(found):
  samples, _, shown, _ = found
  rows = shown['neighbours']
  assert list(rows) == ['sample', 'by pixels', 'by tokens', 'by features']
  for name in ('by pixels', 'by tokens', 'by features'):
    np.testing.assert_array_equal(rows[name], rows['sample'])
  assert all(any((x == y).all() for y in samples[:4]) for x in rows['sample'])


def test_the_order_of_the_images_changes_nothing():
  rows = RNG.normal(size=(5, 3))
  images = RNG.normal(size=(20, 2, 2, 1)).astype(np.float32)
  other = RNG.normal(size=(20, 3))
  one = neighbours.Nearest(rows, neighbours._euclidean)
  one.update(other, images)
  many = neighbours.Nearest(rows, neighbours._euclidean)
  for i in range(19, -1, -3):
    part = slice(max(0, i - 2), i + 1)
    many.update(other[part], images[part])
  np.testing.assert_allclose(one.distance, many.distance)
  np.testing.assert_array_equal(one.image, many.image)
  assert one.seen == many.seen == 20
