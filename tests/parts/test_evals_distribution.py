"""Scores of samples and of images against a reference, with their protocols."""

import dataclasses
import hashlib
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from arvision.data.npz import Npz
from arvision.errors import ConfigError, DataError
from arvision.evals import reference
from arvision.evals.base import Run
from arvision.evals.collect import collect
from arvision.evals.distribution import Distribution
from arvision.evals.features import Features
from arvision.evals.frechet import Moments, frechet_distance
from arvision.evals.image_sets import of_npz
from arvision.evals.protocol import check_same, check_same_figures
from arvision.evals.scoring import Scoring
from arvision.runs import evaluate
from arvision.structs import TokenSpec
from tests.parts.evals_toys import Toy, two_classes

ALL = [
  *('fid', 'sfid', 'fid_low', 'fid_high', 'kid', 'precision', 'recall'),
  *('density', 'coverage', 'inception_score'),
]


def photographs(count, seed=0, shift=0):
  """(n, 6, 5, 3) uint8, smooth and coloured."""
  draws = np.random.default_rng(seed)
  low = draws.integers(40, 200, (count, 2, 2, 3)) + shift
  return np.clip(low.repeat(3, 1)[:, :, [0, 0, 0, 1, 1]], 0, 255).astype(
    np.uint8
  )


@pytest.fixture
def files(tmp_path):
  """A reference of 80 images, and other ones as PNGs and as an .npz file."""
  real, fake = photographs(80), photographs(60, seed=1, shift=10)
  found = reference.make(Toy(), set_of(tmp_path / 'real.npz', real), 16)
  reference.save(tmp_path / 'ref.npz', found)
  set_of(tmp_path / 'fake.npz', fake)
  (tmp_path / 'fake').mkdir()
  for i, image in enumerate(fake):
    Image.fromarray(image).save(tmp_path / 'fake' / f'{i:05d}.png')
  return tmp_path


def set_of(path, images, **more):
  np.savez(path, arr_0=images, **more)
  return of_npz(Npz(path))


def scores(path, target='', network=None, order='file', **fields):
  facts = {}
  metrics = evaluate.score(
    path,
    Scoring(**fields),
    network or Toy(),
    str(target),
    16,
    order,
    say=lambda text: None,
    note=facts.__setitem__,
  )
  short = {name.split('/')[0]: value for name, value in metrics.items()}
  assert {name.split('/')[1] for name in metrics} == facts.keys()
  return short, {
    name.split('/')[0]: facts[name.split('/')[1]] for name in metrics
  }


def test_every_figure_and_what_it_was_made_of(files):
  found, facts = scores(files / 'fake.npz', files / 'ref.npz')
  assert list(found) == ALL
  real, fake = (Toy()(x) for x in (photographs(80), photographs(60, 1, 10)))
  for name, kind in (('fid', 'pool'), ('sfid', 'spatial')):
    pair = [Moments.of(getattr(x, kind)) for x in (fake, real)]
    assert found[name] == pytest.approx(frechet_distance(*pair), rel=1e-6)
  assert facts['fid'] == {
    'extractor': 'toy',
    'weights': 'no file',
    'resize': 'none',
    'reference': 'real',
    'reference_digest': reference.read(Npz(files / 'ref.npz')).digest,
    'reference_images': 80,
    'split': '',
    'images': 60,
    'labels': '',
    'order': '',
    'seed': None,
    'rounding': '',
    'method': '',
  }
  assert facts['inception_score']['order'] == 'file'
  assert facts['inception_score']['reference'] == 'none'
  assert facts['kid']['method'] == '100 subsets of 60'
  assert found['fid_low'] < found['fid'] < found['fid_high']
  limit, _ = scores(
    files / 'fake.npz', files / 'ref.npz', figures=('fid_infinity',)
  )
  assert limit['fid_infinity'] < found['fid_high']
  assert facts['recall']['method'] == '3 neighbours, float32'


def test_a_folder_and_a_file_of_the_same_images_score_alike(files):
  one, _ = scores(files / 'fake.npz', files / 'ref.npz')
  two, _ = scores(files / 'fake', files / 'ref.npz')
  assert one == two


def test_batches_and_padding_change_no_bit():
  images = photographs(50)
  one = collect(Toy(), [images], 50, ['pool', 'logits'], hashed=True)
  many = collect(
    Toy(),
    np.split(images, [1, 17, 32, 33]),
    17,
    ['pool', 'logits'],
    hashed=True,
  )
  assert one.digest == many.digest and one.count == many.count == 50
  np.testing.assert_array_equal(one.kept['pool'], many.kept['pool'])
  for kind in ('pool', 'spatial'):
    np.testing.assert_array_equal(
      one.moments[kind].scatter, many.moments[kind].scatter
    )


def test_moments_are_added_in_blocks(monkeypatch):
  monkeypatch.setattr('arvision.evals.collect._BLOCK', 8)
  images = photographs(30)
  found = collect(Toy(), np.split(images, [3, 13, 14]), 16)
  np.testing.assert_allclose(
    found.moments['pool'].covariance,
    np.cov(Toy()(images).pool.astype(np.float64).T),
    rtol=1e-9,
  )


# ------------------------------------------------------------ the order trap


def by_class(count=12_000, classes=60):
  """Images of one colour for every class, sorted by class."""
  level = np.arange(count) * classes // count
  rgb = np.stack([level * 4, level**2 % 251, level * 7 % 256], -1)
  return np.broadcast_to(rgb[:, None, None], (count, 2, 2, 3)).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Classes(Toy):
  """A classifier that is sure of the class of `by_class`."""

  def __call__(self, images):
    pool = np.asarray(images[:, 0, 0], np.float32)
    logits = 9 * (np.arange(60) == images[:, 0, 0, :1] // 4)
    return Features(pool, None, logits.astype(np.float32))


def test_the_order_changes_the_inception_score_and_never_fid(tmp_path):
  images = by_class()
  mixed = images[np.random.default_rng(0).permutation(len(images))]
  set_of(tmp_path / 'sorted.npz', images)
  set_of(tmp_path / 'mixed.npz', mixed)
  set_of(tmp_path / 'ref.npz', images[::7])
  found = {}
  for name in ('sorted', 'mixed'):
    found[name], _ = scores(
      tmp_path / f'{name}.npz',
      tmp_path / 'ref.npz',
      Classes(),
      figures=('fid', 'inception_score'),
    )
  # A block of 5,000 sorted images has 25 of the 60 classes.
  assert found['sorted']['inception_score'] < 26
  assert found['mixed']['inception_score'] > 55
  assert found['sorted']['fid'] == pytest.approx(
    found['mixed']['fid'], rel=1e-9, abs=1e-9
  )
  shuffled, facts = scores(
    tmp_path / 'sorted.npz',
    tmp_path / 'ref.npz',
    Classes(),
    order='',
    figures=('fid', 'inception_score'),
    shuffle=True,
  )
  assert shuffled['inception_score'] == pytest.approx(
    found['mixed']['inception_score'], rel=0.01
  )
  assert facts['inception_score']['order'] == 'shuffled'


def test_an_unknown_order_is_refused_for_the_inception_score_alone(files):
  with pytest.raises(ConfigError, match='sorted by class.*--order=shuffle'):
    scores(files / 'fake', files / 'ref.npz', order='')
  found, _ = scores(
    files / 'fake', files / 'ref.npz', order='', figures=('fid', 'kid')
  )
  assert list(found) == ['fid', 'kid']
  # torch-fidelity shuffles by itself.
  found, facts = scores(
    files / 'fake', order='', figures=('inception_score',), splits='splits'
  )
  assert facts['inception_score']['method'] == '10 splits'


def test_a_file_of_arvision_says_its_order(tmp_path):
  facts = {'order': 'shuffled', 'seed': 3, 'labels': 'balanced', 'x': [1]}
  images = set_of(tmp_path / 'a.npz', photographs(20), facts=json.dumps(facts))
  assert (images.order, images.seed, images.labels) == (
    'shuffled',
    3,
    'balanced',
  )
  odd = {'order': ['shuffled'], 'seed': 'x', 'labels': {}}
  images = set_of(tmp_path / 'b.npz', photographs(20), facts=json.dumps(odd))
  assert (images.order, images.seed, images.labels) == ('', None, '')


# ------------------------------------------------------------- references


def adm_file(path, images, features=None, **more):
  """Statistics as the ADM evaluator keeps them, of other images than `arr_0`."""
  found = features or Toy()(images)
  pool, spatial = (Moments.of(x) for x in (found.pool, found.spatial))
  np.savez(
    path,
    mu=pool.mean,
    sigma=pool.covariance,
    mu_s=spatial.mean,
    sigma_s=spatial.covariance,
    **more,
  )


def test_what_is_read_is_what_was_written(files):
  path = files / 'ref.npz'
  made = reference.make(Toy(), of_npz(Npz(files / 'real.npz')), 16, kept=30)
  reference.save(path, made)
  found = reference.read(Npz(path))
  assert found.facts() == made.facts()
  assert found.images == 80 and found.preparation == {'size': [6, 5]}
  np.testing.assert_array_equal(found.features, made.features)
  everything = Toy()(photographs(80)).pool
  assert found.features.shape == (30, 7)
  assert {*map(tuple, found.features)} < {*map(tuple, everything)}
  for kind in ('pool', 'spatial'):
    one, two = found.moments[kind], made.moments[kind]
    np.testing.assert_allclose(one.covariance, two.covariance, rtol=1e-14)
    np.testing.assert_array_equal(one.mean, two.mean)
  # Other evaluators read it too.
  with np.load(path) as arrays:
    assert {'mu', 'sigma', 'mu_s', 'sigma_s'} < {*arrays.files}


def test_a_published_file_is_read_with_its_images(files, own_cache):
  real = photographs(80)
  adm_file(files / 'VIRTUAL_set.npz', real, arr_0=real[:50])
  found, facts = scores(files / 'fake.npz', files / 'VIRTUAL_set.npz')
  own, _ = scores(files / 'fake.npz', files / 'ref.npz')
  assert found['fid'] == pytest.approx(own['fid'], rel=1e-12)
  assert found['sfid'] == pytest.approx(own['sfid'], rel=1e-12)
  file = (files / 'VIRTUAL_set.npz').read_bytes()
  digest = hashlib.sha256(file).hexdigest()
  # The statistics are of a number of images that the file does not say.
  assert facts['fid']['reference_images'] == 0
  assert facts['fid']['reference_digest'] == digest
  assert facts['fid']['reference'] == 'virtual-set'
  # Neighbours are among the images that it has.
  assert facts['recall']['reference_images'] == 50
  assert found['kid'] != own['kid']
  # Their features are computed once.
  again, same = scores(files / 'fake.npz', files / 'VIRTUAL_set.npz')
  assert (again, same) == (found, facts)
  assert len(list(own_cache.iterdir())) == 1


def test_statistics_of_pytorch_fid_give_fid_alone(files):
  moments = Moments.of(Toy()(photographs(80)).pool)
  np.savez_compressed(
    files / 'stats.npz', mu=moments.mean, sigma=moments.covariance
  )
  found, _ = scores(files / 'fake.npz', files / 'stats.npz')
  assert list(found) == ['fid', 'fid_low', 'fid_high', 'inception_score']


def test_statistics_replace_the_images_of_a_file(files):
  said = []
  other = photographs(40, seed=9)
  adm_file(files / 'samples.npz', other, arr_0=photographs(60, 1, 10))
  metrics = evaluate.score(
    files / 'samples.npz',
    Scoring(),
    Toy(),
    str(files / 'ref.npz'),
    16,
    'file',
    say=said.append,
  )
  found = {name.split('/')[0]: value for name, value in metrics.items()}
  own, _ = scores(files / 'fake.npz', files / 'ref.npz')
  set_of(files / 'other.npz', other)
  others, _ = scores(files / 'other.npz', files / 'ref.npz')
  assert found['fid'] == pytest.approx(others['fid'], rel=1e-9)
  assert found['recall'] == own['recall']
  assert any('has statistics' in line for line in said)
  adm_file(files / 'alone.npz', other)
  found, facts = scores(files / 'alone.npz', files / 'ref.npz')
  assert list(found) == ['fid', 'sfid']
  assert facts['fid']['method'] == 'statistics of the file'


def test_a_folder_may_be_the_reference(files):
  found, facts = scores(files / 'fake.npz', files / 'fake')
  assert found['fid'] == pytest.approx(0, abs=1e-6)
  assert found['precision'] == found['recall'] == 1
  assert facts['fid']['reference'] == 'fake'


def test_features_of_another_network_are_refused(files):
  with pytest.raises(ConfigError, match="weights: 'no file', '"):
    (files / 'w').write_text('x')
    scores(files / 'fake.npz', files / 'ref.npz', Toy(str(files / 'w')))
  moments = Moments.of(np.random.default_rng(0).normal(size=(50, 9)))
  np.savez(files / 'wide.npz', mu=moments.mean, sigma=moments.covariance)
  with pytest.raises(ConfigError, match='has 9 pool features and .* 7'):
    scores(files / 'fake.npz', files / 'wide.npz')


MU, SIGMA = np.zeros(3), np.eye(3)
BAD = {
  'nothing': {},
  'no sigma': {'mu': MU},
  'flat sigma': {'mu': MU, 'sigma': np.zeros(9)},
  'other size': {'mu': MU, 'sigma': np.eye(4)},
  'nan': {'mu': MU * np.nan, 'sigma': SIGMA},
  'infinite': {'mu': MU, 'sigma': np.full((3, 3), np.inf)},
  'integers': {'mu': MU.astype(int), 'sigma': SIGMA},
  'negative': {'mu': MU, 'sigma': -SIGMA},
  'not symmetric': {'mu': MU, 'sigma': np.triu(np.ones((3, 3)))},
  'empty': {'mu': np.zeros(0), 'sigma': np.zeros((0, 0))},
  'scalar': {'mu': np.float64(1), 'sigma': np.float64(1)},
  'complex': {'mu': MU, 'sigma': SIGMA.astype(complex)},
  'facts no JSON': {'mu': MU, 'sigma': SIGMA, 'facts': '{'},
  'facts deep': {'mu': MU, 'sigma': SIGMA, 'facts': '[' * 100_000},
  'facts a list': {'mu': MU, 'sigma': SIGMA, 'facts': '[1]'},
  'facts a number': {'mu': MU, 'sigma': SIGMA, 'facts': np.float64(3)},
  'facts of one image': {'mu': MU, 'sigma': SIGMA, 'facts': '{"images": 1}'},
  'facts of types': {'mu': MU, 'sigma': SIGMA, 'facts': '{"name": []}'},
  'features': {'mu': MU, 'sigma': SIGMA, 'features': np.zeros((4, 3))},
  'float images': {'arr_0': np.zeros((4, 2, 2, 3))},
  'two channels': {'arr_0': np.zeros((4, 2, 2, 2), np.uint8)},
  'channels first': {'arr_0': np.zeros((4, 3, 8, 8), np.uint8)},
  'flat images': {'arr_0': np.zeros((4, 12), np.uint8)},
  'no images': {'arr_0': np.zeros((0, 2, 2, 3), np.uint8)},
  'one image': {'arr_0': np.zeros((1, 2, 2, 3), np.uint8)},
  'strange': {'x': MU},
}


@pytest.mark.parametrize('kind', BAD)
def test_files_that_are_no_reference(kind, tmp_path):
  np.savez(tmp_path / 'bad.npz', **BAD[kind])
  with pytest.raises(DataError, match='bad') as caught:
    reference.load(tmp_path / 'bad.npz', Toy(), 16)
  assert '\n' not in str(caught.value)


def _zip(path, name, data, method=zipfile.ZIP_STORED):
  with zipfile.ZipFile(path, 'w', method) as archive:
    archive.writestr(name, data)


def _npy(shape, descr='<f8', data=b''):
  head = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}"
  head = head.encode().ljust(117) + b'\n'
  return b'\x93NUMPY\1\0' + len(head).to_bytes(2, 'little') + head + data


class Runs:
  """Leaves a trace where it is unpickled."""

  def __reduce__(self):
    return (exec, ('raise SystemExit("executed")',))


HOSTILE = {
  'no zip': lambda p: p.write_bytes(b'hello'),
  'empty': lambda p: p.write_bytes(b''),
  'a huge claim': lambda p: _zip(p, 'mu.npy', _npy((2**50,))),
  'a claim beyond 64 bits': lambda p: _zip(p, 'mu.npy', _npy((2**40, 2**40))),
  'a negative shape': lambda p: _zip(p, 'mu.npy', _npy((-1,))),
  'a nested header': lambda p: _zip(p, 'mu.npy', _npy('(' * 200 + ')' * 200)),
  'a cut array': lambda p: _zip(p, 'mu.npy', _npy((3,), data=bytes(23))),
  'a strange entry': lambda p: _zip(p, '../mu.npy', b'x'),
  'no array': lambda p: _zip(p, 'mu', b'x'),
  'a pickle': lambda p: np.savez(p, mu=np.array([Runs()], object)),
  'a record': lambda p: np.savez(p, mu=np.zeros(3, [('a', 'f4')])),
  'a long header': lambda p: _zip(
    p, 'mu.npy', b'\x93NUMPY\2\0' + (2**31).to_bytes(4, 'little') + b'x'
  ),
  'packed otherwise': lambda p: _zip(
    p, 'mu.npy', _npy((3,), data=bytes(24)), zipfile.ZIP_LZMA
  ),
}


@pytest.mark.parametrize('kind', HOSTILE)
def test_hostile_files_are_refused_in_a_line(kind, tmp_path):
  path = tmp_path / 'bad.npz'
  HOSTILE[kind](path)
  with pytest.raises(DataError, match='bad') as caught:
    reference.load(path, Toy(), 16)
  assert '\n' not in str(caught.value) and len(str(caught.value)) < 500


def test_every_cut_of_a_file_is_noticed(files):
  whole = (files / 'ref.npz').read_bytes()
  path = files / 'cut.npz'
  for end in range(0, len(whole), 97):
    path.write_bytes(whole[:end])
    with pytest.raises(DataError, match='cut'):
      reference.load(path, Toy(), 16)
  flipped = bytearray(whole)
  flipped[len(whole) // 3] ^= 1
  path.write_bytes(flipped)
  with pytest.raises(DataError, match='CRC'):
    reference.load(path, Toy(), 16)


def test_images_of_two_sizes_are_refused(files):
  Image.new('RGB', (9, 6)).save(files / 'fake' / '00099.png')
  with pytest.raises(DataError, match='00099.png has 6 x 9 pixels and 00000'):
    scores(files / 'fake', files / 'ref.npz')
  with pytest.raises(DataError, match='no images'):
    (files / 'none').mkdir()
    scores(files / 'none', files / 'ref.npz')
  with pytest.raises(DataError, match='no file'):
    scores(files / 'nowhere', files / 'ref.npz')


def test_the_grid_of_samples_is_no_sample(files):
  Image.new('RGB', (99, 99)).save(files / 'fake' / 'grid.png')
  _, facts = scores(files / 'fake', files / 'ref.npz')
  assert facts['fid']['images'] == 60


# ---------------------------------------------------------------- samples


def run_of(data, **more):
  """A run whose samples are the training images of the class in turn."""

  def sample(labels, index):
    rows = np.flatnonzero(np.arange(len(data.labels)) % data.every)
    known = [rows[data.labels[rows] == k] for k in (0, 1)]
    chosen = [known[k][i % len(known[k])] for k, i in zip(labels, index)]
    return data.images[chosen], np.zeros((len(labels), 1), np.int32)

  sample.fit = lambda count: count
  fields = {'sample_fn': lambda at_once: sample, 'classes': 2, **more}
  return Run(
    data,
    'toy',
    TokenSpec(2, 1, 4, ((1, 1),)),
    lambda x: x,
    lambda x: x,
    **fields,
  )


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  return tmp_path / 'cache' / 'arvision' / 'references'


def test_samples_of_a_run(own_cache):
  data, notes, said = two_classes(), {}, []
  run = run_of(data, note=notes.__setitem__, say=said.append)
  part = Distribution(extractor=Toy(), samples=90, batch_size=16)
  found = dict(part(run))
  figures = [name.split('/')[0] for name in found]
  assert figures == ALL
  names = {name.split('/')[0]: name.split('/')[1] for name in found}
  assert {*names.values()} == notes.keys()
  facts = notes[names['fid']]
  assert names['fid'].startswith('toy-toy-90-')
  assert (facts['split'], facts['reference_images']) == ('train', 90)
  assert (facts['labels'], facts['rounding']) == ('balanced', 'round')
  # Samples are training images, some of them twice.
  assert found[f'precision/{names["precision"]}'] > 0.7
  assert any('90 samples are few' in line for line in said)
  # The statistics of the training images are computed once.
  [path] = own_cache.iterdir()
  said.clear()
  assert dict(part(run)) == found
  assert f'reference: {path}' in said
  path.write_bytes(b'damaged')
  assert dict(part(run)) == found


def test_labels_and_seeds_are_in_the_protocol(own_cache):
  notes = {}
  run = run_of(two_classes(), note=notes.__setitem__)
  part = Distribution(extractor=Toy(), samples=40, figures=('fid',))
  names = set()
  for changes in ({}, {'seed': 1}, {'labels': 'random'}, {'samples': 41}):
    [name] = dict(dataclasses.replace(part, **changes)(run))
    names.add(name)
  assert len(names) == 3  # a seed changes no protocol
  facts = [notes[name.partition('/')[2]] for name in sorted(names)]
  assert {f['labels'] for f in facts} == {'balanced', 'random'}


def test_nothing_is_computed_without_a_network(own_cache):
  part = Distribution(samples=40)
  assert dict(part(run_of(two_classes()))) == {}
  assert 'give --extractor=inception-adm:FILE' in part.missing
  with pytest.raises(ConfigError, match=r"'is' is unknown\. .*inception_score"):
    Distribution(figures=('is',))


def test_other_protocols_are_not_compared():
  facts = {'extractor': 'a', 'images': 1000, 'seed': 0}
  check_same(facts, {**facts, 'seed': 1}, ('x', 'y'))
  with pytest.raises(ConfigError, match='x and y .*: images: 1000, 50000'):
    check_same(facts, {**facts, 'images': 50000}, ('x', 'y'))
  one = {'metrics': {'fid/p': 3.0, 'kid/r': 1.0}, 'protocols': {'p': facts}}
  two = {'metrics': {'fid/q': 2.0}, 'protocols': {'q': {**facts, 'split': ''}}}
  check_same_figures(one, one, ('x', 'y'))
  check_same_figures(one, two, ('x', 'y'), figures=['kid'])
  with pytest.raises(
    ConfigError, match="fid of x and fid of y.* split: None, ''"
  ):
    check_same_figures(one, two, ('x', 'y'))
  # Older versions wrote no protocols.
  check_same_figures(one, {'metrics': {'fid/q': 2.0}}, ('x', 'y'))
