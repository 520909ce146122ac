"""Wrong data and wrong configs: every message says what to change."""

import json
import pathlib
import pickle
import struct

import numpy as np
import pytest
from absl import logging
from PIL import Image

from arvision import build
from arvision.data import records
from arvision.data.arrayrecord import ArrayRecordImages, write_images
from arvision.data.base import BrokenImage, Source
from arvision.data.digits import Digits
from arvision.data.emoji import Emoji
from arvision.data.folder import Folder
from arvision.data.idx import Idx, read_idx
from arvision.data.latents import CachedTokens, write_tokens
from arvision.data.pipeline import Images
from arvision.data.tfds import Tfds
from arvision.errors import ConfigError, DataError


def jpegs(root, count=20, side=16):
  rng = np.random.default_rng(0)
  root.mkdir(parents=True, exist_ok=True)
  for i in range(count):
    image = rng.integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(image).save(root / f'{i:02d}.jpg')


def cut_short(path: pathlib.Path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def images(source, **changes):
  fields = {'size': (8, 8), 'threads': 0, 'held_out_share': 0, 'batch_size': 4}
  return Images(source, **{**fields, **changes})


def take(iterator, count):
  return [next(iterator) for _ in range(count)]


# Broken pictures.


def broken_folder(tmp_path):
  root = tmp_path / 'pictures'
  jpegs(root)
  cut_short(root / '07.jpg')
  (root / '11.jpg').write_bytes(b'this is not a picture')
  (root / '13.jpg').write_bytes(b'')
  return Folder(str(root))


@pytest.mark.parametrize('cache', [False, True])
def test_a_broken_picture_is_replaced_by_the_next(tmp_path, caplog, cache):
  source = broken_folder(tmp_path)
  with pytest.raises(BrokenImage, match=r'07\.jpg'):
    source[7]
  data = images(source, broken_share=0.2, cache=cache)
  logging.set_verbosity(logging.WARNING)
  with caplog.at_level('WARNING'):
    batches = take(data.train(4, 0), 10)
  assert data.broken.count == 3
  for name in ('07.jpg', '11.jpg', '13.jpg'):
    assert caplog.text.count(name) == 1
  index = np.concatenate([b['index'] for b in batches])
  assert not {7, 11, 13} & set(index.tolist())
  assert sorted(index[:20].tolist()).count(8) == 2

  iterator = images(source, broken_share=0.2).train(4, 0)
  iterator.set_state({**iterator.get_state(), 'next_batch': 6})
  for a, b in zip(batches[6:], take(iterator, 4)):
    for key in a:
      np.testing.assert_array_equal(a[key], b[key])


def test_a_broken_picture_has_no_weight_on_passes(tmp_path):
  data = images(broken_folder(tmp_path), broken_share=0.2)
  for _ in range(2):
    batches = list(data.train_pass(8))
    assert sum(b['weight'].sum() for b in batches) == 17


@pytest.mark.parametrize('threads', [0, 2])
def test_too_many_broken_pictures(tmp_path, threads):
  data = images(broken_folder(tmp_path), broken_share=0.1, threads=threads)
  with pytest.raises(DataError, match=r'3 of 20(.|\n)*broken_share(.|\n)*jpg'):
    take(data.train(4, 0), 10)


def test_errors_of_worker_processes_keep_their_text(tmp_path):
  root = tmp_path / 'small'
  jpegs(root, side=4)
  jpegs(root, count=1, side=16)
  data = images(Folder(str(root)), resize=None, workers=1, threads=0)
  iterator = data.train(4, 0)
  with pytest.raises(DataError, match=r'config\.data\.resize'):
    take(iterator, 5)
  iterator.close()


def test_no_whole_picture_at_all(tmp_path):
  root = tmp_path / 'pictures'
  jpegs(root, count=3)
  for path in root.iterdir():
    cut_short(path)
  data = images(Folder(str(root)), broken_share=0.99)
  with pytest.raises(DataError, match='3'):
    next(data.train(2, 0))


def test_array_record_leaves_broken_pictures_out(tmp_path):
  source = broken_folder(tmp_path)
  out = str(tmp_path / 'out')
  assert write_images(source, out, shards=1) == {'train': 17}
  assert len(ArrayRecordImages(out)) == 17


# Folders.


def test_folder_without_images(tmp_path):
  (tmp_path / 'notes.txt').write_text('nothing to see')
  with pytest.raises(DataError, match=r'no images.*\.png'):
    len(Folder(str(tmp_path)))


def test_folder_that_is_not_there(tmp_path):
  with pytest.raises(DataError, match=r'config\.data\.source\.path'):
    len(Folder(str(tmp_path / 'nowhere')))


def test_folder_with_images_at_two_levels(tmp_path):
  jpegs(tmp_path, count=1)
  jpegs(tmp_path / 'cats', count=1)
  with pytest.raises(DataError, match='either one sub-folder per class'):
    len(Folder(str(tmp_path)))


def test_held_out_folder_with_other_classes(tmp_path):
  jpegs(tmp_path / 'train' / 'cats', count=2)
  jpegs(tmp_path / 'train' / 'dogs', count=2)
  jpegs(tmp_path / 'val' / 'cats', count=2)
  source = Folder(str(tmp_path / 'train'), held_out_path=str(tmp_path / 'val'))
  with pytest.raises(DataError, match='dogs'):
    _ = source.held_out


def test_folder_with_an_unknown_class(tmp_path):
  jpegs(tmp_path / 'cats', count=1)
  with pytest.raises(DataError, match=r'no class mice.*source\.only'):
    len(Folder(str(tmp_path), only=('mice',)))


def test_caption_that_is_not_text(tmp_path):
  jpegs(tmp_path, count=1)
  (tmp_path / '00.txt').write_bytes(b'\xff\xfe\xfa')
  with pytest.raises(DataError, match=r'00\.txt.*UTF-8'):
    _ = Folder(str(tmp_path))[0]


def test_picture_smaller_than_the_crop(tmp_path):
  jpegs(tmp_path, side=6)
  for resize in (None, 7):
    data = images(Folder(str(tmp_path)), resize=resize)
    with pytest.raises(DataError, match=r'jpg: .*data\.resize=.*data\.size='):
      next(data.train(4, 0))
  assert next(images(Folder(str(tmp_path))).train(4, 0))['image'].shape[1] == 8


# Labels.


class BadLabel(Source):
  classes = ('one', 'two')

  def __len__(self):
    return 10

  def __getitem__(self, i):
    image = np.zeros((8, 8, 1), np.uint8)
    return {'image': image, 'label': 5 if i == 3 else 0, 'caption': ''}


def test_label_without_a_class():
  with pytest.raises(DataError, match=r'badlabel\[3\]: label 5.*2 classes'):
    next(images(BadLabel(), batch_size=10).train(10, 0))
  next(images(BadLabel(), conditional=False).train(10, 0))


def write_idx(path, array, shape=None):
  shape = shape or array.shape
  head = bytes((0, 0, 8, len(shape))) + struct.pack(f'>{len(shape)}I', *shape)
  path.write_bytes(head + array.astype(np.uint8).tobytes())


def test_idx_files_that_are_wrong(tmp_path):
  with pytest.raises(DataError, match=r'source\.folder'):
    len(Idx(str(tmp_path)))
  write_idx(tmp_path / 'train-images-idx3-ubyte', np.zeros((3, 2, 2)))
  labels = tmp_path / 'train-labels-idx1-ubyte'
  write_idx(labels, np.zeros(2))
  with pytest.raises(DataError, match='3 images but .* 2 labels'):
    len(Idx(str(tmp_path)))
  write_idx(labels, np.array([0, 1, 7]))
  with pytest.raises(DataError, match=r'label 7 at index 2.*names 2 classes'):
    len(Idx(str(tmp_path), classes=('a', 'b')))
  write_idx(labels, np.zeros(3), shape=(5,))
  with pytest.raises(DataError, match=r'labels.*5 bytes, but 3 follow'):
    len(Idx(str(tmp_path)))
  labels.write_bytes(b'<html>not found</html>')
  with pytest.raises(DataError, match='starts with 3c 68 74 6d'):
    len(Idx(str(tmp_path)))
  labels.with_suffix('.gz').write_bytes(b'no gzip')
  with pytest.raises(DataError, match='cannot be read'):
    read_idx(labels.with_suffix('.gz'), axes=1)


# Batches, splits and configs.


def test_batch_that_processes_do_not_divide():
  data = images(Digits(), channels=1)
  for start in (
    lambda: data.train(10, 0, 0, 4),
    lambda: data.held_out(10, 0, 4),
  ):
    with pytest.raises(ConfigError, match=r'batch_size=10 .* multiple of 4'):
      start()


def test_batch_larger_than_the_split(tmp_path):
  jpegs(tmp_path, count=3)
  with pytest.raises(ConfigError, match=r'batch_size=4.*only 3 examples'):
    images(Folder(str(tmp_path))).train(4, 0)


def test_share_too_small_to_hold_out(tmp_path):
  jpegs(tmp_path, count=3)
  data = images(Folder(str(tmp_path)), held_out_share=1e-9)
  with pytest.raises(DataError, match=r'held_out_share=1e-09 of 3'):
    _ = data.examples


@pytest.mark.parametrize(
  'change',
  [
    {'channels': 4},
    {'size': (8, 0)},
    {'filter': 'cubic'},
    {'crop': 'left'},
    {'resize': 'big'},
    {'held_out_share': 1.5},
    {'broken_share': -0.1},
    {'threads': -1},
    {'workers': -1},
    {'batch_size': 0},
  ],
  ids=lambda change: next(iter(change)),
)
def test_wrong_fields_name_their_key(change):
  with pytest.raises(ConfigError, match=rf'\.{next(iter(change))}='):
    images(Digits(), **change)


def test_wrong_views():
  with pytest.raises(ConfigError, match='ten_crop'):
    images(Digits()).train_pass(4, views='eleven')


def test_blocks_of_a_config_build_and_complain():
  block = {
    'type': 'data.pipeline.Images',
    'source': {'type': 'data.digits.Digits'},
    'size': (8, 8),
    'channels': 1,
  }
  data = build.build(block, 'data')
  assert data.examples + data.held_out_examples == 1797
  with pytest.raises(ConfigError, match='Did you mean'):
    build.build({**block, 'held_out_shar': 0.1}, 'data')
  with pytest.raises(ConfigError, match='filter'):
    build.build({**block, 'filter': 'x'}, 'data')


def test_state_of_another_stream():
  data = images(Digits(), channels=1)
  state = data.train(8, 0).get_state()
  more = images(Digits(), channels=1, held_out_share=0.2)
  # Another batch size goes on, see test_going_on.py.
  for other in (data.train(8, 1), more.train(8, 0)):
    with pytest.raises(DataError, match='checkpoint was made with'):
      other.set_state(state)


# Records.


def token(i, **changes):
  fields = {'tokens': np.zeros((2, 4), np.int32), 'label': 0, 'index': i}
  return {**fields, **changes}


SPEC = {'classes': ['a'], 'shape': (8, 8, 3)}


@pytest.mark.parametrize(
  ('wrong', 'text'),
  [
    ({'tokens': np.zeros(4, np.int32)}, r'wanted \(views, t\)'),
    ({'tokens': np.zeros((2, 5), np.int32)}, r'example 1: tokens \(5,\)'),
    ({'tokens': np.zeros((2, 4), np.float32)}, 'float32'),
    ({'label': 3}, 'label 3'),
  ],
  ids=['axes', 'length', 'dtype', 'label'],
)
def test_tokens_that_do_not_fit_leave_nothing(tmp_path, wrong, text):
  path = tmp_path / 'tokens'
  with pytest.raises(DataError, match=text):
    write_tokens(str(path), SPEC, [token(0), token(1, **wrong)], 1)
  assert list(tmp_path.iterdir()) == []


def test_latents_that_are_not_finite(tmp_path):
  latents = np.full((1, 2, 2), np.nan, np.float32)
  with pytest.raises(DataError, match='not finite'):
    write_tokens(str(tmp_path / 'x'), SPEC, [token(0, tokens=latents)], 1)


def test_nothing_to_write(tmp_path):
  with pytest.raises(DataError, match='no training examples'):
    write_tokens(str(tmp_path / 'x'), SPEC, [token(0, held_out=True)], 1)
  with pytest.raises(DataError, match="lacks 'shape'"):
    write_tokens(str(tmp_path / 'x'), {'classes': ['a']}, [token(0)], 1)


def test_a_folder_is_never_overwritten(tmp_path):
  (tmp_path / 'precious.txt').write_text('x')
  with pytest.raises(DataError, match='not empty'):
    write_tokens(str(tmp_path), SPEC, [token(0)], 1)
  with pytest.raises(DataError, match='not empty'):
    write_images(Digits(), str(tmp_path), 1)
  assert [p.name for p in tmp_path.iterdir()] == ['precious.txt']


def test_an_interrupted_writer_leaves_nothing(tmp_path):
  def stops():
    yield token(0)
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    write_tokens(str(tmp_path / 'tokens'), SPEC, stops(), 1)
  assert list(tmp_path.iterdir()) == []


def test_folders_of_records_that_are_wrong(tmp_path):
  with pytest.raises(DataError, match=r'spec\.json: no such file'):
    _ = CachedTokens(str(tmp_path / 'nowhere')).examples
  path = tmp_path / 'tokens'
  write_tokens(str(path), SPEC, [token(i) for i in range(4)], 2)
  with pytest.raises(DataError, match='holds tokens .* wanted images'):
    len(ArrayRecordImages(str(path)))
  shard = sorted(path.glob('train-*'))[0]
  whole = shard.read_bytes()
  shard.unlink()
  with pytest.raises(DataError, match='a shard is missing'):
    CachedTokens(str(path)).train(2, 0)
  shard.write_bytes(whole[: len(whole) // 3])
  with pytest.raises(DataError, match=r'damaged|missing|cannot be read'):
    list(CachedTokens(str(path)).train_pass(4))
  spec = json.loads((path / records.SPEC).read_text())
  (path / records.SPEC).write_text(json.dumps({**spec, 'version': 99}))
  with pytest.raises(DataError, match='format 99'):
    _ = CachedTokens(str(path)).examples


def test_codes_that_the_tokenizer_does_not_have(tmp_path):
  spec = {**SPEC, 'tokenizer': {'size': 8, 'parts': 1}}
  codes = np.array([[0, 7, 8, 1]], np.int32)
  write_tokens(str(tmp_path / 'x'), spec, [token(0, tokens=codes)], 1)
  with pytest.raises(DataError, match='train record 0: tokens from 0 to 8.* 8'):
    CachedTokens(str(tmp_path / 'x')).train(1, 0)


def test_records_cannot_run_code():
  with pytest.raises(DataError, match='not a record'):
    records.unpack(pickle.dumps({'tokens': 1}), 'x')


# Other sources.


def test_tfds_that_is_not_there(tmp_path):
  with pytest.raises(DataError, match=r'data_dir'):
    len(Tfds('cifar10', data_dir=str(tmp_path)))


def test_font_that_is_not_there(tmp_path):
  with pytest.raises(DataError, match='fonts-noto-color-emoji'):
    len(Emoji(str(tmp_path / 'x.ttf')))
  (tmp_path / 'x.ttf').write_bytes(b'no font')
  with pytest.raises(DataError, match='bitmap_size'):
    len(Emoji(str(tmp_path / 'x.ttf')))
  with pytest.raises(ConfigError, match='classes_by'):
    Emoji('x.ttf', classes_by='colour')
