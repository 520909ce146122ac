"""Features of captions: read, packed into batches, and what goes wrong."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from arvision.data.digits import Digits
from arvision.data.folder import Folder
from arvision.data.latents import CachedTokens, write_tokens
from arvision.data.pipeline import Images
from arvision.data.text import HashedWords, Stored, file_name
from arvision.errors import ConfigError, DataError

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


def file_of(caption):
  return hashlib.sha256(caption.encode('utf-8')).hexdigest() + '.npy'


def store(folder, captions, value=0):
  folder.mkdir(exist_ok=True)
  for caption in captions:
    array = np.full((1, 3, 4), value, np.float16)
    np.save(folder / file_of(caption), array)
  return Stored(str(folder), length=5, channels=4)


@pytest.fixture
def stored(tmp_path):
  """Features of the captions 0, 2, 4 and 6."""
  for i in range(0, 8, 2):
    found = store(tmp_path / 'features', [f'number {i}'], value=i)
  return found


def tokens(path, captions, held_out=()):
  examples = [
    {
      'tokens': np.full((1, 2), i, np.int32),
      'label': 0,
      'index': i,
      'caption': caption,
      'held_out': caption in held_out,
    }
    for i, caption in enumerate(captions)
  ]
  spec = {'classes': ['thing'], 'shape': (8, 8, 1)}
  write_tokens(str(path), spec, examples, shards=1)
  return str(path)


def test_examples_without_features_have_no_weight(stored, tmp_path):
  path = tokens(tmp_path / 'tokens', [f'number {i}' for i in range(8)])
  data = CachedTokens(path, 8, text=stored)
  batch = next(data.train(8, seed=0))
  even = batch['index'] % 2 == 0
  np.testing.assert_array_equal(batch['weight'], even)
  np.testing.assert_array_equal(batch['text_valid'].sum(1), 3 * even)
  np.testing.assert_array_equal(batch['text'][:, -1, 0], batch['index'] * even)
  # Rows that pad the last batch of a pass have no weight either.
  last = list(data.train_pass(5))[-1]
  np.testing.assert_array_equal(last['weight'], [0, 1, 0, 0, 0])


def test_features_go_with_the_caption_wherever_the_picture_is(tmp_path):
  """More pictures in front, and a held-out folder with the same names."""
  captions = {'train': ['apple', 'goat', 'zebra'], 'val': ['goat', 'zebra']}
  for split, kinds in captions.items():
    for i, kind in enumerate(kinds):
      path = tmp_path / split / 'c' / f'{i}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.new('RGB', (8, 8)).save(path)
      path.with_suffix('.txt').write_text(f'a {kind}\n')
  number = {'apple': 1, 'goat': 2, 'zebra': 3, 'moth': 4}
  for kind, value in number.items():
    stored = store(tmp_path / 'features', [f'a {kind}'], value)
  folder = tmp_path / 'train' / 'c'

  def check():
    source = Folder(str(tmp_path / 'train'), str(tmp_path / 'val'))
    data = Images(source, (8, 8), text=stored, threads=0)
    rows = [next(data.held_out(2)), next(data.train(3, seed=0))]
    for batch in rows:
      kinds = [caption.removeprefix('a ') for caption in batch['caption']]
      wanted = [number[kind] for kind in kinds]
      assert batch['text'][:, -1, 0].tolist() == wanted
      assert batch['weight'].tolist() == [1] * len(kinds)
    return data

  check()
  Image.new('RGB', (8, 8)).save(folder / '!.png')
  (folder / '!.txt').write_text('a moth')
  said = check().describe()
  assert 'features of 4 of 4 training captions and of 2 of 2 held-out' in said


def test_words_without_a_training_caption_are_named():
  captions = iter(['a red ball', 'a blue cube', 'not needed'])
  assert WORDS.unknown('Blue ball!', captions) == []
  assert next(captions) == 'not needed'
  assert WORDS.unknown('a red zebra', ['a red ball']) == ['zebra']


def test_hosts_agree_though_one_has_no_features_at_all(tmp_path):
  captions = [f'number {i}' for i in range(16)]
  path = tokens(tmp_path / 'tokens', captions, held_out=['number 3'])
  data = CachedTokens(path, text=store(tmp_path / 'features', ['number 11']))
  hosts = [data.train(8, 0, p, 4) for p in range(4)]
  for _ in range(10):
    batch = [next(host) for host in hosts]
    for part in batch:
      assert part.keys() == batch[0].keys()
      has = [caption == 'number 11' for caption in part['caption']]
      np.testing.assert_array_equal(part['weight'], has)
  said = 'features of 1 of 15 training captions and of 0 of 1 held-out'
  assert said in data.describe()


def test_no_features_at_all(stored, tmp_path):
  path = tokens(tmp_path / 'tokens', ['Fuchs', 'Eule'])

  def fail(text, match):
    data = CachedTokens(path, 1, text=text)
    for p in range(2):
      with pytest.raises(DataError, match=match):
        data.train(2, 0, p, 2)
      with pytest.raises(DataError, match=match):
        data.train_pass(2, p, 2)

  name = file_of('Fuchs')
  fail(stored, f"none of 2 training captions .*SHA-256.*{name} for 'Fuchs'")
  fail(Stored(stored.path + '/lost'), '/lost.*is no folder')
  fail(Stored(''), r'config\.data\.text\.path is empty')
  # Files that are named by numbers might be those of other pictures.
  store(tmp_path / 'features', ['Fuchs'])
  np.save(f'{stored.path}/0.npy', np.zeros((3, 4), np.float32))
  fail(stored, r'0\.npy is named by the number.*name every file by its caption')


def test_the_name_of_features():
  assert file_name('a grün fox') == file_of('a grün fox')


@pytest.mark.parametrize(
  ('array', 'text'),
  [
    (np.zeros((3, 5), np.float32), r'\(3, 5\), wanted floats \(tokens, 4\)'),
    (np.zeros((2, 3, 4), np.float32), r'\(2, 3, 4\), wanted'),
    (np.zeros((3, 4), np.int32), r'int32 \(3, 4\), wanted floats'),
    (np.full((3, 4), np.nan, np.float32), 'not finite'),
    (np.array([{}], object), 'not a numpy array'),
  ],
)
def test_files_that_are_no_features(stored, array, text):
  np.save(f'{stored.path}/{file_of("number 0")}', array)
  with pytest.raises(DataError, match=text):
    stored.of_example('number 0')


def test_new_captions_want_features(stored):
  assert stored.of_caption('number 4').tolist() == [[4] * 4] * 3
  with pytest.raises(ConfigError, match=r'--features=FILE\.npy'):
    stored.of_caption('a fox')
