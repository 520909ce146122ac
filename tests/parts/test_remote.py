"""Runs at URLs: killed, resumed to the bit, and read again."""

import contextlib
import pathlib
import sys
import time

import fsspec
import pytest

from arvision.errors import ConfigError, DataError
from arvision.runs import command_urls, remote
from arvision.training.workdir import saved_steps
from tests.parts import training_toys as toys
from tests.parts.test_training_loop import log, same

URL = 'memory://bucket/run'


@pytest.fixture(autouse=True)
def bucket(tmp_path, monkeypatch):
  """An empty file system in memory, and an empty cache folder."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.setenv(command_urls.COPIES, '{}')
  system = fsspec.filesystem('memory')
  system.store.clear()
  system.pseudo_dirs[:] = ['']
  yield system
  system.store.clear()


def test_a_run_in_a_bucket_resumes_to_the_bit(tmp_path, bucket):
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  toys.run(toys.config(), whole)
  first = remote.Mirror(URL, killed, train=True)
  first.download()
  toys.run(toys.config(), killed, stop_at=8)
  first.sync()
  # Killed while it uploaded the checkpoint of step 8.
  bucket.rm_file('/bucket/run/checkpoints/8/_CHECKPOINT_METADATA')
  with remote.mirrored(URL, train=True) as folder:
    assert saved_steps(folder) == [5]
    toys.run(toys.config(), folder)
  with pytest.raises(ConfigError, match='taken over by another training'):
    (killed / 'log.jsonl').write_text('')
    first.sync()
  with remote.mirrored(URL) as folder:
    copy = pathlib.Path(folder)
    assert saved_steps(folder) == saved_steps(whole) == [12, 10]
    same(whole, copy)
    assert log(copy) == log(whole)
    assert not (copy / remote.OWNER).exists()
  assert not bucket.exists('/bucket/run/lock.json')


def test_only_what_changes_is_written(tmp_path, bucket):
  bucket.pipe('/bucket/run/a/old.txt', b'1')
  with remote.mirrored(f'{URL}/', train=True) as folder:
    assert (tmp_path / folder / 'a' / 'old.txt').read_bytes() == b'1'
  assert bucket.find('/bucket/run') == ['/bucket/run/a/old.txt']
  with pytest.raises(RuntimeError), remote.mirrored(URL) as folder:
    (tmp_path / folder / 'a' / 'old.txt').unlink()
    (tmp_path / folder / 'new.txt').write_text('2')
    (tmp_path / folder / '.new.txt.123').write_text('unfinished')
    bucket.pipe('/bucket/run/other.txt', b'of another process')
    raise RuntimeError
  assert sorted(bucket.find('/bucket/run')) == [
    '/bucket/run/new.txt',
    '/bucket/run/other.txt',
  ]


def test_wrong_urls_are_refused(tmp_path, bucket, monkeypatch):
  for url, said in (
    ('nowhere://a/b', "'nowhere://a/b': Protocol not known: nowhere"),
    ('s3://bucket/run', r"pip install 'arvision\[s3\]'"),
  ):
    monkeypatch.setitem(sys.modules, 's3fs', None)
    with pytest.raises(ConfigError, match=said):
      remote.Mirror(url, tmp_path)
  bucket.pipe('/bucket/run/a', b'')
  found = {'/bucket/run/../../x': {'size': 1}}
  monkeypatch.setattr(bucket, 'find', lambda root, detail: found)
  with pytest.raises(DataError, match='holds a file of the name'):
    remote.Mirror(URL, tmp_path / 'run').download()


def test_urls_of_runs_become_folders_on_the_command_line(bucket, monkeypatch):
  words = ['--workdir', URL, f'--config.frozen.tokenizer={URL}_t', 'x']
  with contextlib.ExitStack() as stack:
    found = command_urls.local_words(['--seed=1', *words], stack, 'train')
  assert found[0] == '--seed=1' and found[1] == '--workdir'
  assert found[2].endswith('/run') and found[3].endswith('/run_t')
  assert found[3].startswith('--config.frozen.tokenizer=/') and found[4] == 'x'
  # A supervised training, which gets the copies, names the URLs too.
  monkeypatch.setattr(command_urls, '_copies', {})
  with contextlib.ExitStack() as stack:
    assert command_urls.local_words(found, stack, 'train') == found
    assert command_urls.with_urls(f'in {found[2]}') == f'in {URL}'


def test_half_a_checkpoint_is_left_to_the_training(bucket):
  bucket.pipe('/bucket/run/checkpoints/8/state/d/x', b'half')
  bucket.pipe('/bucket/run/checkpoints/8/state/d/.y.upload', b'hal')
  bucket.pipe('/bucket/run/log.jsonl', b'')
  with remote.mirrored(URL) as folder:
    assert not pathlib.Path(folder, 'checkpoints').exists()
    pathlib.Path(folder, 'eval.json').write_text('{}')
  with remote.mirrored(URL, train=True):
    pass  # such as --dry_run
  assert bucket.exists('/bucket/run/checkpoints/8/state/d/x')
  assert not bucket.exists(f'/bucket/run/{remote.OWNER}')
  with remote.mirrored(URL, train=True) as folder:
    pathlib.Path(folder, 'config.json').write_text('{}')
  assert not bucket.find('/bucket/run/checkpoints')
  # Another training has written since this one has read.
  kept = "another training has written there since .* the local copy is '(.*)'"
  with (
    pytest.raises(ConfigError, match=kept),
    remote.mirrored(URL, train=True) as folder,
  ):
    bucket.pipe('/bucket/run/log.jsonl', b'{"step": 1}')
    pathlib.Path(folder, 'log.jsonl').write_text('{}')
  assert bucket.cat('/bucket/run/log.jsonl') == b'{"step": 1}'


def test_uploads_that_fail(bucket, monkeypatch):
  monkeypatch.setattr(remote, 'PERIOD', 0.01)
  monkeypatch.setattr(remote, 'FIRST', 0.01)
  monkeypatch.setattr(remote, 'WAITS', (0.0, 0.0))
  faults, put = [], bucket.put_file

  def put_file(source, target):
    if faults:
      raise faults.pop()
    put(source, target)

  monkeypatch.setattr(bucket, 'put_file', put_file)
  # A training goes on, and so does the last upload.
  with remote.mirrored(URL, train=True) as folder:
    pathlib.Path(folder, 'a').write_text('1')
    while not bucket.exists('/bucket/run/a'):
      time.sleep(0.01)
    faults += [OSError('away')] * 3
    pathlib.Path(folder, 'b').write_text('1')
    while faults:
      time.sleep(0.01)
  assert bucket.exists('/bucket/run/b')

  # Where nothing can be written it stops, and its copy is kept.
  def pipe_file(path, data):
    raise OSError('no rights')

  monkeypatch.setattr(bucket, 'pipe_file', pipe_file)
  with (
    pytest.raises(DataError, match=r'no rights\); the local copy is'),
    remote.mirrored(URL, train=True) as folder,
  ):
    pathlib.Path(folder, 'c').write_text('1')
    time.sleep(5)
    pytest.fail('was not interrupted')
