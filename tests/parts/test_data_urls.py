"""Data at URLs: copied once, checked at every start, read as local files."""

import io
import threading

import fsspec
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from arvision.data import urls
from arvision.errors import ConfigError, DataError
from arvision.tasks.assemble import make_data

URL = 'memory://bucket/pets'


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  """An empty file system in memory, and an empty cache folder."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  system = fsspec.filesystem('memory')
  system.store.clear()
  system.pseudo_dirs[:] = ['']
  yield system
  system.store.clear()


def png(value):
  data = io.BytesIO()
  Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(data, 'PNG')
  return data.getvalue()


def counted(monkeypatch, system):
  """The paths that are fetched from now on."""
  fetched, get = [], type(system).get_file

  def get_file(self, path, target, **options):
    fetched.append(path.removeprefix('/bucket/pets/'))
    return get(self, path, target, **options)

  monkeypatch.setattr(type(system), 'get_file', get_file)
  return fetched


def data(**source):
  config = {'type': 'data.pipeline.Images', 'size': (8, 8), 'source': source}
  return make_data({'data': config})


def test_a_folder_is_copied_once_and_kept_in_step(
  bucket, tmp_path, monkeypatch
):
  for i in range(4):
    bucket.pipe(f'/bucket/pets/{"cat" if i % 2 else "dog"}/{i}.png', png(i))
  bucket.pipe('/bucket/pets/.hidden/x.png', png(9))
  fetched = counted(monkeypatch, bucket)
  source = {'type': 'data.folder.Folder', 'path': f'{URL}/'}
  found = data(**source)
  assert found.classes == ('cat', 'dog') and len(fetched) == 4
  own = tmp_path / 'own'
  bucket.get(URL, str(own), recursive=True)
  local = data(type='data.folder.Folder', path=str(own))
  assert found.digest == local.digest  # and so are names of metrics
  # The next start fetches what has changed, and drops what is gone.
  bucket.pipe('/bucket/pets/cat/1.png', png(100))
  bucket.rm_file('/bucket/pets/cat/3.png')
  del fetched[:]
  found = data(**source)
  assert fetched == ['cat/1.png'] and len(found.source) == 3
  images = {found.source.name(i): found.source[i]['image'] for i in range(3)}
  assert images['cat/1.png'].max() == 100
  # One that was killed has left half a file and half a line.
  (place,) = (tmp_path / 'cache' / 'arvision' / 'data').iterdir()
  (place / 'files' / 'pets' / 'cat' / '.1.png.1').write_bytes(b'half')
  (place / 'files' / 'pets' / 'dog' / '0.png').write_bytes(b'')
  with (place / 'copied.jsonl').open('a') as index:
    index.write('["cat/1.png", 3')
  del fetched[:]
  data(**source)
  assert fetched == ['dog/0.png']
  assert not list(place.rglob('.1.png*'))


def test_only_the_shards_that_are_read_are_copied(bucket, monkeypatch):
  for i in range(3):
    table = pyarrow.table({'image': [png(i)] * 4, 'label': [0, 1, 0, 1]})
    with bucket.open(
      f'/bucket/pets/{"train" if i else "val"}-{i}.parquet', 'wb'
    ) as file:
      pyarrow.parquet.write_table(table, file)
  fetched = counted(monkeypatch, bucket)
  source = {'type': 'data.parquet.Parquet', 'path': URL}
  found = data(**source, files='train-*.parquet')
  assert len(found.source) == 8
  assert found.source.name(0) == 'train-1.parquet[0]'
  assert sorted(fetched) == ['train-1.parquet', 'train-2.parquet']
  # Two processes wait for one another, here threads.
  del fetched[:]
  calls = [threading.Thread(target=urls.local, args=(URL,)) for _ in range(3)]
  for call in calls:
    call.start()
  for call in calls:
    call.join()
  assert fetched == ['val-0.parquet']
  # One file, by its own URL.
  (one,) = [data(**{**source, 'path': f'{URL}/val-0.parquet'}).source]
  assert len(one) == 4 and one.name(3) == 'val-0.parquet[3]'


def test_what_cannot_be_copied_is_said_in_one_line(
  bucket, tmp_path, monkeypatch
):
  with pytest.raises(DataError, match=f"'{URL}': no file is there"):
    urls.local(URL)
  bucket.pipe('/bucket/pets/a.png', b'1234')
  with pytest.raises(DataError, match=r'no file of the name \*.tar is there'):
    urls.local(URL, ['*.tar'])
  with pytest.raises(ConfigError, match='wanted a URL with the name'):
    urls.local('memory://bucket/..')
  assert urls.local(tmp_path.as_uri()) == str(tmp_path)

  def get_file(path, target):
    with open(target, 'wb') as file:
      file.write(b'12')

  with monkeypatch.context() as patch:
    patch.setattr(bucket, 'get_file', get_file, raising=False)
    with pytest.raises(DataError, match='came with 2 bytes, wanted 4'):
      urls.local(URL)
  assert not list((tmp_path / 'cache').rglob('*a.png*'))
  usage = type('Usage', (), {'free': 3})
  with monkeypatch.context() as patch:
    patch.setattr(urls.shutil, 'disk_usage', lambda folder: usage)
    with pytest.raises(DataError, match='4 bytes to copy, but 3 are free'):
      urls.local(URL)
  for name in ('../x', 'a/../../x', '..\\x'):
    path = f'/bucket/pets/{name}'
    with monkeypatch.context() as patch:
      found = {path: {'size': 1}}
      patch.setattr(bucket, 'find', lambda root, detail, f=found: f)
      with pytest.raises(DataError, match='holds a file of the name'):
        urls.local(URL)
