"""Broken pictures in a folder: found before training, named, not trained on."""

import io
import json
import os
import random
import re
import struct
import subprocess
import sys
import threading
import time
import zlib

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image, ImageOps

from arvision.data import look as looks
from arvision.data.base import BrokenImage, Source
from arvision.data.decode import decode
from arvision.data.folder import Folder
from arvision.data.look import look
from arvision.data.pipeline import Images
from arvision.data.split import Split
from arvision.errors import DataError
from arvision.training import broken
from tests.parts import training_toys as toys
from tests.pictures import chunk, png, tiff

CLASSES = ('a', 'b', 'c', 'd')
SIGNATURE = b'\x89PNG\r\n\x1a\n'


def encoded(kind, **options):
  rng = np.random.default_rng(0)
  image = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8))
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()


def of_chunks(header, pixels):
  chunks = ((b'IHDR', header), (b'IDAT', pixels), (b'IEND', b''))
  return SIGNATURE + b''.join(chunk(*c) for c in chunks)


def flipped(data, at):
  return data[:at] + bytes([data[at] ^ 8]) + data[at + 1 :]


def half(data):
  return data[: len(data) // 2]


def broken_files():
  """Kind -> its bytes, or what makes it."""
  good, jpeg = encoded('PNG'), encoded('JPEG')
  small = struct.pack('>IIBBBBB', 8, 8, 8, 0, 0, 0, 0)
  huge = struct.pack('>IIBBBBB', 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
  return {
    'empty': b'',
    'zeros': bytes(len(good)),
    'half a PNG': half(good),
    'half a JPEG': half(jpeg),
    'half a progressive JPEG': half(encoded('JPEG', progressive=True)),
    'half a WebP': half(encoded('WEBP')),
    'zeros at the end': half(good) + bytes(len(good) // 2),
    'another magic': b'\0' + good[1:],
    'a bit of the header': flipped(good, 18),
    'a bit of the pixels': flipped(good, len(good) // 2),
    'wrong checksum': flipped(good, len(good) - 14),
    'no end': good[:-12],
    'no last checksum': good[:-13],
    'more rows than it says': of_chunks(small, zlib.compress(bytes(90))),
    'garbage in place of deflate': of_chunks(small, b'\x78\x9cgarbage'),
    'too few rows': of_chunks(small, zlib.compress(bytes(20))),
    'a huge size': of_chunks(huge, zlib.compress(b'')),
    'HTML': b'<!DOCTYPE html><title>404 Not Found</title>',
    'EPS': b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n',
    'floats': tiff(bytes(4), (1, 1), 32, tags={339: [3]}),
    'FIFO': os.mkfifo,
    'folder': os.mkdir,
    'a link to nowhere': lambda path: os.symlink('nowhere', path),
    'a link to itself': lambda path: os.symlink(path.name, path),
  }


def write_folder(root, count, damaged):
  """Whole 4 x 4 pictures with values above 127, and damaged ones of all kinds.

  Returns:
    the names of the broken ones.
  """
  rng = np.random.default_rng(1)
  kinds = list(broken_files().values())
  places = random.Random(0).sample(range(count), damaged)
  broken = {place: kinds[k % len(kinds)] for k, place in enumerate(places)}
  names = set()
  for name in CLASSES:
    (root / name).mkdir(parents=True)
  for i in range(count):
    path = root / CLASSES[i % 4] / f'{i:04d}.png'
    if i not in broken:
      rows = rng.integers(128, 256, (4, 4), np.uint8)
      path.write_bytes(png(4, [bytes(row) for row in rows], 8, 0))
      continue
    names.add(f'{CLASSES[i % 4]}/{path.name}')
    if callable(broken[i]):
      broken[i](path)
    else:
      path.write_bytes(broken[i])
  return names


class Noting(Images):
  """Notes the pictures that are trained on."""

  def _train_batch(self, split, ranks, draws):
    batch = super()._train_batch(split, ranks, draws)
    for i, image in zip(batch['index'], batch['image']):
      self.noted[int(i)] = image
    return batch


def data_of(root, share, **options):
  made = Noting(
    Folder(str(root)),
    (4, 4),
    channels=1,
    batch_size=100,
    held_out_share=0.1,
    broken_share=share,
    **options,
  )
  object.__setattr__(made, 'noted', {})
  return made


def train(data, workdir, steps, seconds=60.0):
  """Trains a toy on it."""
  from arvision.runs.train import train

  config = toys.config(steps, data__batch_size=100)
  config.check_data = {'seconds': seconds}
  made = {'make_data': lambda config: data, 'make_task': make_task}
  return train(config, workdir, **made)


def make_task(config, data, *rest):
  return toys.make_task(config, data, *rest)


@pytest.mark.parametrize(
  ('count', 'damaged'),
  [(200, 24), pytest.param(2000, 200, marks=pytest.mark.slow)],
)
def test_broken_pictures_are_named_and_not_trained_on(
  tmp_path, capfd, count, damaged
):
  assert 20 <= len(broken_files()) <= damaged
  root, run, steps = tmp_path / 'pictures', tmp_path / 'run', count // 50
  names = write_folder(root, count, damaged)
  assert len(names) == damaged

  with pytest.raises(DataError) as refused:
    train(data_of(root, 0.01), run, steps)
  text = str(refused.value)
  assert 'config.data.broken_share' in text and str(run / 'broken.json') in text
  assert not (run / 'log.jsonl').exists() and not (run / 'checkpoints').exists()

  data = data_of(root, 0.3)
  assert train(data, run, steps).step == steps
  report = json.loads((run / 'broken.json').read_text())['splits']
  found = [row['name'] for split in report.values() for row in split['files']]
  assert sorted(found) == sorted(names)
  for split in report.values():
    assert split['looked_at'] == split['pictures']
    assert split['broken'] == len(split['files']) < split['allowed']
    assert split['source'] == str(root)
    assert all(row['why'] for row in split['files'])
  said = [x for x in capfd.readouterr().err.splitlines() if 'are broken' in x]
  assert len(said) == 2 and all('broken.json' in line for line in said)

  # Every whole picture was trained on, as it is, and no other.
  source = data.source
  whole = [i for i in range(count) if source.name(i) not in names]
  held_out = set(data.pictures['held-out'].numbers.tolist())
  assert sorted(data.noted) == sorted(set(whole) - held_out)
  for i, image in data.noted.items():
    pixels = np.asarray(Image.open(root / source.name(i)))[..., None]
    assert pixels.min() > 127
    np.testing.assert_allclose(image, pixels / 127.5 - 1, atol=1e-6)


def check(root, run):
  config = ConfigDict({'check_data': {'seconds': 60.0}})
  broken.check(config, data_of(root, 0.3), run)


def test_a_resumed_run_looks_at_the_broken_ones_again(tmp_path, monkeypatch):
  root, run = tmp_path / 'pictures', tmp_path / 'run'
  names = write_folder(root, 300, 24)
  run.mkdir()
  check(root, run)
  looked = []

  def count(self, i):
    looked.append(self.source.name(i))
    return seen(self, i)

  seen = Split.look
  monkeypatch.setattr(Split, 'look', count)
  good = min(set(looked_names(root)) - names)
  mended = min(n for n in names if (root / n).is_file())
  (root / mended).write_bytes((root / good).read_bytes())
  check(root, run)
  assert sorted(looked) == sorted(names)
  report = json.loads((run / 'broken.json').read_text())['splits']
  found = {row['name'] for split in report.values() for row in split['files']}
  assert found == names - {mended}

  # Not so where the files are others, or the report is damaged.
  for text in ('[]', '{"splits": {"training": {"pictures": 271}}}', '\0'):
    (run / 'broken.json').write_text(text)
    looked.clear()
    check(root, run)
    assert len(looked) == 300


def looked_names(root):
  source = Folder(str(root))
  return [source.name(i) for i in range(len(source))]


# Odd pictures that are whole.


@pytest.mark.parametrize(
  ('kind', 'mode', 'options'),
  [
    ('JPEG', 'RGB', {'turn': 6}),
    ('JPEG', 'L', {'turn': 5, 'progressive': True}),
    ('WEBP', 'RGB', {'turn': 8, 'lossless': True}),
    ('TIFF', 'RGB', {'turn': 3}),
    ('JPEG', 'CMYK', {}),
    ('TIFF', 'CMYK', {'compression': 'tiff_lzw'}),
    ('PNG', 'P', {'turn': 7}),
    ('GIF', 'P', {}),
    ('PNG', '1', {}),
    ('TIFF', 'YCbCr', {}),
    ('MPO', 'RGB', {'save_all': True}),
  ],
)
def test_odd_pictures_are_as_in_a_viewer(kind, mode, options):
  columns, rows = np.meshgrid(np.arange(17), np.arange(11))
  colour = np.dstack([14 * columns, 22 * rows, 9 * (columns + rows)])
  whole, options = Image.fromarray(colour.astype(np.uint8)), dict(options)
  if turn := options.pop('turn', 0):
    options['exif'] = Image.Exif()
    options['exif'][0x0112] = turn
  buffer = io.BytesIO()
  whole.convert(mode).save(buffer, kind, **options)
  found = decode(buffer.getvalue(), 'x')
  with Image.open(buffer) as image:
    wanted = np.asarray(ImageOps.exif_transpose(image).convert('RGB'))
  np.testing.assert_array_equal(np.broadcast_to(found, wanted.shape), wanted)
  if mode == 'CMYK':  # no negative
    assert np.abs(found - colour.astype(float)).mean() < 12


def test_an_interlaced_picture_of_16_bits_is_whole():
  # Two columns and one row, in three passes of one pixel, none and one.
  head = struct.pack('>IIBBBBB', 2, 1, 16, 2, 0, 0, 1)
  pixels = struct.pack('>x3Hx3H', 256, 512, 768, 1024, 1280, 65535)
  data = of_chunks(head, zlib.compress(pixels))
  assert decode(data, 'x').tolist() == [[[1, 2, 3], [4, 5, 255]]]


# A source that stalls.


class Stalls(Source):
  """The read of one picture returns never."""

  classes = ('one',)
  path = '/mnt/share'

  def __init__(self, stalled=7):
    self.stalled = stalled

  def __len__(self):
    return 640

  def name(self, i):
    return f'{i}.png'

  def __getitem__(self, i):
    if i == self.stalled:
      threading.Event().wait()
    return {'image': np.zeros((4, 4, 1), np.uint8), 'label': 0, 'caption': ''}


def stalls(**changes):
  return Images(Stalls(**changes), (4, 4), channels=1, held_out_share=0)


def test_a_look_names_the_picture_that_it_waits_for(monkeypatch):
  monkeypatch.setattr(looks, '_GRACE', 0.1)
  data = stalls()
  found = look(data.pictures['training'], 0.5)
  assert 640 - 64 <= found.seen < 640
  assert found.waits.startswith('7.png, for ')
  assert data.waits_for().startswith('7.png of /mnt/share, for ')


def test_a_look_that_is_short_says_so(capfd):
  class Slow(Stalls):
    def __getitem__(self, i):
      time.sleep(0.02)
      if i % 4 == 0:
        raise BrokenImage(f'{i}.png: not a picture')
      return super().__getitem__(i)

  source, fields = Slow(stalled=-1), {'held_out_share': 0, 'channels': 1}
  data = Images(source, (4, 4), broken_share=0.15, **fields)
  config = ConfigDict({'check_data': {'seconds': 0.2}})
  assert broken.check(config, data, None) == []
  (line,) = capfd.readouterr().err.splitlines()
  assert 'There are 640: a longer config.check_data.seconds' in line
  assert 'more than the 96 that config.data.broken_share allows' in line
  assert broken.check(ConfigDict({}), data, None) == []


HANGS = """
from tests.faults.test_broken_pictures import stalls
from arvision.training.watchdog import Watchdog
data = stalls()
with Watchdog(1, lambda why: print('noted', why, flush=True), data.waits_for) as dog:
  batches = data.train(128, 0)
  for step in range(9):
    dog.waits_for_data(f'reading the batch of step {step}')
    next(batches)
"""


@pytest.mark.slow
def test_the_watchdog_names_the_picture_that_is_waited_for():
  command = [sys.executable, '-c', HANGS]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 1
  said = r'reading the batch of step \d \(7\.png of /mnt/share, for \d s\)'
  assert re.search(f'noted {said}', done.stdout)
  assert re.search(f'error: {said} has taken', done.stderr)
