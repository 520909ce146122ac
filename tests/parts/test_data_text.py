"""Features of captions: read, packed into batches, and what goes wrong."""

import numpy as np
import pytest

from arvision.build import ConfigError
from arvision.data.base import DataError
from arvision.data.digits import Digits
from arvision.data.latents import CachedTokens, write_tokens
from arvision.data.pipeline import Images
from arvision.data.text import HashedWords, Stored

WORDS = HashedWords(length=6, channels=4)


def test_the_same_word_is_the_same_vector():
  a, b = WORDS.of_caption('A red fox'), WORDS.of_caption('fox, red!')
  assert a.shape == (3, 4)
  assert b.shape == (2, 4)
  np.testing.assert_array_equal(a[2], b[0])
  np.testing.assert_array_equal(a[1], b[1])
  assert WORDS.of_caption('...').shape == (0, 4)


def test_short_captions_are_padded_on_the_left_and_long_ones_cut():
  rows = np.arange(32, dtype=np.float32).reshape(8, 4)
  packed = WORDS.pack([rows[:2], rows, None])
  assert packed['text'].shape == (3, 6, 4)
  np.testing.assert_array_equal(packed['text'][0, 4:], rows[:2])
  assert not packed['text'][0, :4].any()
  np.testing.assert_array_equal(packed['text'][1], rows[:6])
  np.testing.assert_array_equal(packed['text_valid'].sum(1), [2, 6, 0])
  assert packed['text_valid'][0, 4:].all()


def test_batches_of_images_bring_the_features_of_their_captions():
  data = Images(Digits(), (8, 8), 1, batch_size=16, text=WORDS)
  batch = next(data.train(16, seed=0))
  assert batch['text'].shape == (16, 6, 4)
  assert batch['weight'].tolist() == [1.0] * 16
  wanted = WORDS.of_caption(batch['caption'][3])
  np.testing.assert_array_equal(batch['text'][3, -4:], wanted)


@pytest.fixture
def stored(tmp_path):
  """Features of the examples 0, 2, 4, 6 of eight."""
  folder = tmp_path / 'features'
  folder.mkdir()
  for i in range(0, 8, 2):
    np.save(folder / f'{i}.npy', np.full((1, 3, 4), i, np.float16))
  return Stored(str(folder), length=5, channels=4)


def test_examples_without_features_have_no_weight(stored, tmp_path):
  examples = [
    {'tokens': np.full((1, 2), i, np.int32), 'label': 0, 'index': i}
    for i in range(8)
  ]
  spec = {'classes': ['thing'], 'shape': (8, 8, 1)}
  write_tokens(str(tmp_path / 'tokens'), spec, examples, shards=1)
  data = CachedTokens(str(tmp_path / 'tokens'), 8, text=stored)
  batch = next(data.train(8, seed=0))
  even = batch['index'] % 2 == 0
  np.testing.assert_array_equal(batch['weight'], even)
  np.testing.assert_array_equal(batch['text_valid'].sum(1), 3 * even)
  np.testing.assert_array_equal(batch['text'][:, -1, 0], batch['index'] * even)
  # Rows that pad the last batch of a pass have no weight either.
  last = list(data.train_pass(5))[-1]
  np.testing.assert_array_equal(last['weight'], [0, 1, 0, 0, 0])


def test_no_features_at_all(stored):
  batch = {'caption': np.array(['a', 'b'], object), 'index': np.array([1, 3])}
  with pytest.raises(DataError, match='none of the 2 examples'):
    stored.batch(batch)
  lost = Stored(stored.path + '/lost', length=5, channels=4)
  with pytest.raises(DataError, match='/lost.*is no folder'):
    lost.batch(batch)
  with pytest.raises(DataError, match=r'config\.data\.text\.path is empty'):
    Stored('').batch(batch)


@pytest.mark.parametrize(
  ('array', 'text'),
  [
    (np.zeros((3, 5), np.float32), r'\(3, 5\), wanted floats \(tokens, 4\)'),
    (np.zeros((2, 3, 4), np.float32), r'\(2, 3, 4\), wanted'),
    (np.zeros((3, 4), np.int32), r'int32 \(3, 4\), wanted floats'),
    (np.full((3, 4), np.nan, np.float32), 'not finite'),
    (np.array([{}], object), 'not an array of numpy'),
  ],
)
def test_files_that_are_no_features(stored, array, text):
  np.save(f'{stored.path}/0.npy', array)
  with pytest.raises(DataError, match=text):
    stored.of_example('', 0)


def test_new_captions_want_features(stored):
  with pytest.raises(ConfigError, match=r'--features=FILE\.npy'):
    stored.of_caption('a fox')
