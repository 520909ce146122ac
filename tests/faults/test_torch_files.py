"""Weight files that lie, attack or are damaged: an error, or what they hold."""

import io
import json
import random
import struct
import subprocess
import sys
import time
import zipfile
import zlib

import numpy as np
import pytest

from arvision.errors import DataError
from arvision.importers import files, torch_file
from arvision.importers.tensors import Tensor
from tests.faults import hostile, opcodes

MUTATED = 5000


def put(path, data):
  """Writes a file without making it anew, which takes a disk its time."""
  with open(path, 'r+b' if path.exists() else 'w+b') as file:
    file.write(data)
    file.truncate()


def tensors(content):
  """The tensors in a content, each once."""
  seen, stack, found = set(), [content], []
  while stack:
    item = stack.pop()
    if id(item) in seen:
      continue
    seen.add(id(item))
    if isinstance(item, Tensor):
      found.append(item)
    elif isinstance(item, dict):
      stack.extend(item.values())
    elif isinstance(item, (list, tuple, set)):
      stack.extend(item)
  return found


@pytest.mark.parametrize('name', hostile.FILES)
def test_what_lies_is_refused_by_name(tmp_path, name):
  path = tmp_path / 'w.pth'
  path.write_bytes(hostile.FILES[name]())
  with pytest.raises(DataError, match='w.pth') as error:
    for tensor in tensors(files.read(path)):
      np.asarray(tensor)
  assert len(str(error.value)) < 1000


def test_there_are_enough():
  assert len(hostile.FILES) + len(hostile.BOMBS) >= 60


# Reads files in a process of its own, of which the peak is known.
READ = """
import json, resource, sys, time
import numpy as np
from arvision.data.base import DataError
from arvision.importers import files
from tests.faults.test_torch_files import tensors
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for line in sys.stdin:
  before, start, refused = peak(), time.monotonic(), ''
  try:
    for tensor in tensors(files.read(line.strip())):
      np.asarray(tensor)
  except DataError as error:
    refused = str(error)
  took = time.monotonic() - start
  print(json.dumps([refused, peak() - before, took]), flush=True)
"""


def test_bombs_take_little_memory_and_time(tmp_path):
  with subprocess.Popen(
    [sys.executable, '-c', READ],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as child:
    for name, make in hostile.BOMBS.items():
      path = tmp_path / 'bomb.pth'
      path.write_bytes(make())
      print(path, file=child.stdin, flush=True)
      refused, more, took = json.loads(child.stdout.readline())
      assert 'bomb.pth' in refused, name
      size = path.stat().st_size
      assert more * 1024 <= size + 2**26, f'{name}: {more >> 10} MiB'
      assert took < 5, f'{name}: {took} s'


@pytest.mark.parametrize('name', hostile.HARMLESS)
def test_what_only_looks_endless_is_read(tmp_path, name):
  path = tmp_path / 'w.pth'
  path.write_bytes(hostile.HARMLESS[name]())
  start = time.monotonic()
  content = files.read(path)
  for tensor in tensors(content):
    assert np.asarray(tensor).flat[0] == 1
  try:
    assert files.find_weights(content, ['w'])
  except DataError as error:
    assert 'no arrays' in str(error) or 'mappings' in str(error)
  assert time.monotonic() - start < 5


def wholes():
  """Files of both formats that hold all that there is."""
  body = (
    b'}('
    + opcodes.text('w')
    + opcodes.tensor(size=(2, 2), stride=(2, 1))
    + opcodes.text('part')
    + opcodes.tensor(opcodes.storage('1', 'HalfStorage', 6), 2, (3,), (1,))
    + opcodes.text('facts')
    + opcodes.value((1, 2.5, 'x', None, True, 2**40))
    + b'u'
  )
  halves = np.arange(6, dtype=np.float16).tobytes()
  four = opcodes.storage()
  in_legacy = body.replace(
    four, opcodes.storage('0', 'FloatStorage', 4, 'cpu', None)
  ).replace(
    opcodes.storage('1', 'HalfStorage', 6),
    opcodes.storage('1', 'HalfStorage', 6, 'cpu', None),
  )
  return [
    opcodes.zipped(body, data__1=halves, byteorder=b'little'),
    opcodes.legacy(in_legacy, ('0', '1'), [(4, opcodes.FOUR), (6, halves)]),
  ]


def mutated(number):
  """(file, the whole that it came from), from whole files."""
  draw = random.Random(0)
  all_of_them = wholes()
  for _ in range(number):
    whole, other = draw.choice(all_of_them), draw.choice(all_of_them)
    data = bytearray(whole)
    way = draw.random()
    i = draw.randrange(len(data))
    if way < 0.1:
      del data[i:]
    elif way < 0.2:
      data[i:] = other[draw.randrange(len(other)) :]
    elif way < 0.3:
      j, n = draw.randrange(len(other)), draw.randrange(1, 40)
      data[i : i + n] = other[j : j + n]
    elif way < 0.35:
      del data[i : i + draw.randrange(1, 20)]
    else:
      for _ in range(draw.choice((1, 1, 2, 4))):
        i = draw.randrange(len(data))
        data[i] = draw.choice(
          (draw.randrange(256), data[i] ^ 1 << draw.randrange(8), *b'NRbtsQ')
        )
    yield _with_sums(bytes(data)) if draw.random() < 0.6 else bytes(data)


def _with_sums(data):
  """With the CRCs that the entries have, so that pickles are tried too."""
  try:
    infos = zipfile.ZipFile(io.BytesIO(data)).infolist()
    for info in infos:
      at = info.header_offset
      start = at + 30 + sum(struct.unpack_from('<HH', data, at + 26))
      crc = zlib.crc32(data[start : start + info.compress_size])
      data = data.replace(struct.pack('<L', info.CRC), struct.pack('<L', crc))
  except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError):
    pass
  return data


def read(path):
  """The content with all its tensors read, None where it is refused."""
  try:
    content = torch_file.read(path)
    for tensor in tensors(content):
      if tensor.size < 10**6:
        np.asarray(tensor)
  except DataError as error:
    assert str(path) in str(error)
    return None
  return (content,)


def test_damaged_files_are_refused_or_hold_what_is_in_them(tmp_path):
  path = tmp_path / 'w.pth'
  kept = 0
  for data in mutated(MUTATED):
    put(path, data)
    if (found := read(path)) is None:
      continue
    kept += 1
    for tensor in tensors(found[0]):
      if 0 < tensor.size < 100 and 1 in (*tensor.strides, 1):
        numbers = np.asarray(tensor).flatten().tolist()
        # Nothing of this process: numbers that the file's bytes hold.
        width = tensor.dtype.itemsize
        for number in numbers:
          assert tensor.dtype.type(number).tobytes()[:width] in data
  assert kept > MUTATED / 20


@pytest.mark.slow
def test_torch_reads_the_same(tmp_path):
  import torch

  def same(a, b):
    if isinstance(b, torch.Tensor):
      ours = np.asarray(a)
      return a.shape == tuple(b.shape) and ours.tobytes() == b.numpy().tobytes()
    if isinstance(b, dict):
      return a.keys() == b.keys() and all(same(a[k], b[k]) for k in b)
    if isinstance(b, (list, tuple)):
      return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or a != a)

  path = tmp_path / 'w.pth'
  for i, data in enumerate([*wholes(), *mutated(MUTATED)]):
    put(path, data)
    if (found := read(path)) is not None:
      loaded = torch.load(path, weights_only=True, map_location='cpu')
      assert same(found[0], loaded), i
    else:
      assert i >= len(wholes())


@pytest.mark.parametrize(
  'entries',
  [
    {'method': zipfile.ZIP_DEFLATED},
    {'byteorder': b'big', 'data__0': struct.pack('>4f', 1, 2, 3, 4)},
    {'protocol': 4},
  ],
)
def test_other_forms_of_a_file_are_read(tmp_path, entries):
  path = tmp_path / 'w.pth'
  path.write_bytes(opcodes.zipped(opcodes.tensor(), **entries))
  np.testing.assert_array_equal(torch_file.read(path), [1, 2, 3, 4])


@pytest.mark.slow
@pytest.mark.parametrize('legacy', [False, True])
def test_what_real_files_hold_is_read(tmp_path, legacy):
  import collections

  import torch

  network = torch.nn.Linear(3, 2)
  adam = torch.optim.Adam(network.parameters())
  network(torch.ones(1, 3)).sum().backward()
  adam.step()
  noted = torch.nn.Parameter(torch.arange(3.0))
  noted.note = 'a'
  marked = torch.arange(3.0)
  marked.mark = 1
  base = torch.arange(24.0).reshape(4, 6)
  turned = torch.tensor([1 + 2j, 3 - 1j])
  arrays = {
    'noted': noted,
    'marked': marked,
    'views': [base.T, base[1:, 2], base[:, ::2]],
    'wide': torch.ones(1).expand(5, 7),
    'conj': [turned, turned.conj()],
    'neg': torch.tensor([1 + 2j]).conj().imag,
    'kinds': [torch.ones(3).to(t) for t in (torch.bool, torch.int8)],
    'empty': torch.zeros(0, 4),
    'model': network.state_dict(),
    'adam': adam.state_dict()['state'],
  }
  facts = {
    'counter': collections.Counter('abca'),
    'set': {1, 'x'},
    'size': torch.Size([2, 3]),
    'numbers': [None, True, 1.5, -3, 2**70, b'by', bytearray(b'q'), 1 + 2j],
    'groups': adam.state_dict()['param_groups'],
  }
  odd = {'dtype': torch.bfloat16, 'sparse': torch.eye(2).to_sparse()}
  path = tmp_path / 'w.pth'
  torch.save(
    {'arrays': arrays, 'facts': facts, 'odd': odd},
    path,
    _use_new_zipfile_serialization=not legacy,
  )
  found = torch_file.read(path)
  assert found['facts'] == facts

  def same(a, b):
    if isinstance(b, torch.Tensor):
      plain = b.detach().resolve_conj().resolve_neg().numpy()
      np.testing.assert_array_equal(np.asarray(a), plain, strict=True)
    else:
      keys = b if isinstance(b, dict) else range(len(b))
      assert len(a) == len(b)
      for key in keys:
        same(a[key], b[key])

  same(found['arrays'], arrays)
  assert str(found['odd']['dtype']) == 'torch.bfloat16'
  with pytest.raises(DataError, match='a sparse tensor'):
    np.asarray(found['odd']['sparse'])
