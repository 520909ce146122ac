"""Parquet files and WebDataset shards give what they hold, or one clear line."""

import io
import json
import pickle
import tarfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from arvision.data.base import BrokenImage
from arvision.data.decode import encode
from arvision.data.parquet import Parquet
from arvision.data.pipeline import Images
from arvision.data.split import hold_out
from arvision.data.webdataset import WebDataset
from arvision.errors import DataError

CAT = {'huggingface': json.dumps({'info': {'features': {'label': {
  'names': ['cat', 'dog', 'fox'], '_type': 'ClassLabel'}}}})}  # fmt: skip


def picture(height, width, channels, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (height, width, channels), np.uint8)


def write_parquet(path, count=10, metadata=CAT, **columns):
  images = [
    {'bytes': encode(picture(4 + i % 3, 5, 3, i)), 'path': f'{i}.png'}
    for i in range(count)
  ]
  columns = {
    'image': images,
    'label': [i % 2 for i in range(count)],
    'text': [['a grün thing', 'x'] if i else None for i in range(count)],
    **columns,
  }
  table = pyarrow.table(columns).replace_schema_metadata(metadata)
  pyarrow.parquet.write_table(table, path, row_group_size=3)


def write_tar(path, files):
  with tarfile.open(path, 'w') as tar:
    for name, data in files:
      entry = tarfile.TarInfo(name)
      entry.size = len(data)
      tar.addfile(entry, io.BytesIO(data))


def samples(start, count):
  for i in range(start, start + count):
    yield f'{i:03d}.png', encode(picture(4 + i % 3, 5, 3, i))
    yield f'{i:03d}.cls', b'%d\n' % (i % 2)
    if i:
      yield f'{i:03d}.txt', 'a grün thing'.encode()


@pytest.fixture(params=['parquet', 'tar'])
def source(request, tmp_path):
  """Ten pictures in two shards, and two held-out ones."""
  if request.param == 'parquet':
    write_parquet(tmp_path / 'train-0.parquet')
    write_parquet(tmp_path / 'test-0.parquet', 2)
    options = ('train-*.parquet', 'test-*.parquet')
    return Parquet(str(tmp_path), *options, caption='text')
  write_tar(tmp_path / 'train-0.tar', samples(0, 6))
  write_tar(tmp_path / 'train-1.tar', samples(6, 4))
  write_tar(tmp_path / 'test-0.tar', samples(0, 2))
  options = ('train-*.tar', 'test-*.tar')
  return WebDataset(str(tmp_path), *options, class_names=('cat', 'dog', 'fox'))


def test_shards_keep_the_contract_of_sources(source):
  assert len(source) == 10 and source.classes == ('cat', 'dog', 'fox')
  assert source.labels.tolist() == [0, 1] * 5
  copied = pickle.loads(pickle.dumps(source))
  for i in (9, 0, 4, 3):
    example = copied[i]
    np.testing.assert_array_equal(example['image'], picture(4 + i % 3, 5, 3, i))
    assert example['label'] == i % 2
    assert example['caption'] == copied.caption_of(i)
    assert example['caption'] == ('a grün thing' if i else 'cat')
  assert pickle.loads(pickle.dumps(copied))[1]['label'] == 1
  names = [source.name(i) for i in range(10)]
  assert len({*names}) == 10 and source.digest() == copied.digest()
  assert len(source.held_out) == 2 and source.held_out.held_out is None
  assert source.held_out.classes == source.classes
  train, held = hold_out(source, 0.4)
  assert len(train) + len(held) == 10 and len(held)
  data = Images(source, (4, 4), 3)
  assert data.held_out_examples == 2 and data.num_classes == 3
  batch = next(data.train(4, 0))
  assert batch['image'].shape == (4, 4, 4, 3)


def test_broken_pictures_in_parquet_are_counted(tmp_path):
  png = encode(picture(4, 4, 3))
  path = tmp_path / 'a.parquet'
  write_parquet(path, 8, image=[b'no picture', *[png] * 7])
  source = Parquet(str(path))
  with pytest.raises(BrokenImage, match=r'a\.parquet\[0\]: not a picture'):
    _ = source[0]
  data = Images(source, (4, 4), 3, broken_share=0.2, held_out_share=0)
  batches = data.train(8, 0)
  next(batches), next(batches)
  assert data.broken.count == 1
  small = Parquet(str(path), max_pixels=15)
  with pytest.raises(BrokenImage, match='16 pixels, wanted at most 15'):
    _ = small[1]
  outside = [{'bytes': None, 'path': '/etc/passwd'}] * 2
  write_parquet(path, 2, image=outside)
  with pytest.raises(BrokenImage, match='paths in files are not followed'):
    _ = Parquet(str(path))[0]


def test_labels_of_parquet_may_be_texts_or_absent(tmp_path):
  path = tmp_path / 'pets.parquet'
  write_parquet(path, 3, None, label=['dog', 'cat', 'dog'])
  source = Parquet(str(path), keep_mb=0)
  assert source.classes == ('cat', 'dog') and source.labels.tolist() == [
    1,
    0,
    1,
  ]
  assert source[1]['caption'] == 'cat'
  assert Parquet(str(path), label='').classes == ('pets',)
  for columns, said in (
    ({'label': [0, 1, None]}, "1 rows have no 'label'"),
    ({'label': [0, 5, 1]}, 'label 5, but .* name 3 classes'),
    ({'label': [0.5, 1, 1]}, "'label' holds 0.5, wanted numbers"),
  ):
    write_parquet(path, 3, **columns)
    with pytest.raises(DataError, match=said):
      _ = Parquet(str(path)).classes
  with pytest.raises(DataError, match="no column 'img'; set .* label, text"):
    len(Parquet(str(path), image='img'))
  path.write_bytes(path.read_bytes()[:-7])
  with pytest.raises(DataError, match='cannot be read as Parquet'):
    len(Parquet(str(path)))
  with pytest.raises(DataError, match=r'no file \*\.tar'):
    len(WebDataset(str(tmp_path)))


def test_labels_and_captions_of_webdataset_may_be_json(tmp_path):
  png = encode(picture(4, 4, 3))
  facts = json.dumps({'label': 2, 'caption': ' a fox '}).encode()
  files = [('x/7.v2.png', png), ('x/7.json', facts), ('x/7.note', b'')]
  write_tar(tmp_path / 'a.tar', [*files, ('x/8.json', facts)])
  source = WebDataset(str(tmp_path), extensions=('.v2.png',))
  assert len(source) == 1 and source.classes == ('0', '1', '2')
  assert source.name(0) == 'a.tar/x/7'
  assert source[0]['label'] == 2 and source[0]['caption'] == 'a fox'


@pytest.mark.parametrize(
  ('files', 'said'),
  [
    ([('1.cls', b'1')], 'no images in 1 shards'),
    ([('1.png', b''), ('1.cls', b'cat')], "1: label 'cat', wanted a number"),
    ([('1.png', b''), ('1.cls', b'1' * 33)], '1.cls: 33 bytes'),
    ([('1.png', b''), ('1.json', b'[')], '1.json: wanted a JSON object'),
    ([('1.png', b''), ('1.cls', b'1'), ('2.png', b'')], '2 has no label'),
    ([('1.png', b''), ('2.png', b''), ('1.png', b'')], '1 comes twice'),
  ],
)
def test_wrong_shards_are_refused(tmp_path, files, said):
  write_tar(tmp_path / 'a.tar', files)
  with pytest.raises(DataError, match=said):
    len(WebDataset(str(tmp_path)))


def test_hostile_shards(tmp_path):
  png = encode(picture(4, 4, 3))
  path = tmp_path / 'a.tar'
  write_tar(path, [('1.png', png), ('2.png', b'nothing')])
  with tarfile.open(path, 'a') as tar:
    for name, kind in (('3.png', tarfile.SYMTYPE), ('4.png', tarfile.LNKTYPE)):
      entry = tarfile.TarInfo(name)
      entry.type, entry.linkname = kind, '/etc/passwd'
      tar.addfile(entry)
  source = WebDataset(str(tmp_path))
  assert len(source) == 2 and source.classes == (tmp_path.name,)
  with pytest.raises(BrokenImage, match='a.tar/2: not a picture'):
    _ = source[1]
  with pytest.raises(BrokenImage, match='16 pixels, wanted at most 15'):
    _ = WebDataset(str(path), max_pixels=15)[0]
  whole = path.read_bytes()
  for cut in (whole[: 512 + 20], b'\x1f\x8b' + whole, b'no tar' * 200):
    path.write_bytes(cut)
    with pytest.raises(
      DataError, match='cannot be read as an uncompressed tar'
    ):
      len(WebDataset(str(tmp_path)))
  path.write_bytes(whole)
  source = WebDataset(str(tmp_path))
  assert len(source) == 2
  path.write_bytes(whole[:600])
  with pytest.raises(BrokenImage, match='cut off'):
    _ = source[0]
