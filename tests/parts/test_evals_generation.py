"""The classifier, its cache, and what generated images are measured by."""

import dataclasses
import math
import os
import struct
import time

import jax
import numpy as np
import pytest
from PIL import Image

from arvision.data.digits import Digits
from arvision.data.folder import Folder
from arvision.data.idx import Idx
from arvision.data.pipeline import Images
from arvision.errors import ConfigError
from arvision.evals.base import Run
from arvision.evals.cache import fingerprint, load_or_train
from arvision.evals.classifier import Recipe
from arvision.evals.generation import Generation, sample_batches, seen_tokens
from arvision.evals.protocol import data_name, headline
from arvision.structs import TokenSpec
from tests.parts.evals_toys import Arrays, two_classes

QUICK = Recipe(batch_size=16, max_epochs=8, width=8, features=16)


@pytest.fixture(scope='module')
def data():
  return two_classes()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('classifiers')


@pytest.fixture(scope='module')
def classifier(data, folder):
  return load_or_train(QUICK, data, {'type': 'toy'}, folder)


def encode(image):
  """Signs of the first pixels as codes."""
  return (np.asarray(image)[:, :, :2, 0] > 0).reshape(len(image), -1) * 1


def sample_from(data):
  """A generator that knows the training images of a class by heart."""

  def sample(labels, index):
    rows = np.arange(len(data.labels))
    known = [
      rows[(data.labels == k) & (rows % data.every != 0)] for k in (0, 1)
    ]
    chosen = [known[k][i % len(known[k])] for k, i in zip(labels, index)]
    images = data.images[chosen]
    return images, encode(images)

  return sample


def figures_of(data, sample, classifier, encode, classes=0, **fields):
  """What `Generation` yields of a run with these functions."""
  run = run_of(data, sample, classifier, encode, classes)
  return dict(Generation(**fields)(run))


def run_of(data, sample, classifier, encode, classes, **told):
  return Run(
    data,
    'toy',
    TokenSpec(2, 1, 4, ((2, 2),)),
    encode,
    decode=None,
    sample_fn=lambda at_once: sample,
    encode_sampled=encode,
    classes=classes,
    classifier=lambda recipe: classifier,
    **told,
  )


def test_classifier_learns_what_is_easily_told_apart(data, classifier):
  assert classifier.accuracy >= 0.95
  features, logits = classifier(data.images[:5])
  assert features.shape == (5, 16) and logits.shape == (5, 2)


def test_second_use_takes_the_cache(data, folder, classifier):
  said = []
  start = time.time()
  again = load_or_train(QUICK, data, {'type': 'toy'}, folder, said.append)
  assert time.time() - start < 1
  assert len(list(folder.iterdir())) == 1 and len(said) == 1
  assert again.accuracy == classifier.accuracy
  for a, b in zip(again(data.images[:4]), classifier(data.images[:4])):
    np.testing.assert_array_equal(a, b)


def test_spoilt_cache_is_trained_anew(data, tmp_path):
  first = load_or_train(QUICK, data, {}, tmp_path)
  [path] = tmp_path.iterdir()
  path.write_bytes(path.read_bytes()[:100])
  second = load_or_train(QUICK, data, {}, tmp_path)
  np.testing.assert_array_equal(
    first(data.images[:4])[1], second(data.images[:4])[1]
  )
  assert [path] == list(tmp_path.iterdir())


def test_other_content_recipe_or_config_is_another_classifier(data):
  other = dataclasses.replace(data, images=-data.images)
  prints = {
    fingerprint(QUICK, data, {'size': 8}),
    fingerprint(QUICK, data, {'size': 9}),
    fingerprint(QUICK, other, {'size': 8}),
    fingerprint(dataclasses.replace(QUICK, seed=1), data, {'size': 8}),
  }
  assert len(prints) == 4
  assert fingerprint(QUICK, data, {'size': 8}) in prints


def pictures(root, value=0, count=40):
  """Two classes of BMP files, all of one size."""
  for i in range(count):
    path = root / 'ab'[i % 2] / f'{i:02d}.bmp'
    path.parent.mkdir(parents=True, exist_ok=True)
    shade = value if i == count - 1 else i
    Image.new('L', (4, 4), shade).save(path)
    os.utime(path, (0, 0))
  return Images(Folder(str(root)), (4, 4), 1, held_out_share=0.3)


def test_a_classifier_is_that_of_every_picture(tmp_path):
  """Of the last one too, and of the same pictures wherever they lie."""
  first = pictures(tmp_path / 'x' / 'train')
  moved = pictures(tmp_path / 'y' / 'train')
  other = pictures(tmp_path / 'z' / 'train', value=200)
  own = fingerprint(QUICK, first, {})
  assert fingerprint(QUICK, moved, {}) == own
  assert fingerprint(QUICK, other, {}) != own
  assert other.describe() == first.describe()
  # Another name is another split, another share too.
  (tmp_path / 'y/train/a/00.bmp').rename(tmp_path / 'y/train/a/0.bmp')
  renamed = Images(Folder(moved.source.path), (4, 4), 1)
  shared = dataclasses.replace(first, held_out_share=0.2)
  for data in (renamed, shared):
    assert fingerprint(QUICK, data, {}) != own


def test_names_of_metrics_tell_data_apart(tmp_path):
  """Of folders with the same last name, and of names in any script."""
  names = set()
  for i, root in enumerate(('cats/train', 'dogs/train', '猫', '犬', '!', '?')):
    data = pictures(tmp_path / root, value=100 + i)
    block = {'type': 'data.folder.Folder', 'path': f'{tmp_path}/{root}'}
    names.add(data_name({'source': block}, data.digest))
    # A copy elsewhere has the same name.
    copy = pictures(tmp_path / 'copy' / str(i) / root, value=100 + i)
    block['path'] = copy.source.path + '/'
    assert data_name({'source': block}, copy.digest) in names
  assert len(names) == 6
  starts = sorted(name.rsplit('-', 1)[0] for name in names)
  assert starts == ['data', 'data', 'train', 'train', '犬', '猫']
  block = {'source': {'type': 'data.digits.Digits'}}
  assert data_name(block, Images(Digits(), (8, 8), 1).digest) == 'digits'
  assert data_name({**block, 'held_out_share': 0.2}, 'abcdefghij') == (
    'digits-abcdefgh'
  )


def test_idx_files_in_folders_of_one_name_have_other_digests(tmp_path):
  found = set()
  for value, folder in enumerate(('mnist', 'kmnist')):
    root = tmp_path / folder / 'raw'
    root.mkdir(parents=True)
    for name, shape in (('images-idx3', (3, 2, 2)), ('labels-idx1', (3,))):
      head = struct.pack(f'>HBB{len(shape)}I', 0, 8, len(shape), *shape)
      body = bytes([value] * math.prod(shape))
      (root / f'train-{name}-ubyte').write_bytes(head + body)
    found.add(Idx(str(root)).digest())
  assert len(found) == 2


def test_training_is_seeded(data):
  a, b = (QUICK.train(data)(data.images[:3])[1] for _ in range(2))
  np.testing.assert_array_equal(a, b)


def test_one_class_is_refused_with_a_way_out(data):
  one = dataclasses.replace(data, names=('image',))
  with pytest.raises(ConfigError, match='--which=reconstruction'):
    QUICK.train(one)


@pytest.mark.parametrize('shape', [(8, 8, 1), (5, 40, 3), (256, 200, 3)])
def test_network_takes_any_shape(shape):
  network = QUICK.network(7)
  image = jax.ShapeDtypeStruct((2, *shape), np.float32)
  (features, logits), variables = jax.eval_shape(
    network.init_with_output, jax.random.key(0), image
  )
  assert features.shape == (2, 16) and logits.shape == (2, 7)
  widest = max(v.size for v in jax.tree.leaves(variables))
  assert widest <= 16 * 128 * 16  # places do not grow with the picture


def test_fewer_images_than_a_batch():
  data = two_classes(12, (5, 40, 3))
  quick = dataclasses.replace(QUICK, max_epochs=1)
  assert 0 <= quick.train(data).accuracy <= 1


def test_digits_are_read_well_after_a_short_training():
  data = Images(Digits(), (8, 8), 1, cache=True)
  recipe = Recipe(max_epochs=8)
  assert recipe.train(data).accuracy >= 0.95


def test_sampling_calls_one_shape_and_numbers_its_samples():
  calls = []

  def sample(labels, index):
    calls.append(labels)
    images = np.full((len(labels), 2, 2, 1), 3.0)
    return images, np.stack([labels, index], 1)

  labels = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0], np.int32)
  drawn = list(sample_batches(sample, labels, batch_size=4))
  assert [len(labels) for labels in calls] == [4, 4, 4]
  assert [len(d.images) for d in drawn] == [4, 4, 2]
  tokens = np.concatenate([d.tokens for d in drawn])
  np.testing.assert_array_equal(tokens[:, 0], labels)
  np.testing.assert_array_equal(tokens[:, 1], np.arange(10))
  assert drawn[0].images.max() == 1  # clipped


@pytest.mark.parametrize('count', [4, 8])
def test_the_first_call_is_not_timed(data, count):
  calls = []

  def sample(labels, index):
    if not calls:
      time.sleep(1)
    calls.append(1)
    return np.zeros((len(labels), 2, 2, 1)), np.zeros((len(labels), 1))

  found = figures_of(data, sample, None, None, samples=count, batch_size=4)
  figures = headline(found)
  assert figures['sampling_images_per_second'] > 40
  assert len(calls) == 2  # a single call is made again to be timed


def test_tokens_count_as_seen_by_whole_rows():
  seen = seen_tokens(
    None,
    [
      {'tokens': np.array([[1, 2], [3, 4]]), 'weight': np.array([1, 1])},
      {'tokens': np.array([[5, 6], [1, 2]]), 'weight': np.array([1, 0])},
    ],
  )
  assert len(seen) == 3
  other = [{'tokens': np.array([[2, 1], [5, 6]]), 'weight': np.ones(2)}]
  assert len(seen & seen_tokens(None, other)) == 1


def test_a_parrot_scores_well_and_is_caught(data, classifier):
  fields = {'samples': 60, 'batch_size': 16, 'classes': 2}
  names = figures_of(data, sample_from(data), classifier, encode, **fields)
  figures = headline(names)
  assert figures['memorised'] == 1
  assert figures['class_accuracy'] >= 0.95
  assert figures['sampling_images_per_second'] > 0
  starts = {name.rpartition('-')[0] for name in names}
  assert {
    'frechet/classifier-toy-6x9px-30',
    'frechet/classifier-toy-6x9px-60',
    'frechet_of_held_out/classifier-toy-6x9px-30',
  } < starts

  def noise(labels, index):
    generator = np.random.default_rng(index)
    images = generator.uniform(-1, 1, (len(labels), *data.shape))
    return images, 7 + encode(images)

  wrong = headline(figures_of(data, noise, classifier, encode, **fields))
  assert wrong['frechet'] > 3 * figures['frechet']
  assert wrong['class_accuracy'] < 0.8
  assert wrong['memorised'] == 0


def test_distances_are_compared_at_one_number(data, classifier):
  """There are twice as many samples as held-out images."""
  said, facts = [], {}
  run = run_of(
    data,
    sample_from(data),
    classifier,
    None,
    2,
    say=said.append,
    note=facts.__setitem__,
  )
  found = dict(Generation(samples=60, batch_size=16)(run))
  figures = headline(found)
  real, other = figures['frechet'], figures['frechet_of_held_out']
  assert figures['frechet_low'] < real < figures['frechet_high']
  assert real < other  # it shows the training images themselves
  by_number = {
    facts[name.split('/')[1]]['images']: value
    for name, value in found.items()
    if name.startswith('frechet/')
  }
  assert by_number.keys() == {30, 60} and by_number[30] == real
  assert by_number[60] < real
  assert all(f['weights'] == classifier.digest for f in facts.values())
  assert any(
    line.startswith('Fréchet distance of sets of 30 samples') for line in said
  )
  assert said[-1].startswith('warning: 30 images of a set are few')


def test_without_held_out_images_all_samples_are_measured(data, classifier):
  data = dataclasses.replace(data, every=0)
  fields = {'samples': 20, 'batch_size': 20}
  known = lambda labels, index: (data.images[index], index[:, None])
  figures = figures_of(data, known, classifier, None, **fields)
  names = {name.split('-')[0] for name in figures}
  assert 'frechet/classifier' in names
  assert 'frechet_of_held_out/classifier' not in names


def test_swapped_labels_are_noticed(data, classifier):
  known = sample_from(data)
  sample = lambda labels, index: known(1 - labels, index)
  fields = {'samples': 40, 'batch_size': 20, 'classes': 2}
  swapped = figures_of(data, sample, classifier, None, **fields)
  assert headline(swapped)['class_accuracy'] <= 0.05
  assert 'memorised' not in headline(swapped)


def test_half_of_the_samples_are_memorised(data):
  known = sample_from(data)

  def sample(labels, index):
    images, tokens = known(labels, index)
    return images, tokens + 7 * (index[:, None] % 2)

  fields = {'samples': 20, 'batch_size': 8, 'classes': 2}
  figures = headline(figures_of(data, sample, None, encode, **fields))
  assert figures['memorised'] == 0.5


def test_unconditional_samples_have_no_class_accuracy(data, classifier):
  known = sample_from(data)
  fields = {'samples': 20, 'batch_size': 20}
  figures = headline(figures_of(data, known, classifier, None, **fields))
  assert 'frechet' in figures and 'class_accuracy' not in figures


def test_without_classes_novelty_and_speed_are_left():
  data = dataclasses.replace(two_classes(), names=('image',))
  fields = {'samples': 8, 'batch_size': 8}
  images = data.images[1:9]
  sample = lambda labels, index: (images, encode(images))
  figures = headline(figures_of(data, sample, None, encode, **fields))
  assert set(figures) == {'memorised', 'sampling_images_per_second'}


def test_too_few_samples_are_refused():
  with pytest.raises(ConfigError, match='at least 2 samples'):
    Generation(samples=1)


def test_toys_do_what_the_data_protocol_says():
  data = Arrays(np.zeros((9, 2, 2, 1), np.float32), np.zeros(9, np.int32))
  batches = list(data.held_out(2))
  assert [b['weight'].tolist() for b in batches] == [[1, 1], [1, 0]]
