"""sample, eval and encode: what they write, and what they refuse."""

import dataclasses
import functools
import json
import os
import tracemalloc
import types
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from arvision.build import build
from arvision.commands import run_flags, sample
from arvision.commands.main import main
from arvision.data.latents import CachedTokens
from arvision.errors import ConfigError
from arvision.evals.classifier import Recipe
from arvision.evals.generation import SampleBatch
from arvision.evals.protocol import headline
from arvision.runs import evaluate as evaluation
from arvision.runs import measure, samples
from arvision.structs import TokenSpec
from arvision.training.frozen import fingerprint

QUICK = Recipe(batch_size=64, max_epochs=2, width=8, features=16)
TOKENIZER = {'type': 'tokenizers.autoencoder.Autoencoder', 'quant_kernel': 3}


def config(generator=True):
  fields: dict[str, Any] = {
    'seed': 0,
    'ema': (0.99,),
    'data': {
      'type': 'data.pipeline.Images',
      'source': {'type': 'data.digits.Digits'},
      'size': (8, 8),
      'channels': 1,
      'batch_size': 64,
    },
    'tokenizer': TOKENIZER,
  }
  if generator:
    fields |= {'backbone': {'depth': 2}, 'condition': {'classes': 10}}
    fields['sampler'] = {'type': 'samplers.entity.EntityAR'}
  return ConfigDict(fields).lock()


@dataclasses.dataclass(frozen=True)
class Toy:
  """A run whose tokens are the four corner pixels, and whose samples are the
  training images of the class in turn."""

  config: ConfigDict
  step: int = 7
  ema: str = '0.99'
  variables: Any = dataclasses.field(
    default_factory=lambda: {'kernel': np.ones((2, 3), np.float32)}
  )

  @property
  def model(self):
    there = 'backbone' in self.config
    return types.SimpleNamespace(head=None) if there else None

  @property
  def tokenizer(self):
    spec = TokenSpec(16, 1, 4, ((2, 2),))
    return types.SimpleNamespace(
      spec=spec,
      before=0,
      radices=(16,),
      digits=lambda values: values[..., None],
    )

  @functools.cached_property
  def data(self):
    return build(self.config.data, 'data')

  @property
  def as_sampled(self):
    return self

  def encode(self, image):
    corners = np.asarray(image)[:, ::7, ::7, 0].reshape(len(image), 4)
    return np.rint((corners + 1) * 7.5).astype(np.int32)

  store = encode

  def decode(self, values):
    small = np.asarray(values, np.float32).reshape(-1, 2, 2, 1) / 7.5 - 1
    return small.repeat(4, 1).repeat(4, 2)

  def sample_fn(self, seed=0, at_once=None, **sampling):
    self.asked.append({'seed': seed, 'at_once': at_once, **sampling})
    return Recalled(self, seed)

  asked: list = dataclasses.field(default_factory=list)
  allow: tuple[str, ...] = ()
  calls: list = dataclasses.field(default_factory=list)
  room: int = 64


@dataclasses.dataclass(frozen=True)
class Recalled:
  toy: Toy
  seed: int

  def __call__(self, labels, index):
    images, target = self.toy.data.source._arrays
    self.toy.calls.append(len(labels))
    rows = [
      np.flatnonzero(target == k)[i + self.seed] for k, i in zip(labels, index)
    ]
    image = images[rows] / np.float32(127.5) - 1
    return image, self.toy.encode(image)

  def fit(self, count):
    return min(count, self.toy.room)


@pytest.fixture
def generator(monkeypatch, tmp_path):
  toy = Toy(config())
  monkeypatch.setattr(run_flags, 'load_run', lambda *_: toy)
  return toy


@pytest.fixture
def tokenizer(monkeypatch):
  toy = Toy(config(generator=False))
  monkeypatch.setattr(run_flags, 'load_run', lambda *_: toy)
  return toy


def fails(capsys, *argv):
  """The message of a command that must end with code 2."""
  assert main(list(argv)) == 2
  error = capsys.readouterr().err
  assert 'Traceback' not in error
  return error


# ------------------------------------------------------------------- sample


def test_sample_writes_grid_images_and_npz(generator, tmp_path):
  argv = ['sample', f'--workdir={tmp_path}', '--labels=3,0', '--number=5']
  argv += ['--batch_size=4', '--guidance=2.5', '--seed=1', '--npz']
  assert main(argv) == 0
  folder = tmp_path / 'samples' / 'seed1'
  files = sorted(p.name for p in folder.glob('0*.png'))
  assert files == [f'{i:05d}_{3 if i < 5 else 0}.png' for i in range(10)]
  assert (folder / 'grid.png').exists()
  arrays = np.load(folder / 'samples.npz')
  assert arrays['arr_0'].shape == (10, 8, 8, 1)
  assert arrays['arr_0'].dtype == np.uint8
  # Evaluators take blocks of the file, which must not be sorted by class.
  order = arrays['order']
  assert sorted(order) == [*range(10)] != order.tolist()
  assert (arrays['labels'] == np.where(order < 5, 3, 0)).all()
  facts = json.loads(str(arrays['facts']))
  assert (facts['order'], facts['seed'], facts['labels']) == ('shuffled', 1, '')
  assert facts['sampling']['guidance'] == 2.5
  for i, image in zip(order, arrays['arr_0']):
    single = np.asarray(Image.open(folder / files[i]))
    np.testing.assert_array_equal(single, image[..., 0])
  [asked] = generator.asked
  assert asked['guidance'] == 2.5 and asked['seed'] == 1
  assert asked['temperature'] is None  # as the config says


def test_an_npz_may_lie_elsewhere(generator, tmp_path, capsys):
  argv = ['sample', f'--workdir={tmp_path}', '--labels=all', '--number=3']
  assert main([*argv, '--name=a']) == 0
  assert main([*argv, '--name=b', f'--npz={tmp_path}/x/all.npz']) == 0
  assert 'all.npz, in an order shuffled by --seed=0' in capsys.readouterr().out
  assert os.listdir(tmp_path / 'x') == ['all.npz']
  with np.load(tmp_path / 'x' / 'all.npz') as arrays:
    assert json.loads(str(arrays['facts']))['labels'] == 'balanced'
    assert len(arrays['arr_0']) == 30
  # The order of the file changes no picture.
  a, b = (tmp_path / 'samples' / name for name in 'ab')
  assert sorted(os.listdir(a)) == sorted(os.listdir(b))
  for name in os.listdir(a):
    assert (a / name).read_bytes() == (b / name).read_bytes()


def test_an_npz_in_a_folder_that_is_replaced_is_refused(
  generator, tmp_path, capsys
):
  argv = ['sample', f'--workdir={tmp_path}', '--labels=1']
  file = f'--npz={tmp_path}/samples/seed0/x.npz'
  assert 'which is replaced' in fails(capsys, *argv, file)
  assert generator.calls == []


def test_batches_do_not_change_the_samples(generator, tmp_path):
  arrays = []
  for size in (3, 8):
    argv = ['sample', f'--workdir={tmp_path}', '--npz', '--labels=2,5']
    assert main([*argv, f'--batch_size={size}', f'--name=b{size}']) == 0
    arrays.append(np.load(tmp_path / 'samples' / f'b{size}' / 'samples.npz'))
  for key in ('arr_0', 'labels', 'tokens'):
    np.testing.assert_array_equal(arrays[0][key], arrays[1][key])


def test_calls_are_as_large_as_what_is_asked_for(generator, tmp_path):
  argv = ['sample', f'--workdir={tmp_path}', '--labels=2,5']
  assert main([*argv, '--number=1']) == 0
  assert generator.calls == [2]
  generator.calls.clear()
  assert main([*argv, '--number=50']) == 0  # at most 64, none filled up
  assert generator.calls == [50, 50]
  assert [asked['at_once'] for asked in generator.asked] == [None, None]


def test_calls_are_at_most_what_memory_holds(monkeypatch, tmp_path, capsys):
  toy = Toy(config(), room=3)
  monkeypatch.setattr(run_flags, 'load_run', lambda *_: toy)
  argv = ['sample', f'--workdir={tmp_path}', '--labels=2', '--number=8']
  assert main(argv) == 0
  assert toy.calls == [3, 3, 3]
  assert '8 images of 1 classes, 3 at once' in capsys.readouterr().out
  toy.calls.clear()
  assert main([*argv, '--batch_size=5']) == 0
  assert toy.calls == [5, 5] and toy.asked[-1]['at_once'] == 5


def test_what_was_drawn_with_is_said(generator, tmp_path, capsys):
  assert main(['sample', f'--workdir={tmp_path}', '--labels=2']) == 0
  said = 'with the average with decay 0.99 of step 7'
  assert said in capsys.readouterr().out


def drawn(count, size=16, at_once=200):
  """Calls of a generator whose image i has all pixels i % 255."""
  for start in range(0, count, at_once):
    index = np.arange(start, min(start + at_once, count))
    images = np.zeros((len(index), size, size, 3), np.float32)
    images += (index % 255 / 127.5 - 1)[:, None, None, None]
    tokens = index[:, None].astype(np.int32)
    labels = (index % 10).astype(np.int32)
    yield SampleBatch(images, tokens, labels, 0.0, index)


def streamed(folder, count, png=False):
  labels = (np.arange(count) % 10).astype(np.int32)
  names = [str(k) for k in range(10)]
  folder.mkdir()
  npz = samples.Npz(
    folder / 'samples.npz', labels, np.arange(count), {}, folder / 'tokens'
  )
  with samples.Samples(folder, names, labels, png, npz) as out:
    for call in samples.with_progress(drawn(count), count):
      out.add(call)
  return labels


def test_an_npz_is_written_as_images_come(tmp_path):
  labels = streamed(tmp_path / 'a', 700)
  assert sorted(p.name for p in (tmp_path / 'a').iterdir()) == [
    'grid.png',
    'samples.npz',
  ]
  with np.load(tmp_path / 'a' / 'samples.npz') as arrays:
    assert sorted(arrays.files) == [
      *('arr_0', 'facts', 'labels', 'order', 'tokens')
    ]
    np.testing.assert_array_equal(arrays['labels'], labels)
    np.testing.assert_array_equal(arrays['tokens'][:, 0], np.arange(700))
    assert arrays['arr_0'].dtype == np.uint8
    wanted = np.broadcast_to(
      (np.arange(700) % 255)[:, None, None, None], (700, 16, 16, 3)
    )
    np.testing.assert_array_equal(arrays['arr_0'], wanted)


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
  peaks = []
  for count in (1000, 10_000):  # 0.8 and 7.7 MB of pixels
    tracemalloc.start()
    streamed(tmp_path / str(count), count)
    peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
  assert peaks[1] - peaks[0] < 500_000


def test_a_grid_has_the_first_hundred(tmp_path):
  folders = [tmp_path / str(count) for count in (100, 5000)]
  for folder, count in zip(folders, (100, 5000)):
    streamed(folder, count)
  few, many = (
    np.asarray(Image.open(folder / 'grid.png')) for folder in folders
  )
  np.testing.assert_array_equal(few, many)  # ten of every class


@pytest.mark.parametrize(
  ('flags', 'wanted'),
  [
    ([], True),
    (['--npz'], False),
    (['--npz', '--png'], True),
    (['--no-png'], False),
  ],
)
def test_many_images_get_no_png_each(
  generator, tmp_path, monkeypatch, flags, wanted
):
  monkeypatch.setattr(samples, 'MANY', 9)
  argv = ['sample', f'--workdir={tmp_path}', '--labels=all', '--number=1']
  assert main([*argv, *flags]) == 0
  files = list((tmp_path / 'samples' / 'seed0').glob('0*.png'))
  assert len(files) == 10 * wanted


def test_lines_say_how_long_it_takes(monkeypatch, capsys):
  clock = iter(range(0, 1000, 20))
  monkeypatch.setattr(samples.time, 'perf_counter', lambda: float(next(clock)))
  assert len(list(samples.with_progress(drawn(1000), 1000))) == 5
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == '400 of 1,000 images, 10 images/s, 01:00 left'


def test_the_compute_dtype_may_differ(monkeypatch):
  run = Toy(config())
  with run.config.unlocked():
    run.config.backbone.update(
      dtype='bfloat16', block={'attention': {'heads': 2}}
    )
  other = run.config.copy_and_resolve_references()
  with other.unlocked():
    other.backbone.dtype = 'float32'
    other.tokenizer.dtype = 'bfloat16'
    other.backbone.unroll = 2
  made = []
  monkeypatch.setattr(run_flags.assemble, 'make_tokenizer', made.append)
  monkeypatch.setattr(run_flags.assemble, 'make_model', made.append)
  monkeypatch.setattr(run_flags.dataclasses, 'replace', lambda run, **kw: kw)
  changed = run_flags.with_config(run, other, 'run')
  assert changed['config'].backbone.dtype == 'float32'
  assert made == [changed['config']] * 2
  with other.unlocked():
    other.backbone.block.attention.heads = 4
  with pytest.raises(ConfigError) as error:
    run_flags.with_config(run, other, 'run')
  assert 'attention.heads: 2 there, 4 here' in str(error.value)
  assert 'dtype' not in str(error.value)


def test_sampling_again_replaces_the_folder(generator, tmp_path):
  argv = ['sample', f'--workdir={tmp_path}', '--name=mine']
  assert main([*argv, '--labels=all', '--number=2']) == 0
  assert main([*argv, '--labels=1', '--number=1']) == 0
  folder = tmp_path / 'samples'
  assert [p.name for p in folder.iterdir()] == ['mine']
  assert sorted(p.name for p in (folder / 'mine').iterdir()) == [
    '00000_1.png',
    'grid.png',
  ]


def test_labels_are_names_or_numbers():
  classes = ('cat', 'dog', '2', 'great ape')
  parse = sample.parse_labels
  assert parse('dog, 0', classes) == [1, 0]
  assert parse('2,3,dog', classes) == [2, 3, 1]  # a name goes first
  assert parse('great ape,3', classes) == [3]  # once
  assert parse('all', classes) == [0, 1, 2, 3]
  assert len(parse('', [str(i) for i in range(1000)])) <= 16
  with pytest.raises(ConfigError, match="Did you mean 'dog'"):
    parse('dgo', classes)
  with pytest.raises(ConfigError, match='wanted a class from 0 to 3'):
    parse('4', classes)
  with pytest.raises(ConfigError, match='0 to 3'):
    parse('-1', classes)


@pytest.mark.parametrize(
  'flag, message',
  [
    ('--labels=10', 'wanted a class from 0 to 9'),
    ('--labels=seven', "'seven'"),
    ('--number=0', '--number=0: wanted 1 to 10000000'),
    ('--name=../x', "--name='../x'"),
    ('--nmber=3', "Did you mean '--number'"),
    ('--config.backbone.depth=3', 'config.backbone.depth: 2 there, 3 here'),
    ('--config.dta.size=3', "Did you mean 'data'"),
  ],
)
def test_sample_refuses(generator, tmp_path, capsys, flag, message):
  assert message in fails(capsys, 'sample', f'--workdir={tmp_path}', flag)
  assert not (tmp_path / 'samples').exists()


def test_a_tokenizer_draws_nothing(tokenizer, tmp_path, capsys):
  error = fails(capsys, 'sample', f'--workdir={tmp_path}')
  assert 'workdir of a generator' in error


def test_folder_without_a_run(tmp_path, capsys):
  for command in ('sample', 'eval'):
    error = fails(capsys, command, f'--workdir={tmp_path / "none"}')
    assert 'none' in error and 'train' in error


def test_classes_without_their_data_are_numbers(tmp_path):
  plain = config()
  with plain.unlocked():
    plain.data.source = {'type': 'data.folder.Folder', 'path': '/not/here'}
  assert measure.classes_of(Toy(plain)) == tuple('0123456789')
  with plain.unlocked():
    plain.condition.classes = 0
  assert measure.classes_of(Toy(plain)) == ()


# --------------------------------------------------------------------- eval


def test_eval_of_a_tokenizer(tokenizer, tmp_path, capsys):
  assert main(['eval', f'--workdir={tmp_path}']) == 0
  record = json.loads((tmp_path / 'eval.json').read_text())
  assert record['step'] == 7 and record['ema'] == '0.99'
  assert 0 < record['headline']['psnr_db'] < 40
  assert set(record['headline']['codebook_usage']) == {'2x2'}
  assert 'frechet' not in record['headline']
  printed = capsys.readouterr().out
  for name in record['metrics']:
    assert name in printed


def test_eval_of_a_generator(generator, tmp_path):
  figures = headline(
    evaluation.evaluate(
      generator,
      ['generation'],
      samples=40,
      batch_size=16,
      sampling={'seed': 0},
      recipe=QUICK,
      classifiers=tmp_path,
      say=lambda text: None,
    )
  )
  # Its samples are the data's own, nine of ten from the training split.
  assert figures['memorised'] > 0.8
  assert figures['class_accuracy'] > 0.5
  assert 0 < figures['classifier_accuracy'] <= 1
  assert 'psnr_db' not in figures


@dataclasses.dataclass(frozen=True)
class Brightness:
  """An evaluator of somebody's own."""

  scale: float = 1.0
  every: Any = None
  needs = ()

  def __call__(self, run):
    images = run.decode(run.encode(next(run.data.held_out(8))['image']))
    yield f'brightness/{run.name}', self.scale * float(np.mean(images))


def test_evaluators_are_those_of_the_config():
  plain = config()
  with plain.unlocked():
    plain.evals = {
      'every': {'steps': 5},
      'few': {'type': 'evals.generation.Generation', 'samples': 20},
      'mine': {'type': f'{__name__}.Brightness', 'scale': 2.0},
    }
  toy, quiet = Toy(plain), {'say': lambda text: None}
  found = evaluation.evaluate(toy, ['mine'], **quiet)
  assert found.keys() == {'brightness/digits'}
  # Fields that are given go to those who have them.
  again = evaluation.evaluate(toy, ['mine'], scale=4.0, samples=5, **quiet)
  assert again['brightness/digits'] == 2 * found['brightness/digits']
  with pytest.raises(ConfigError, match=r"'fw' is unknown.*'few'"):
    evaluation.evaluate(toy, ['fw'], **quiet)
  with plain.unlocked():
    plain.evals.mine.type = 'layouts.grid.raster'
  with pytest.raises(ConfigError, match=r'config\.evals\.mine'):
    evaluation.evaluate(Toy(plain), ['few'], **quiet)


@pytest.mark.parametrize(
  'flag, message',
  [
    ('--which=reconstuction', "Did you mean 'reconstruction'"),
    ('--samples=1', '--samples=1'),
    ('--batch_size=0', '--batch_size=0'),
    ('--config.data.batch_size=many', 'batch_size'),
    ('--sample=5', "Did you mean '--samples'"),
  ],
)
def test_eval_refuses(generator, tmp_path, capsys, flag, message):
  argv = ['eval', f'--workdir={tmp_path}', f'--classifiers={tmp_path}']
  assert message in fails(capsys, *argv, flag)
  assert not list(tmp_path.iterdir())  # nothing was trained before


def test_generation_of_a_tokenizer_is_refused(tokenizer, tmp_path, capsys):
  argv = ['eval', f'--workdir={tmp_path}', '--which=generation']
  assert 'workdir of a generator' in fails(capsys, *argv)


# ------------------------------------------------------------------- encode


def test_encode_writes_what_training_reads(tokenizer, tmp_path):
  target = tmp_path / 'tokens'
  argv = ['encode', f'--workdir={tmp_path}', f'--output={target}']
  argv += ['--views=flip', '--batch_size=50', '--shards=2']
  assert main(argv) == 0
  tokens = CachedTokens(str(target))
  images = tokenizer.data
  assert tokens.examples == images.examples
  assert tokens.held_out_examples == images.held_out_examples
  assert tokens.classes == images.classes
  assert tuple(tokens.shape) == (8, 8, 1)
  for a, b in (
    (tokens.train_pass(64), images.train_pass(64)),
    (tokens.held_out(64), images.held_out(64)),
  ):
    found = {
      index: (tokens, label)
      for batch in a
      for index, tokens, label in zip(
        batch['index'], batch['tokens'], batch['label']
      )
    }
    batch = next(iter(b))
    wanted = tokenizer.encode(batch['image'])
    for index, row, label in zip(batch['index'], wanted, batch['label']):
      # The first view is the centre.
      np.testing.assert_array_equal(found[index][0], row)
      assert found[index][1] == label
  made_by = tokens.spec['tokenizer']
  assert made_by['fingerprint'] == fingerprint(tokenizer.variables)
  assert made_by['config'] == TOKENIZER


def test_encoded_views_are_mirror_images(tokenizer, tmp_path):
  target = tmp_path / 'tokens'
  argv = ['encode', f'--workdir={tmp_path}', f'--output={target}']
  assert main([*argv, '--views=flip', '--shards=1']) == 0
  seen = {
    row.tobytes()
    for _, batch in zip(range(12), CachedTokens(str(target)).train(256, seed=0))
    for row in batch['tokens']
  }
  batch = next(iter(tokenizer.data.train_pass(400)))
  mirrored = tokenizer.encode(batch['image'][:, :, ::-1])
  found = [row.tobytes() in seen for row in mirrored[batch['weight'] > 0]]
  assert np.mean(found) > 0.9


def test_tokens_lead_back_to_their_images(tokenizer, tmp_path, monkeypatch):
  target = tmp_path / 'tokens'
  assert main(['encode', f'--workdir={tmp_path}', f'--output={target}']) == 0
  cached = config()
  with cached.unlocked():
    cached.data = {'type': 'data.latents.CachedTokens', 'path': str(target)}
  data, description = measure.images_of(Toy(cached))
  assert data.shape == (8, 8, 1)
  assert 'image' in next(iter(data.held_out(4)))
  assert description['source'] == {'type': 'data.digits.Digits'}


def test_encode_refuses_a_full_folder(tokenizer, tmp_path, capsys):
  (tmp_path / 'mine').write_text('precious')
  argv = ['encode', f'--workdir={tmp_path}', f'--output={tmp_path}']
  assert 'not empty' in fails(capsys, *argv)
  assert (tmp_path / 'mine').read_text() == 'precious'


def test_fingerprint_tells_weights_apart():
  a = {'x': np.ones(3, np.float32), 'y': np.zeros(2)}
  b = {'x': np.ones(3, np.float32), 'y': np.array([0, 1e-9])}
  assert fingerprint(a) == fingerprint(dict(reversed(a.items())))
  assert fingerprint(a) != fingerprint(b)
  assert fingerprint(a) != fingerprint({'z': a['x'], 'y': a['y']})
