"""Weight files that attack their reader.

`FILES` is name -> what makes the bytes of a file that must be refused; `BOMBS`
are those that want memory or time; `HARMLESS` look like one and are not.
"""

import io
import struct
import zipfile

from tests.faults.opcodes import (
  FOUR,
  HOOKS,
  ORDERED,
  REBUILD,
  REBUILD3,
  call,
  changed,
  legacy,
  name,
  old,
  pickled,
  storage,
  tensor,
  text,
  value,
  zipped,
)

LONG_TEXT = 2**22

NAMESPACE = name('argparse', 'Namespace') + b')\x81'
FORGED = (
  NAMESPACE
  + b'}'
  + text('__array_interface__')
  + value({'data': (2**40, False), 'shape': (9,), 'typestr': '<f4'})
  + b'sb'
)
DTYPE = name('numpy', 'dtype')
SCALAR = name('numpy._core.multiarray', 'scalar')
EIGHT = call(name('_codecs', 'encode'), 'x' * 8, 'latin1')
PLAIN = (3, '<', None, None, None, -1, -1, 0)


def dtype(code='f8', state=PLAIN):
  return call(DTYPE, code, False, True) + value(state) + b'b'


def scalar(*of, data=EIGHT):
  return call(SCALAR, dtype(*of), data)


def _plain():
  return zipped(tensor())


def _packed(size_says=None):
  whole = zipped(tensor(), method=zipfile.ZIP_DEFLATED, data__0=FOUR)
  if size_says is not None:
    size = struct.pack('<L', 16)
    at = whole.rindex(b'PK\1\2', 0, whole.rindex(b'archive/data/0')) + 24
    assert whole[at : at + 4] == size
    whole = whole[:at] + struct.pack('<L', size_says) + whole[at + 4 :]
  return whole


def _central(offset, form, number, entry=b'archive/data/0'):
  """The list of entries says another number of an entry."""
  whole = bytearray(_plain())
  at = whole.rindex(entry) - 46
  struct.pack_into(form, whole, at + offset, number)
  return bytes(whole)


def _twice():
  return zipped(b'(' + tensor() + tensor(storage(kind='IntStorage')) + b't')


# What a reader of pickles would call or set.
_CALLS = {
  'os.system': lambda: zipped(call(name('os', 'system'), 'true')),
  'eval': lambda: zipped(call(name('builtins', 'eval'), '1')),
  'python 2 eval': lambda: zipped(call(name('__builtin__', 'eval'), '1')),
  'getattr': lambda: zipped(call(name('builtins', 'getattr'), 'a', 'upper')),
  'ours': lambda: zipped(name('arvision.importers.torch_file', 'read')),
  'a dotted name': lambda: zipped(
    text('torch') + text('os.system') + b'\x93', 4
  ),
  'a name that is no text': lambda: zipped(b'K\1K\2\x93', 4),
  'a name without an end': lambda: zipped(b'c' + b'a' * 9000),
  'a name of odd letters': lambda: zipped(b'cos\n\x1b[31m\n'),
  'an extension': lambda: zipped(b'\x82\1'),
  'an instance': lambda: zipped(b'(ios\nsystem\n'),
  'an object': lambda: zipped(b'(' + name('os', 'system') + b'o'),
  'numpy type': lambda: zipped(call(name('numpy', 'float32'), FORGED)),
  'storage type': lambda: zipped(call(name('torch', 'FloatStorage'), FORGED)),
  'call of a dict': lambda: zipped(b'})R'),
  'call of a tensor': lambda: zipped(tensor() + b')R'),
  'call without a tuple': lambda: zipped(ORDERED + b']R'),
  'call of many': lambda: zipped(REBUILD + value((1,) * 99) + b'R'),
  'new storage': lambda: zipped(name('torch', 'FloatStorage') + b')\x81'),
  'state of a tensor': lambda: zipped(tensor() + b'}b'),
  'state of a list': lambda: zipped(b']}b'),
  'state of a name': lambda: zipped(ORDERED + b'}b'),
  'state of a dict': lambda: zipped(b'}}b'),
  'state that is none': lambda: zipped(NAMESPACE + b'Nb'),
  'items of a list': lambda: zipped(b']K\1K\2s'),
  'items of a name': lambda: zipped(ORDERED + b'K\1K\2s'),
  'items of a namespace': lambda: zipped(NAMESPACE + b'K\1K\2s'),
  'an odd item': lambda: zipped(b'}(K\1u'),
  'append to a dict': lambda: zipped(b'}K\1a'),
  'append to a tensor': lambda: zipped(tensor() + b'K\1a'),
  'mark that is not there': lambda: zipped(b'K\1t'),
  'stack that is empty': lambda: zipped(b''),
  'memo that is empty': lambda: zipped(b'h\0'),
  'a key that is a list': lambda: zipped(b'}]K\1s'),
  'a key that is nested': lambda: zipped(b'})\x85\x85K\1s'),
  'a key that is a tensor': lambda: zipped(b'}' + tensor() + b'K\1s'),
  'an unknown codec': lambda: zipped(
    call(name('_codecs', 'encode'), 'x', 'rot13')
  ),
}
# Tensors that reach elsewhere, or lie.
_TENSORS = {
  'namespace for a storage': lambda: zipped(tensor(FORGED)),
  'tensor for a storage': lambda: zipped(tensor(tensor())),
  'number for a storage': lambda: zipped(tensor(b'K\1')),
  'past the end': lambda: zipped(tensor(size=(5,))),
  'offset past the end': lambda: zipped(tensor(offset=1)),
  'stride past the end': lambda: zipped(tensor(size=(2,), stride=(4,))),
  'stride 0 past the end': lambda: zipped(
    tensor(offset=4, size=(9,), stride=(0,))
  ),
  'rows past the end': lambda: zipped(tensor(size=(3, 2), stride=(1, 2))),
  'negative offset': lambda: zipped(tensor(offset=-1)),
  'negative size': lambda: zipped(tensor(size=(-1,))),
  'two negative sizes': lambda: zipped(tensor(size=(-2, -2), stride=(2, 1))),
  'negative stride': lambda: zipped(tensor(size=(2,), stride=(-1,), offset=1)),
  'huge offset': lambda: zipped(tensor(offset=2**62)),
  'huge size': lambda: zipped(tensor(size=(2**64 + 4,))),
  'huge stride': lambda: zipped(tensor(size=(2,), stride=(2**64,))),
  'product that wraps': lambda: zipped(
    tensor(size=(2**32, 2**32), stride=(0, 0))
  ),
  'size that is true': lambda: zipped(tensor(size=(True,))),
  'size that is 4.0': lambda: zipped(tensor(size=(4.0,))),
  'size that is text': lambda: zipped(tensor(size='4')),
  'more sizes than strides': lambda: zipped(tensor(size=(2, 2))),
  '65 axes': lambda: zipped(tensor(size=(1,) * 65, stride=(1,) * 65)),
  'a wide dtype': lambda: zipped(
    call(
      REBUILD3,
      value(
        ('storage', name('torch.storage', 'UntypedStorage'), '0', 'cpu', 16)
      )
      + b'Q',
      *(0, (4,), (1,), False, HOOKS, name('torch', 'float64')),
    )
  ),
  'gradient of integers': lambda: zipped(
    tensor(storage(kind='IntStorage'), 0, (4,), (1,), True)
  ),
  'conjugate of floats': lambda: zipped(
    tensor(None, 0, (4,), (1,), False, value({'conj': True}))
  ),
  'unknown facts': lambda: zipped(
    tensor(None, 0, (4,), (1,), False, value({'x': True}))
  ),
  'parameter of a list': lambda: zipped(
    call(name('torch._utils', '_rebuild_parameter'), b']', True, HOOKS)
  ),
  'storage past its entry': lambda: zipped(tensor(storage(count=5))),
  'storage of -1': lambda: zipped(storage(count=-1)),
  'storage of 2**70': lambda: zipped(storage(count=2**70)),
  'storage of text': lambda: zipped(storage(count='4')),
  'storage that is not there': lambda: zipped(storage('1')),
  'storage elsewhere': lambda: zipped(storage('../../data.pkl')),
  'storage of a number': lambda: zipped(storage(7)),
  'storage of an unknown device': lambda: zipped(storage(device='/etc')),
  'storage of no type': lambda: zipped(
    value(('storage', ORDERED, '0', 'cpu', 4)) + b'Q'
  ),
  'storage described twice': _twice,
  'persistent module': lambda: zipped(value(('module', 1, 2, 3, 4)) + b'Q'),
  'persistent number': lambda: zipped(b'K\1Q'),
  'dtype of objects': lambda: zipped(scalar('O8')),
  'dtype of text': lambda: zipped(scalar('U2')),
  'dtype with fields': lambda: zipped(
    scalar('f8', (3, '<', None, ('a',), {'a': 1}, 8, 1, 16))
  ),
  'dtype of another size': lambda: zipped(
    scalar('f8', (3, '<', None, None, None, 2**40, 1, 0))
  ),
  'dtype of an object state': lambda: zipped(scalar('f8', (3, '|', b'}'))),
  'scalar of another size': lambda: zipped(scalar('f4')),
  'scalar of a storage': lambda: zipped(scalar(data=storage())),
}
_LEGACY = {
  'storage left out': lambda: legacy(tensor(old()), (), ()),
  'storage twice': lambda: legacy(
    tensor(old()), ('0', '0'), [(4, FOUR), (4, FOUR)]
  ),
  'unknown storage': lambda: legacy(tensor(old()), ('1',)),
  'storage of 3': lambda: legacy(tensor(old()), stores=[(3, FOUR)]),
  'storage of -4': lambda: legacy(tensor(old()), stores=[(-4, FOUR)]),
  'storage cut off': lambda: legacy(tensor(old()), stores=[(4, FOUR[:9])]),
  'storage without a view': lambda: legacy(tensor(storage())),
  'view outside': lambda: legacy(tensor(old('1', 2, 4))),
  'view before': lambda: legacy(tensor(old('1', -1, 2), size=(2,))),
  'view that is its storage': lambda: legacy(tensor(old('0', 0, 4))),
  'view of text': lambda: legacy(tensor(old('1', '0', '4'))),
  'view twice': lambda: legacy(
    b'(' + tensor(old('1', 0, 4)) + tensor(old('1', 1, 3), size=(3,)) + b't'
  ),
  'keys in a dict': lambda: legacy(tensor(old()), {'0': 1}),
  'keys of numbers': lambda: legacy(tensor(old()), (0,)),
  'other magic': lambda: legacy(tensor(old()), magic=1),
  'other version': lambda: legacy(tensor(old()), version=1002),
  'system in facts': lambda: legacy(call(name('posix', 'system'), 'true')),
}
_ZIPS = {
  'other data': lambda: changed(_plain(), FOUR, FOUR[::-1]),
  'other pickle': lambda: changed(_plain(), text('cpu'), text('mps')),
  'no zip': lambda: b'PK\3\4' + bytes(500),
  'no end': lambda: _plain()[:-22],
  'no version': lambda: zipped(tensor(), version=None),
  'version 11': lambda: zipped(tensor(), version=b'11'),
  'byte order': lambda: zipped(tensor(), byteorder=b'middle'),
  'TorchScript': lambda: zipped(tensor(), **{'constants.pkl': b''}),
  'other local name': lambda: changed(
    _plain(), b'archive/data/0', b'brchive/data/0'
  ),
  'two names': lambda: changed(
    zipped(tensor(), data__1=FOUR), b'archive/data/1', b'archive/data/0', 2
  ),
  'two folders': lambda: changed(
    _plain(), b'archive/version', b'brchive/version', 2
  ),
  'encrypted': lambda: _central(8, '<H', 1),
  'packed otherwise': lambda: _central(10, '<H', 12),
  'two sizes': lambda: _central(24, '<L', 15),
  'past the file': lambda: _central(42, '<L', 2**31),
  'on another entry': lambda: _central(42, '<L', 0),
  'a folder': lambda: _central(38, '<L', 0x10),
  'packed, too short': lambda: _packed(15),
  'packed, too long': lambda: _packed(17),
}


def _nested(opening, closing=b'', times=100_000):
  return lambda: zipped(opening * times + closing * times)


def _collide(n):
  """Tuples whose hashes are one another's."""
  prime = 2**61 - 1
  return b''.join(value((float(2**61 * i % prime), i)) for i in range(n))


def _packed_bomb(size):
  """An entry of zeros that says what it unpacks to."""
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
    body = pickled(tensor(storage(count=size // 4), 0, (size // 4,)))
    archive.writestr('archive/data.pkl', body)
    archive.writestr('archive/version', '3\n')
    with archive.open('archive/data/0', 'w') as entry:
      for _ in range(size >> 20):
        entry.write(bytes(2**20))
  return file.getvalue()


def _entries(count=150_000):
  """A list of empty entries and nothing else."""
  entry = struct.Struct('<4s6H3L5H2L6s')
  table = b''.join(
    entry.pack(b'PK\1\2', *[0] * 9, 6, *[0] * 6, b'%06d' % i)
    for i in range(count)
  )
  wide = struct.pack(
    '<4sQ2H2L4Q', b'PK\6\6', 44, 0, 0, 0, 0, *[count] * 2, len(table), 30
  )
  at = struct.pack('<4sLQL', b'PK\6\7', 0, 30 + len(table), 1)
  end = struct.pack(
    '<4s4H2LH', b'PK\5\6', 0, 0, *[2**16 - 1] * 2, *[2**32 - 1] * 2, 0
  )
  return b'PK\3\4' + bytes(26) + table + wide + at + end


def _long():
  return text('x' * LONG_TEXT) + b'q\0'


BOMBS = {
  'nested lists': _nested(b'](', b'e'),
  'nested tuples': lambda: zipped(b')' + b'\x85' * 1_000_000),
  'nested dicts': lambda: zipped(b'}' + b'K\1}' * 99_999 + b's' * 99_999),
  'nested namespaces': lambda: zipped(
    NAMESPACE + (b'}K\1' + NAMESPACE) * 9_999 + b'sb' * 9_999
  ),
  'marks': lambda: zipped(b'(' * 1_000_000),
  'sets': lambda: zipped(b'\x8f' * 1_000_000),
  'lists': lambda: zipped(b']' * 4_000_000),
  'numbers': lambda: zipped(b'G12345678' * 2_000_000),
  'nothing': lambda: zipped(b'N' * 8_000_000),
  'puts': lambda: zipped(b'}' + b'\x94' * 4_000_000, 4),
  'gap in the memo': lambda: zipped(b'}r\xff\xff\xff\xff'),
  'items': lambda: zipped(
    b'}('
    + b''.join(b'J' + struct.pack('<i', i) + b'N' for i in range(10**6))
    + b'u'
  ),
  'long text that is not there': lambda: zipped(b'X\xff\xff\xff\xff'),
  'long bytes that are not there': lambda: zipped(b'\x8e' + b'\xff' * 8, 4),
  'wide text': lambda: zipped(text('x' * 2**24 + '\U0001f600')),
  'long number': lambda: zipped(b'\x8b\xff\xff\xff\x7f'),
  'decimal number': lambda: zipped(b'L' + b'9' * 10**6 + b'L\n'),
  'bytearray of a length': lambda: zipped(
    call(name('builtins', 'bytearray'), 2**40)
  ),
  'bytes again and again': lambda: zipped(
    _long() + call(name('_codecs', 'encode'), b'h\0', 'latin1') * 1000
  ),
  'sets again and again': lambda: zipped(
    b']('
    + b'K\1' * 10**5
    + b'eq\0'
    + call(name('builtins', 'set'), b'h\0') * 10**4
  ),
  'counts again and again': lambda: zipped(
    b'}('
    + b''.join(b'M' + struct.pack('<H', i) + b'N' for i in range(60_000))
    + b'uq\0'
    + call(name('collections', 'Counter'), b'h\0') * 10**4
  ),
  'sizes again and again': lambda: zipped(
    b'('
    + b'K\1' * 10**6
    + b'tq\0'
    + call(name('torch', 'Size'), b'h\0') * 10**4
  ),
  'long keys again and again': lambda: zipped(
    _long() + b'}' + b'h\0Ns' * 10**5
  ),
  'colliding keys': lambda: zipped(
    call(name('builtins', 'set'), b'](' + _collide(50_000) + b'e')
  ),
  'nested keys': lambda: zipped(b')' + b'q\0h\0\x86' * 64 + b'q\0}h\0Ns'),
  'packed tensor': lambda: _packed_bomb(2**26),
  'packed pickle': lambda: zipped(b'N' * 2**25, method=zipfile.ZIP_DEFLATED),
  'entries': _entries,
  'legacy storage of 2**50': lambda: legacy(
    tensor(storage('0', 'FloatStorage', 2**50, 'cpu', None))
  ),
  'legacy lists': lambda: legacy(b']' * 4_000_000),
}
FILES = {
  f'{kind}: {key}': make
  for kind, files in {
    'call': _CALLS,
    'tensor': _TENSORS,
    'legacy': _LEGACY,
    'zip': _ZIPS,
  }.items()
  for key, make in files.items()
}
HARMLESS = {
  'a list in itself': lambda: zipped(b']q\0h\0a'),
  'a dict in itself': lambda: zipped(
    b'}q\0(' + text('a') + b'h\0' + text('w') + tensor() + b'u'
  ),
  # 2**60 paths to one tensor.
  'a billion laughs': lambda: zipped(
    b'}q\0'
    + text('w')
    + tensor()
    + b's'
    + b''.join(
      b'}(' + text('a') + b'h\0' + text('b') + b'h\0uq\0' for _ in range(60)
    )
  ),
  'a tensor of terabytes': lambda: zipped(
    tensor(size=(2**20, 2**21), stride=(0, 0))
  ),
}
