"""Files of the Hugging Face hub by name, without the network."""

import hashlib
import http.server
import os
import subprocess
import sys
import threading
import types

import numpy as np
import pytest

from arvision.errors import ConfigError, DataError
from arvision.importers import files, hub

COMMIT = '0123456789abcdef0123456789abcdef01234567'
WEIGHTS = {'a': np.arange(6, dtype=np.float32)}


def test_a_file_is_read_by_its_name(tmp_path, monkeypatch):
  asked = []
  folder = tmp_path / 'snapshots' / COMMIT
  (folder / 'deep').mkdir(parents=True)
  files.write(folder / 'deep' / 'w.safetensors', WEIGHTS)

  def download(repository, file, revision):
    asked.append((repository, file, revision))
    if 'lost' in file:
      raise OSError('404\nno such file')
    return str(folder / file)

  package = types.SimpleNamespace(hf_hub_download=download)
  monkeypatch.setitem(sys.modules, 'huggingface_hub', package)
  name = 'hf:FoundationVision/var/deep/w.safetensors@v1.0'
  found = files.find_weights(files.read(name), WEIGHTS)[1]
  np.testing.assert_array_equal(found['a'], WEIGHTS['a'])
  assert asked == [('FoundationVision/var', 'deep/w.safetensors', 'v1.0')]
  data = (folder / 'deep' / 'w.safetensors').read_bytes()
  digest = hashlib.sha256(data).hexdigest()
  told = f'{len(data)} bytes, sha256 {digest}, commit {COMMIT}'
  assert hub.describe(name) == f'{name}: {told}'
  for wrong in (
    'hf:var/w',
    'hf:a/b/../w',
    'hf:a/b/',
    'hf://a/b/w',
    'hf:a/b/c@',
  ):
    with pytest.raises(ConfigError, match='wanted hf:owner/name/file'):
      files.read(wrong)
  with pytest.raises(DataError, match=r'\(OSError: 404 no such file\)'):
    files.read('hf:a/b/lost.pth')
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(ConfigError, match=r"pip install 'arvision\[hub\]'"):
    files.read('hf:a/b/c.pth')


class Resolve(http.server.BaseHTTPRequestHandler):
  """The resolve endpoint of the hub, with one file."""

  def do_GET(self):  # noqa: N802
    data = self.server.data
    there = self.path.partition('?')[0] in (
      '/owner/name/resolve/main/w.safetensors',
      f'/owner/name/resolve/{COMMIT}/w.safetensors',
    )
    self.send_response(200 if there else 404)
    if there:
      self.send_header('ETag', f'"{hashlib.sha256(data).hexdigest()}"')
      self.send_header('X-Repo-Commit', COMMIT)
    else:
      self.send_header('X-Error-Code', 'EntryNotFound')
    self.send_header('Content-Length', str(len(data) if there else 0))
    self.end_headers()
    if self.command == 'GET' and there:
      self.wfile.write(data)

  do_HEAD = do_GET  # noqa: N815

  def log_message(self, *args):
    pass


@pytest.mark.slow
def test_huggingface_hub_itself(tmp_path):
  files.write(tmp_path / 'w.safetensors', WEIGHTS)
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Resolve)
  server.data = (tmp_path / 'w.safetensors').read_bytes()
  threading.Thread(target=server.serve_forever, daemon=True).start()
  code = """
from arvision.errors import DataError
from arvision.importers import files, hub

name = 'hf:owner/name/w.safetensors'
assert files.read(name)['a'].shape == (6,)
print(hub.describe(name))
try:
  files.read('hf:owner/name/lost.pth')
except DataError as error:
  print(error)
"""
  environment = {
    **os.environ,
    'HF_ENDPOINT': f'http://127.0.0.1:{server.server_port}',
    'HF_HOME': str(tmp_path / 'home'),
    'HF_HUB_DISABLE_XET': '1',
  }
  done = subprocess.run(
    [sys.executable, '-c', code],
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  server.shutdown()
  assert done.returncode == 0, done.stderr
  told, lost = done.stdout.splitlines()
  digest = hashlib.sha256(server.data).hexdigest()
  assert f'sha256 {digest}, commit {COMMIT}' in told
  assert 'cannot be downloaded' in lost and 'NotFound' in lost
