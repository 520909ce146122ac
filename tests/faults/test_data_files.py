"""Hostile files and odd names in folders of pictures."""

import gzip
import io
import os
import socket
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from arvision.commands import edit
from arvision.data.arrayrecord import ArrayRecordImages, write_images
from arvision.data.base import BrokenImage
from arvision.data.decode import decode
from arvision.data.folder import Folder
from arvision.data.idx import read_idx
from arvision.data.pipeline import Images
from arvision.data.text import read_features
from arvision.errors import ConfigError, DataError
from arvision.runs import page
from tests.pictures import chunk, png, tiff


def save(path, value=0, size=(3, 2)):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new('RGB', size, (value, 0, 0)).save(path)


def jpeg_of_scans(number):
  buffer = io.BytesIO()
  Image.new('RGB', (3000, 3000)).save(buffer, 'JPEG', progressive=True)
  data = buffer.getvalue()
  last = data[data.rindex(b'\xff\xda') : -2]
  return data[:-2] + last * number + data[-2:]


def header(width, height):
  head = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', b'')


def gif(width, height):
  frame = struct.pack('<HHHHB', 0, 0, width, height, 0)
  screen = struct.pack('<HHBBB', 1, 1, 0x80, 0, 0) + bytes(6)
  return b'GIF89a' + screen + b',' + frame + b'\x02\x02\x44\x01\0;'


def tags(number, size):
  entries = (struct.pack('<HHII', i, 1, size, 8) for i in range(number))
  head = b'II*\0' + struct.pack('<IH', 8, number)
  return head + b''.join(entries) + bytes(size)


BOMB = zlib.compress(bytes(2**28))
HOSTILE = {
  'eps': (
    b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/x) (w) file\n',
    'not a picture',
  ),
  'pixels': (header(13000, 13000), r'169000000 pixels.*source\.max_pixels'),
  'more pixels': (header(2**31 - 1, 2**31 - 1), r'source\.max_pixels'),
  'gif': (gif(9000, 9000), r'81000000 pixels.*source\.max_pixels'),
  'text': (
    png(1, [b'a'], 8, 0, *[(b'zTXt', b'k\0\0' + BOMB)] * 2),
    'cannot be decoded',
  ),
  'profile': (png(1, [b'a'], 8, 0, (b'iCCP', b'k\0\0' + BOMB)), 'cannot be'),
  'scans': (jpeg_of_scans(3000), 'scans of 9000000 pixels'),
  'tags': (tags(50_000, 500_000), 'tags of 25000000000 bytes'),
  'strips': (
    tiff(b'a', (1, 1), 8, tags={273: [8] * 70_000}),
    'tag 273 holds 70000 numbers',
  ),
  'tile': (
    tiff(BOMB, (9, 9), 8, tags={259: [8], 322: [2**14], 323: [2**14]}),
    'tiles of more than',
  ),
  'compression': (tiff(b'a', (1, 1), 8, tags={259: [4711]}), 'not a picture'),
  'comment': (b'P5 #' + b'a' * 10**6 + b'\n1 1 255\na', 'PPM'),
  'plain': (b'P2 900 900 255\n' + b'1 ' * 10**6, 'PPM'),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_pictures_are_broken_pictures(tmp_path, name):
  data, said = HOSTILE[name]
  (tmp_path / 'x.png').write_bytes(data)
  start = time.monotonic()
  with pytest.raises(BrokenImage, match=rf'x\.png: .*{said}'):
    _ = Folder(str(tmp_path))[0]
  assert time.monotonic() - start < 5


def test_no_picture_starts_a_program(tmp_path, monkeypatch):
  started = tmp_path / 'started'
  for program in ('gs', 'display', 'xdg-open'):
    path = tmp_path / 'bin' / program
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\ntouch {started}\n')
    path.chmod(0o755)
  monkeypatch.setenv('PATH', str(path.parent), prepend=os.pathsep)
  with pytest.raises(BrokenImage):
    decode(HOSTILE['eps'][0], 'x')
  assert not started.exists()


@pytest.mark.parametrize('kind', ['fifo', 'socket', 'device', 'folder'])
def test_only_regular_files_are_opened(tmp_path, kind):
  odd = tmp_path / 'odd'
  if kind == 'fifo':
    os.mkfifo(odd)
  elif kind == 'socket':
    socket.socket(socket.AF_UNIX).bind(str(odd))
  elif kind == 'folder':
    odd.mkdir()
  else:
    odd.symlink_to('/dev/zero')
  save(tmp_path / 'in' / 'a.png')
  (tmp_path / 'in' / 'b.png').symlink_to(odd)
  with pytest.raises(BrokenImage, match=rf'(?i)b: .*{kind}.*regular file'):
    decode(tmp_path / 'in' / 'b.png', 'b')
  if kind != 'folder':
    with pytest.raises(BrokenImage, match=r'b\.png: .*regular file'):
      _ = Folder(str(tmp_path / 'in'))[1]
    (tmp_path / 'in' / 'a.txt').symlink_to(odd)
    with pytest.raises(DataError, match=r'a\.txt: .*regular file'):
      _ = Folder(str(tmp_path / 'in'))[0]
    with pytest.raises(DataError, match='regular file'):
      read_features(odd, 4)
    with pytest.raises(DataError, match='regular file'):
      read_idx(odd, 1)
    with pytest.raises(DataError, match='regular file'):
      page.picture(odd, 'x')
  with pytest.raises(DataError, match='not a regular file'):
    edit.region_of(str(odd), '', (8, 8))


def test_the_limit_of_pixels_is_a_field(tmp_path):
  save(tmp_path / 'in' / 'a.png', size=(10, 10))
  assert len(Folder(str(tmp_path / 'in'), max_pixels=100)[0]['image']) == 10
  out = str(tmp_path / 'out')
  write_images(Folder(str(tmp_path / 'in')), out, 1)
  for kind, path in ((Folder, str(tmp_path / 'in')), (ArrayRecordImages, out)):
    with pytest.raises(BrokenImage, match=r'100 pixels, wanted at most 99 '):
      _ = kind(path, max_pixels=99)[0]
    for wrong in (0, 10**12, 'many'):
      with pytest.raises(ConfigError, match=r'source\.max_pixels='):
        kind(path, max_pixels=wrong)


def test_scaling_does_not_make_enormous_pictures(tmp_path):
  for i in range(4):
    save(tmp_path / f'{i}.png', size=(60_000, 1) if i == 2 else (9, 9))
  for crop in ('center', 'adm'):
    data = Images(
      Folder(str(tmp_path)),
      (64, 64),
      held_out_share=0,
      broken_share=0,
      batch_size=4,
      threads=0,
      crop=crop,
    )
    with pytest.raises(DataError, match=r'2\.png: 1 x 60000 pixels would'):
      next(data.train(4, 0))


def test_an_idx_file_unpacks_to_what_its_header_says(tmp_path):
  path = tmp_path / 'a.gz'
  head = bytes((0, 0, 8, 1)) + struct.pack('>I', 3)
  path.write_bytes(gzip.compress(head + bytes(2**28), 1))
  start = time.monotonic()
  with pytest.raises(DataError, match='3 bytes, but 4 or more follow'):
    read_idx(path, 1)
  assert time.monotonic() - start < 1
  for sizes in ((2**32 - 1,) * 3, (2**32 - 1, 0, 1)):
    lies = bytes((0, 0, 8, 3)) + struct.pack('>3I', *sizes) + b'abc'
    for path, data in (
      (tmp_path / 'b.gz', gzip.compress(lies)),
      (tmp_path / 'b', lies),
    ):
      path.write_bytes(data)
      with pytest.raises(DataError, match=r'b.*the header says'):
        read_idx(path, 3)


# Links.


def four(tmp_path):
  root = tmp_path / 'root'
  for name in ('cats/1', 'cats/2', 'dogs/1', 'dogs/2'):
    save(root / f'{name}.png')
  return root


@pytest.mark.parametrize(
  ('link', 'target'),
  [
    ('cats/up', '..'),
    ('cats/self', '.'),
    ('loop', '.'),
    ('cats/far', '../..'),
    ('cats/all', '../dogs'),
    ('dogs/3.png', '1.png'),
    ('cats/round/a', '.'),
  ],
)
def test_links_multiply_nothing(tmp_path, caplog, link, target):
  root = four(tmp_path)
  (root / link).parent.mkdir(exist_ok=True)
  (root / link).symlink_to(target)
  with caplog.at_level('WARNING'):
    source = Folder(str(root))
    names = [source.name(i) for i in range(len(source))]
  assert names == ['cats/1.png', 'cats/2.png', 'dogs/1.png', 'dogs/2.png']
  assert source.classes == ('cats', 'dogs')
  assert f'the first is {link}, to ' in caplog.text


def test_links_to_elsewhere_are_followed(tmp_path):
  root = four(tmp_path)
  save(tmp_path / 'elsewhere' / 'deep' / 'a.png')
  save(tmp_path / 'one.png')
  (tmp_path / 'one.txt').write_text('shared')
  (root / 'birds').symlink_to(tmp_path / 'elsewhere')
  (root / 'cats' / '0.png').symlink_to(tmp_path / 'one.png')
  for name in '01':
    (root / 'cats' / f'{name}.txt').symlink_to(tmp_path / 'one.txt')
  source = Folder(str(root))
  assert source.classes == ('birds', 'cats', 'dogs')
  assert source.labels.tolist() == [0, 1, 1, 1, 2, 2]
  captions = [source[i]['caption'] for i in range(4)]
  assert captions == ['birds', 'shared', 'shared', 'cats']


def test_two_names_of_one_class_are_refused(tmp_path):
  root = four(tmp_path)
  (root / 'kitties').symlink_to('cats')
  with pytest.raises(DataError, match=r'class kitties .*another class'):
    len(Folder(str(root)))
  assert len(Folder(str(root), only=('cats', 'dogs'))) == 4


# Names and captions.


def test_names_that_are_not_utf8(tmp_path):
  folder = os.fsencode(tmp_path) + b'/in/caf\xe9'
  os.makedirs(folder)
  for name in (b'a\xff.png', b'b\n.png', b'c.png'):
    with open(folder + b'/' + name, 'wb') as file:
      file.write(png(9, [bytes(9)] * 9, 8, 0) if name[:1] != b'b' else b'')
  source = Folder(str(tmp_path / 'in'))
  names = [source.name(i) for i in range(3)]
  assert names == [r'caf\udce9/a\udcff.png', r'caf\udce9/b\n.png', names[2]]
  assert source.classes == (r'caf\udce9',)
  data = Images(
    source, (8, 8), held_out_share=0.4, broken_share=0.9, batch_size=1
  )
  assert data.examples + data.held_out_examples == 3
  batch = next(data.train(1, 0))
  assert batch['caption'][0].encode() == rb'caf\udce9'
  with pytest.raises(BrokenImage, match=r'/caf\\udce9/b\\n\.png: '):
    _ = source[1]
  counts = write_images(source, str(tmp_path / 'out'), 1)
  assert counts == {'train': 2}


def test_captions_of_other_editors(tmp_path):
  save(tmp_path / '0.png')
  save(tmp_path / '1.png')
  (tmp_path / '0.TXT').write_bytes('\ufeffein Apfel\r\n'.encode())
  (tmp_path / '1.TXT').write_text('large')
  (tmp_path / '1.txt').write_text('small')
  source = Folder(str(tmp_path))
  assert [source[i]['caption'] for i in (0, 1)] == ['ein Apfel', 'small']
  (tmp_path / '0.TXT').write_bytes('apple'.encode('utf-16-le'))
  with pytest.raises(DataError, match=r'0\.TXT: .*NUL'):
    _ = source[0]
  (tmp_path / '0.TXT').write_bytes(b'a' * 10**6)
  with pytest.raises(DataError, match=r'0\.TXT: .*1000000 bytes'):
    _ = source[0]


# What is said of many.


@pytest.mark.parametrize('threads', [0, 2])
def test_one_error_names_all_broken_pictures(tmp_path, threads):
  for i in range(200):
    path = tmp_path / f'{i:03d}.png'
    path.write_bytes(b'' if i % 5 == 3 else png(8, [bytes(8)] * 8, 8, 0))
  data = Images(
    Folder(str(tmp_path)), (8, 8), held_out_share=0, threads=threads
  )
  with pytest.raises(DataError, match='40 of 200 pictures are') as error:
    for _, _batch in zip(range(9), data.train(8, 0)):
      pass
  for i in range(200):
    assert (f'{i:03d}.png: ' in str(error.value)) == (i % 5 == 3)


def test_records_of_other_kinds_are_refused(tmp_path):
  from arvision.data import records

  save(tmp_path / 'secret.png')
  good = {'image': b'', 'label': 0, 'caption': ''}
  for wrong in (
    {'image': str(tmp_path / 'secret.png')},
    {'label': 'x'},
    {'caption': 3},
  ):
    path = tmp_path / '-'.join(wrong)
    with records.new_folder(str(path)) as folder:
      rows = [('train', {**good, **wrong})]
      records.write_splits(folder, rows, 1)
      spec = {'kind': 'images', 'version': 1, 'classes': ['a']}
      records.write_spec(folder, {**spec, 'splits': {'train': 1}})
    with pytest.raises(DataError, match=rf'record 0: {min(wrong)} is '):
      _ = ArrayRecordImages(str(path))[0]
    records.write_spec(path, {**spec, 'splits': 3})
    with pytest.raises(DataError, match='wanted a list of names'):
      len(ArrayRecordImages(str(path)))


# The region of `arvision edit`.


@pytest.mark.parametrize(
  ('value', 'said'), [(255, 'everywhere|nowhere'), (0, 'nowhere')]
)
def test_a_mask_of_one_value_is_refused(tmp_path, value, said):
  path = str(tmp_path / 'm.png')
  Image.new('L', (8, 8), value).save(path)
  with pytest.raises(DataError, match=rf'm\.png.* is white ({said})'):
    edit.region_of(path, '', (8, 8))
  with pytest.raises(DataError, match='8 x 8, wanted 9 x 8'):
    edit.region_of(path, '', (9, 8))


def test_a_box_without_a_pixel_is_refused():
  with pytest.raises(ConfigError, match='no pixel of 8 x 8'):
    edit.region_of(None, '0.5,0.5,0.01,0.01', (8, 8))
  assert edit.region_of(None, '0,0,1,1', (8, 8)).all()


def test_features_that_lie(tmp_path):
  for shape in ((10**13, 4), (10**9, 4), (-1, 4)):
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n"
    data = struct.pack('<8sH', b'\x93NUMPY\x01\0', len(head)) + head.encode()
    (tmp_path / 'a.npy').write_bytes(data)
    with pytest.raises(DataError, match=r'a\.npy: not a numpy array'):
      read_features(tmp_path / 'a.npy', 4)
  np.savez(tmp_path / 'b.npz', np.zeros((2, 4)))
  with pytest.raises(DataError, match=r'b\.npz: not a numpy array'):
    read_features(tmp_path / 'b.npz', 4)
