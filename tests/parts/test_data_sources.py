"""Sources give the pictures, labels and captions that their files hold."""

import dataclasses
import gzip
import json
import pathlib
import pickle
import struct
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image, ImageFont
from tensorflow_datasets.proto import tf_example_pb2

from arvision.data import emoji_table
from arvision.data.arrayrecord import ArrayRecordImages, write_images
from arvision.data.base import BrokenImage
from arvision.data.decode import decode, encode
from arvision.data.digits import Digits
from arvision.data.emoji import Emoji
from arvision.data.folder import Folder
from arvision.data.idx import Idx
from arvision.data.split import hold_out
from arvision.data.tfds import Tfds
from arvision.errors import DataError


def picture(height, width, channels, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (height, width, channels), np.uint8)


def save(path: pathlib.Path, image: np.ndarray):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(encode(image))


def write_idx(path, array):
  head = bytes((0, 0, 8, array.ndim)) + struct.pack(
    f'>{array.ndim}I', *array.shape
  )
  opener = gzip.open if path.suffix == '.gz' else open
  with opener(path, 'wb') as file:
    file.write(head + array.astype(np.uint8).tobytes())


def test_digits_are_stretched_so_that_it_can_be_undone():
  source = Digits()
  assert len(source) == 1797
  assert source.classes == tuple('0123456789')
  example = source[10]
  assert example['image'].shape == (8, 8, 1)
  assert example['image'].dtype == np.uint8
  images = np.stack([source[i]['image'] for i in range(50)])
  assert images.min() == 0 and images.max() == 255
  steps = images / 255 * 16
  assert np.abs(steps - np.rint(steps)).max() < 0.04
  assert example['caption'].endswith(str(example['label']))


@pytest.mark.parametrize('ending', ['', '.gz'])
def test_idx_files(tmp_path, ending):
  images, labels = picture(5, 4, 3), np.array([0, 1, 1, 0, 1])
  write_idx(tmp_path / f'train-images-idx3-ubyte{ending}', images)
  write_idx(tmp_path / f'train-labels-idx1-ubyte{ending}', labels)
  write_idx(tmp_path / f't10k-images-idx3-ubyte{ending}', images[:2])
  write_idx(tmp_path / f't10k-labels-idx1-ubyte{ending}', labels[:2])
  source = Idx(str(tmp_path), classes=('shirt', 'shoe'))
  assert len(source) == 5 and len(source.held_out) == 2
  assert source.held_out.held_out is None
  np.testing.assert_array_equal(source[3]['image'], images[3][..., None])
  assert source[2]['label'] == 1 and source[2]['caption'] == 'shoe'
  assert source.labels.tolist() == labels.tolist()


def test_idx_without_held_out_files(tmp_path):
  write_idx(tmp_path / 'train-images-idx3-ubyte', picture(2, 2, 2))
  write_idx(tmp_path / 'train-labels-idx1-ubyte', np.zeros(2))
  assert Idx(str(tmp_path)).held_out is None


def test_folder_with_a_class_per_sub_folder(tmp_path):
  save(tmp_path / 'b' / '2.png', picture(3, 5, 3, 1))
  save(tmp_path / 'b' / 'deep' / '1.png', picture(4, 4, 1, 2))
  save(tmp_path / 'a' / '9.PNG', picture(6, 2, 3, 3))
  (tmp_path / 'a' / '9.txt').write_text(' a grün picture\n', encoding='utf-8')
  (tmp_path / 'a' / 'notes.md').write_text('no image')
  (tmp_path / '.hidden').mkdir()
  save(tmp_path / '.hidden' / '1.png', picture(2, 2, 1))
  source = Folder(str(tmp_path))
  assert source.classes == ('a', 'b')
  assert [source.name(i) for i in range(3)] == [
    'a/9.PNG',
    'b/2.png',
    'b/deep/1.png',
  ]
  assert source.labels.tolist() == [0, 1, 1]
  assert source[0]['caption'] == 'a grün picture'
  assert source[1]['caption'] == 'b'
  np.testing.assert_array_equal(source[1]['image'], picture(3, 5, 3, 1))
  assert source[2]['image'].shape == (4, 4, 1)
  only = Folder(str(tmp_path), only=('b',))
  assert only.classes == ('b',) and len(only) == 2
  assert only.labels.tolist() == [0, 0]


def test_flat_folder_is_one_class(tmp_path):
  root = tmp_path / 'cats'
  for i in range(3):
    save(root / f'{i}.png', picture(2, 3, 3, i))
  source = Folder(str(root))
  assert source.classes == ('cats',)
  assert source.labels.tolist() == [0, 0, 0]


def test_folder_with_its_own_held_out_folder(tmp_path):
  for split in ('train', 'val'):
    for name in 'xy':
      save(tmp_path / split / name / '0.png', picture(2, 2, 3))
  source = Folder(str(tmp_path / 'train'), held_out_path=str(tmp_path / 'val'))
  assert source.held_out.classes == source.classes
  assert source.held_out.path == str(tmp_path / 'val')


def test_kinds_of_pictures(tmp_path):
  grey = Image.fromarray(picture(4, 6, 1)[..., 0])
  half = np.zeros((2, 2, 4), np.uint8)
  half[0] = (255, 0, 0, 255)
  cases = {
    'grey': (grey, (4, 6, 1)),
    'palette': (Image.fromarray(picture(4, 6, 3)).convert('P'), (4, 6, 3)),
    'clear': (Image.fromarray(half), (2, 2, 3)),
    'bits': (grey.convert('1'), (4, 6, 1)),
    'deep': (Image.fromarray(np.full((3, 2), 0x80FF, np.uint16)), (3, 2, 1)),
  }
  out = {}
  for name, (image, shape) in cases.items():
    image.save(tmp_path / f'{name}.png')
    out[name] = decode(tmp_path / f'{name}.png', name)
    assert out[name].shape == shape and out[name].dtype == np.uint8
  assert out['clear'][0, 0].tolist() == [255, 0, 0]
  assert out['clear'][1, 0].tolist() == [255, 255, 255]
  black = decode(tmp_path / 'clear.png', '', background=(0, 0, 0))
  assert black[1, 0].tolist() == [0, 0, 0]
  assert (out['deep'] == 0x80).all()
  Image.new('CMYK', (3, 3)).save(tmp_path / 'c.jpg')
  assert decode(tmp_path / 'c.jpg', 'c').shape == (3, 3, 3)


def test_exif_orientation_is_applied(tmp_path):
  image = Image.fromarray(picture(2, 6, 3))
  exif = Image.Exif()
  exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees
  image.save(tmp_path / 'x.png', exif=exif)
  turned = decode(tmp_path / 'x.png', 'x')
  np.testing.assert_array_equal(turned, np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize('channels', [1, 3])
def test_array_record_round_trip(tmp_path, channels):
  for i in range(5):
    save(tmp_path / 'in' / 'ab'[i % 2] / f'{i}.png', picture(3, 4, channels, i))
  source = Folder(str(tmp_path / 'in'), held_out_path=str(tmp_path / 'in'))
  counts = write_images(source, str(tmp_path / 'out'), shards=2)
  assert counts == {'train': 5, 'held_out': 5}
  back = pickle.loads(pickle.dumps(ArrayRecordImages(str(tmp_path / 'out'))))
  assert back.classes == ('a', 'b') and len(back.held_out) == 5
  key = lambda e: (e['label'], e['caption'], e['image'].tobytes())
  stored = sorted(key(back[i]) for i in range(len(back)))
  assert stored == sorted(key(source[i]) for i in range(len(source)))


def test_array_records_keep_the_names_of_their_pictures(tmp_path):
  for i in range(7):
    save(tmp_path / 'in' / 'ab'[i % 2] / f'{i}.png', picture(3, 4, 1, i))
  source = Folder(str(tmp_path / 'in'))
  image = {source.name(i): source[i]['image'].tobytes() for i in range(7)}
  held = [source.name(i) for i in hold_out(source, 0.4)[1]]
  assert 0 < len(held) < 7
  for shards in (1, 3):
    path = tmp_path / f'out{shards}'
    write_images(source, str(path), shards)
    back = ArrayRecordImages(str(path))
    found = {back.name(i): back[i]['image'].tobytes() for i in range(7)}
    assert found == image
    chosen = hold_out(back, 0.4)[1]
    assert sorted(back.name(i) for i in chosen) == sorted(held)
    assert back.caption_of(2) == back[2]['caption']
  (path / 'names.json').write_text('{"train": ["a"]}')
  with pytest.raises(DataError, match=r'names\.json: wanted a list of 7 names'):
    ArrayRecordImages(str(path)).name(0)


def test_slices_of_tfds_call_their_records_what_the_whole_does():
  length = lambda count: types.SimpleNamespace(num_examples=count)
  splits = {'train': length(20), 'test': length(6)}
  names = {}
  for split in ('train', 'train[50%:]', 'train[:3]+test[4:]'):
    source = Tfds('tiny', split)
    info = types.SimpleNamespace(splits=splits)
    source.__dict__['_data'] = types.SimpleNamespace(dataset_info=info)
    names[split] = [source.name(i) for i in range(5)]
  assert names['train'] == [f'tiny/train[{i}]' for i in range(5)]
  assert names['train[50%:]'] == [f'tiny/train[{i}]' for i in range(10, 15)]
  numbers = [*names['train'][:3], 'tiny/test[4]', 'tiny/test[5]']
  assert names['train[:3]+test[4:]'] == numbers


def test_tfds_without_tensorflow():
  import sys

  with tfds.testing.mock_data(num_examples=4):
    source = Tfds('cifar10')
    example = source[1]
    assert len(source) == 4 and len(source.held_out) == 4
    assert len(source.classes) == 10
    assert example['image'].shape == (32, 32, 3)
    assert example['image'].dtype == np.uint8
    assert example['caption'] == source.classes[example['label']]
    unlabelled = Tfds('cifar10', label='', held_out_split='')
    assert unlabelled.classes == ('cifar10',) and unlabelled.held_out is None
    assert unlabelled[0]['label'] == 0
  assert 'tensorflow' not in sys.modules


def test_tfds_pictures_are_decoded_by_our_rules(tmp_path):
  root = tmp_path / 'mine' / '1.0.0'
  root.mkdir(parents=True)
  features = {
    'image': tfds.features.Image(shape=(None, None, 3)),
    'label': tfds.features.ClassLabel(names=['a', 'b']),
  }
  tfds.features.FeaturesDict(features).save_config(root)
  red = encode(np.full((4, 5, 3), (200, 0, 0), np.uint8))
  name = 'mine-train.array_record-00000-of-00001'
  writer = array_record_module.ArrayRecordWriter(
    str(root / name), 'group_size:1'
  )
  for data in (red, b'%!PS-Adobe-3.0 EPSF-3.0'):
    example = tf_example_pb2.Example()
    example.features.feature['image'].bytes_list.value.append(data)
    example.features.feature['label'].int64_list.value.append(1)
    writer.write(example.SerializeToString())
  writer.close()
  form = '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}'
  split = {'name': 'train', 'shardLengths': ['2'], 'filepathTemplate': form}
  info = {'name': 'mine', 'version': '1.0.0', 'fileFormat': 'array_record'}
  text = json.dumps({**info, 'splits': [split]})
  (root / 'dataset_info.json').write_text(text)
  source = Tfds('mine', data_dir=str(tmp_path), held_out_split='')
  assert (source[0]['image'] == np.array([200, 0, 0], np.uint8)).all()
  assert source[0]['caption'] == 'b'
  with pytest.raises(BrokenImage, match=r'train\[1\]: not a picture'):
    _ = source[1]
  small = dataclasses.replace(source, max_pixels=19)
  with pytest.raises(BrokenImage, match='20 pixels, wanted at most 19'):
    _ = small[0]


def test_names_of_tfds_need_no_data(tmp_path, caplog):
  source = Tfds('imagenet2012', data_dir=str(tmp_path))
  assert len(source.classes) == 1000 and source.classes[0] == 'n01440764'
  assert caplog.records == [] and list(tmp_path.iterdir()) == []


@pytest.fixture
def plain_font(tmp_path):
  """Pillow's own font: no emoji but a few symbols of the same blocks."""
  font = ImageFont.load_default(20)
  path = tmp_path / 'font.ttf'
  font.path.seek(0)
  path.write_bytes(font.path.read())
  return str(path)


def test_emoji_are_the_glyphs_that_the_font_has(plain_font):
  source = Emoji(plain_font, size=16, classes_by='block', bitmap_size=20)
  names = [source.name(i) for i in range(len(source))]
  assert 'copyright sign' in names
  assert 'grinning face' not in names
  assert 'no-break space' not in names  # there, but blank
  assert 'Latin-1 Supplement' in source.classes
  example = source[names.index('copyright sign')]
  assert example['caption'] == 'copyright sign'
  image = example['image']
  assert image.shape == (16, 16, 3) and image.dtype == np.uint8
  assert image.max() == 255 and image.min() < 128
  night = Emoji(plain_font, size=16, bitmap_size=20, background=(9, 0, 0))
  corner = night[names.index('copyright sign')]['image'][0, 0]
  assert corner[0] >= corner[1]
  assert night.classes != source.classes


def test_emoji_table():
  assert emoji_table.lookup(emoji_table.GROUPS, 0x1F600) == 'faces'
  assert emoji_table.lookup(emoji_table.GROUPS, 0x1F34E) == 'food'
  assert emoji_table.lookup(emoji_table.BLOCKS, 0x1F600) == 'Emoticons'
  codes = emoji_table.codes()
  assert codes == sorted(set(codes))
  assert 0x1F600 in codes and 0x1F3FB not in codes and 0x1F1E6 not in codes
