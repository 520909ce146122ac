"""Further examples of a class in the row of an example."""

import numpy as np
import pytest

from arvision.build import build
from arvision.configs import common
from arvision.data import latents
from arvision.data.companions import Companions
from arvision.errors import DataError

CLASSES = tuple('abc')


def digits(**fields):
  block = common.block(
    type='data.pipeline.Images',
    source=common.block(type='data.digits.Digits'),
    size=(8, 8),
    channels=1,
    cache=True,
    threads=0,
    companions=4,
    **fields,
  )
  return build(block, 'data')


def test_companions_are_distinct_others_of_the_class():
  rng = np.random.default_rng(0)
  labels = rng.permutation(np.repeat([0, 1, 2], [5, 6, 40]))
  companions = Companions(labels, 4, CLASSES)
  ranks = np.tile(np.arange(len(labels)), 50)
  found = companions(ranks, rng.random((len(ranks), 4)))
  rows = np.concatenate([ranks[:, None], found], 1)
  assert (labels[rows] == labels[ranks][:, None]).all()
  assert (np.diff(np.sort(rows, 1)) > 0).all()
  # Every other example of a class comes equally often.
  own = found[labels[ranks] == 1].ravel()
  counts = np.bincount(own, minlength=len(labels))[labels == 1]
  assert counts.min() > 0.75 * counts.mean()


@pytest.mark.parametrize('edge', [0.0, np.nextafter(1, 0)])
def test_draws_at_the_edge_stay_in_the_class(edge):
  labels = np.repeat([0, 1], 5)
  ranks = np.arange(10)
  found = Companions(labels, 4, CLASSES)(ranks, np.full((10, 4), edge))
  assert (labels[found] == labels[:, None]).all()
  rows = np.sort(np.concatenate([ranks[:, None], found], 1), 1)
  assert (rows[:5] == np.arange(5)).all()


def test_a_class_that_is_too_small_is_named():
  with pytest.raises(DataError, match=r'1 have fewer: b \(3\)'):
    Companions(np.repeat([0, 1], [5, 3]), 4, CLASSES)


def test_rows_are_sequences_and_resume():
  data = digits()
  batches = data.train(8, seed=3)
  first, second = next(batches), next(batches)
  assert first['companions'].shape == (8, 4, 8, 8, 1)
  assert first['companions'].dtype == first['image'].dtype
  again = digits().train(8, seed=3)
  again.set_state({**batches.get_state(), 'next_batch': 1})
  resumed = next(again)
  for key in ('image', 'companions', 'label'):
    np.testing.assert_array_equal(resumed[key], second[key])
  pictures, labels = by_picture(data)
  for batch in (first, second):
    for row, label in zip(batch['companions'], batch['label']):
      assert [labels[pictures[x.tobytes()]] for x in row] == [label] * 4
  # Half of the batch, made by the second of two processes.
  half = next(digits().train(8, 3, process_index=1, process_count=2))
  np.testing.assert_array_equal(half['companions'], first['companions'][4:])


def by_picture(data):
  split = data._splits[0]
  batches = data.train_pass(64)
  images, labels = [], []
  for batch in batches:
    assert 'companions' not in batch
    images.append(batch['image'])
    labels.append(batch['label'])
  images = np.concatenate(images)[: len(split)]
  return {x.tobytes(): i for i, x in enumerate(images)}, np.concatenate(labels)


def test_held_out_examples_have_the_same_companions_in_every_pass():
  data = digits()
  one, two = (next(data.held_out(8)) for _ in range(2))
  np.testing.assert_array_equal(one['companions'], two['companions'])
  other = next(data.held_out(4))
  np.testing.assert_array_equal(other['companions'], one['companions'][:4])


def test_cached_tokens_have_companions(tmp_path):
  rows = [
    {'tokens': np.full((2, 3, 1), i, np.float32), 'label': i % 2, 'index': i}
    for i in range(12)
  ]
  spec = {'classes': ['a', 'b'], 'shape': (8, 8, 1)}
  folder = str(tmp_path / 'tokens')
  latents.write_tokens(folder, spec, rows, shards=1)
  data = latents.CachedTokens(folder, threads=0, companions=2)
  batch = next(data.train(6, seed=0))
  assert batch['companions'].shape == (6, 2, 3, 1)
  found = batch['companions'][:, :, 0, 0].astype(int) % 2
  assert (found == batch['label'][:, None]).all()
