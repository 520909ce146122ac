"""Runs at URLs: killed, resumed to the bit, and read again."""

import contextlib
import pathlib
import sys

import fsspec
import pytest

from arvision.errors import ConfigError, DataError
from arvision.runs import remote
from arvision.training.workdir import saved_steps
from tests.parts import training_toys as toys
from tests.parts.test_training_loop import log, same

URL = 'memory://bucket/run'


@pytest.fixture(autouse=True)
def bucket():
  """An empty file system, in the memory of this process."""
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
    assert saved_steps(folder) == [8, 5]
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
  monkeypatch.setattr(bucket, 'find', lambda root: ['/bucket/run/../../x'])
  with pytest.raises(DataError, match='holds a file of the name'):
    remote.Mirror(URL, tmp_path / 'run').download()


def test_urls_of_runs_become_folders_on_the_command_line(bucket):
  words = ['--workdir', URL, f'--config.frozen.tokenizer={URL}_t', 'x']
  with contextlib.ExitStack() as stack:
    found = remote.local_words(['--seed=1', *words], stack, train=True)
  assert found[0] == '--seed=1' and found[1] == '--workdir'
  assert found[2].endswith('/run') and found[3].endswith('/run_t')
  assert found[3].startswith('--config.frozen.tokenizer=/') and found[4] == 'x'
