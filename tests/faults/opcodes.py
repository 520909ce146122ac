"""Weight files of torch, made opcode by opcode."""

import io
import pickle
import struct
import zipfile

MAGIC = 0x1950A86A20F9469CFC6C
FOUR = struct.pack('<4f', 1, 2, 3, 4)


def name(module, attribute):
  return f'c{module}\n{attribute}\n'.encode()


def text(value):
  data = value.encode()
  return b'X' + struct.pack('<I', len(data)) + data


def value(x):
  """The opcodes of protocol 2 for a constant; bytes are opcodes already."""
  if isinstance(x, bytes):
    return x
  if isinstance(x, str):
    return text(x)
  if isinstance(x, tuple):
    return b'(' + b''.join(map(value, x)) + b't'
  return pickle.dumps(x, 2)[2:-1]


def call(function, *args):
  return function + value(args) + b'R'


def storage(key='0', kind='FloatStorage', count=4, device='cpu', *more):
  return value(('storage', name('torch', kind), key, device, count, *more)) + (
    b'Q'
  )


REBUILD = name('torch._utils', '_rebuild_tensor_v2')
REBUILD3 = name('torch._utils', '_rebuild_tensor_v3')
ORDERED = name('collections', 'OrderedDict')
HOOKS = ORDERED + b')R'


def tensor(of=None, offset=0, size=(4,), stride=(1,), grad=False, *more):
  of = storage() if of is None else of
  return call(REBUILD, of, offset, size, stride, grad, HOOKS, *more)


def pickled(body, protocol=2):
  return b'\x80' + bytes([protocol]) + body + b'.'


def zipped(body, protocol=2, method=zipfile.ZIP_STORED, **entries):
  """A file of torch; entries are named with _ for . and / for __."""
  file = io.BytesIO()
  facts = {'version': b'3\n', 'data__0': FOUR, **entries}
  with zipfile.ZipFile(file, 'w', method) as archive:
    archive.writestr('archive/data.pkl', pickled(body, protocol))
    for key, content in facts.items():
      if content is not None:
        archive.writestr(f'archive/{key.replace("__", "/")}', content)
  return file.getvalue()


def legacy(body, keys=('0',), stores=((4, FOUR),), magic=MAGIC, version=1001):
  parts = [pickle.dumps(x, 2) for x in (magic, version, {})]
  data = [struct.pack('<q', count) + content for count, content in stores]
  keys = list(keys) if isinstance(keys, tuple) else keys
  return b''.join([*parts, pickled(body), pickle.dumps(keys, 2), *data])


def old(*view):
  return storage('0', 'FloatStorage', 4, 'cpu', view or None)


def changed(content, before, after, count=1, last=False):
  assert before in content and len(before) == len(after)
  if last:
    at = content.rindex(before)
    return content[:at] + after + content[at + len(before) :]
  return content.replace(before, after, count)
