"""Reads the entries of torch's zip files and checks their CRCs.

The file is not trusted: entries must not overlap, lie outside of the file, share
a name or decompress to much more than the file.
"""

import os
import struct
import zlib
from collections.abc import Callable

from arvision.errors import DataError
from arvision.importers.tensors import Span

_BLOCK = 2**20
# Bytes that compressed entries may decompress to, beyond the size of the file.
_EXTRA = 8 * 2**20
_END = struct.Struct('<4s4H2LH')
_END64 = struct.Struct('<4sQ2H2L4Q')
_AT64 = struct.Struct('<4sLQL')
_ENTRY = struct.Struct('<4s6H3L5H2L')
_LOCAL = struct.Struct('<4s5H3L2H')
# Flags of encrypted entries and of patches to another file.
_ENCRYPTED = 0x2061
_FOLDER = 0x10
# Memory of an entry in bytes, an upper bound.
_COST = 450


class Archive:
  """The entries of a zip file, by name.

  Attributes:
    entries: name -> `Entry`, in the order of the central directory.
  """

  def __init__(self, path: str | os.PathLike, spend: Callable[[int], None]):
    """Reads the central directory.

    Args:
      path: the file.
      spend: called with the memory of the entries in bytes; may raise.

    Raises:
      DataError: truncated.
      ValueError: damaged otherwise.
    """
    self.path = path
    self.entries: dict[str, Entry] = {}
    self._size = os.path.getsize(path)
    self._packed = 0
    whole = Span(path, 0, self._size)
    low, size, count = self._list(whole)
    spend(size)
    self._read(whole.read(low, low + size), count, spend)
    # Entries that overlap could multiply the work of a small file.
    stop = 0
    for entry in sorted(self.entries.values(), key=lambda e: e.header):
      if entry.header < stop:
        raise ValueError('its entries overlap')
      stop = entry.header + _LOCAL.size + len(entry.name) + entry.packed
    if stop > low:
      raise ValueError('an entry ends after the entries')

  def _list(self, whole) -> tuple[int, int, int]:
    """The central directory: its offset, its bytes and its number of entries."""
    tail_start = max(0, self._size - _END.size - 2**16)
    tail = whole.read(tail_start, self._size)
    at = tail.rfind(b'PK\5\6')
    if at < 0 or at + _END.size > len(tail):
      raise ValueError('the list of its entries is missing')
    _, *disks, here, count, size, low, comment = _END.unpack_from(tail, at)
    end = tail_start + at
    damaged = end + _END.size + comment != self._size
    locator = whole.read(max(end - _AT64.size, 0), end)
    if locator[:4] == b'PK\6\7':
      _, first, record, parts = _AT64.unpack(locator)
      end -= _AT64.size + _END64.size
      fields = _END64.unpack(whole.read(record, record + _END64.size))
      sign, length, _, _, *more, here64, count64, size64, low64 = fields
      disks += more
      damaged |= (record, sign, length) != (end, b'PK\6\6', _END64.size - 12)
      damaged |= first != 0 or parts > 1 or here64 != count64
      # Numbers that do not fit into the short record are all ones there.
      damaged |= count not in (count64, 2**16 - 1) or here != count
      damaged |= size not in (size64, 2**32 - 1)
      damaged |= low not in (low64, 2**32 - 1)
      here, count, size, low = here64, count64, size64, low64
    if damaged or any(disks) or here != count or low + size != end:
      raise ValueError('the list of its entries is damaged')
    return low, size, count

  def _read(self, table: bytes, count: int, spend):
    at = 0
    for _ in range(count):
      spend(_COST)
      if at + _ENTRY.size > len(table):
        raise ValueError('the list of its entries is cut off')
      fields = _ENTRY.unpack_from(table, at)
      sign, _, _, flags, method, _, _, crc, packed, size, *lengths = fields
      name_length, extra_length, comment, disk, _, facts, header = lengths
      at += _ENTRY.size
      name = table[at : at + name_length]
      extra = table[at + name_length : at + name_length + extra_length]
      at += name_length + extra_length + comment
      if sign != b'PK\1\2' or at > len(table) or disk:
        raise ValueError('the list of its entries is damaged')
      size, packed, header = _wide(extra, size, packed, header)
      if facts & _FOLDER:
        raise ValueError('an entry is a folder')
      if flags & _ENCRYPTED or method not in (0, 8):
        raise ValueError('an entry is encrypted, or packed in another way')
      if not method and packed != size:
        raise ValueError('an entry has two sizes')
      text = name.decode()
      if text in self.entries:
        raise ValueError('two entries have one name')
      if header + _LOCAL.size + packed > self._size:
        raise DataError(f"'{self.path}' is cut off")
      if method:
        self._packed += size
        if self._packed > self._size + _EXTRA:
          raise ValueError('it unpacks to much more than its size')
      self.entries[text] = Entry(
        self.path, name, header, packed, size, crc, bool(method)
      )
    if at != len(table):
      raise ValueError('the list of its entries is damaged')


def _wide(extra, *numbers):
  """The numbers of an entry, those of all ones from its zip64 field."""
  if 0xFFFFFFFF not in numbers:
    return numbers
  at = 0
  while at + 4 <= len(extra):
    kind, length = struct.unpack_from('<2H', extra, at)
    if kind == 1:
      field = extra[at + 4 : at + 4 + length]
      wide = iter(struct.unpack(f'<{length // 8}Q', field[: length // 8 * 8]))
      return tuple(next(wide) if n == 0xFFFFFFFF else n for n in numbers)
    at += 4 + length
  raise ValueError('an entry lacks its sizes')


class Entry:
  """An entry, as a `tensors.Source`; its CRC is checked on first read.

  Attributes:
    path: the zip file.
    name: name of the entry.
    header: offset of its local header.
    packed: compressed size in bytes.
    size: size in bytes.
    crc: CRC-32 of the content.
    deflated: whether the content is compressed.
  """

  __slots__ = (
    '_content',
    '_sound',
    '_start',
    'crc',
    'deflated',
    'header',
    'name',
    'packed',
    'path',
    'size',
  )

  def __init__(self, path, name, header, packed, size, crc, deflated):
    self.path = path
    self.name = name
    self.header = header
    self.packed = packed
    self.size = size
    self.crc = crc
    self.deflated = deflated
    self._start = -1
    self._sound = False
    self._content: memoryview | None = None

  def read(self, low, high):
    if not 0 <= low <= high <= self.size:
      raise DataError(f"'{self.path}' is damaged: {self._called} is too short")
    if self.deflated:
      if self._content is None:
        self._content = self._inflated()
      return self._content[low:high]
    span = Span(self.path, self.begin(), self.packed)
    if self._sound:
      return span.read(low, high)
    if (low, high) == (0, self.size):
      data = span.read(low, high)
      self._check(zlib.crc32(data))
      return data
    crc = 0
    for at in range(0, self.size, _BLOCK):
      crc = zlib.crc32(span.read(at, min(at + _BLOCK, self.size)), crc)
    self._check(crc)
    return span.read(low, high)

  @property
  def _called(self):
    return ascii(self.name.decode())

  def _check(self, crc):
    if crc != self.crc:
      raise DataError(
        f"'{self.path}' is damaged: {self._called} does not match its CRC"
      )
    self._sound = True

  def begin(self) -> int:
    """Offset of the content, after the local header and its padding.

    Raises:
      DataError: no local header where the directory says.
    """
    if self._start < 0:
      size = os.path.getsize(self.path)
      whole = Span(self.path, 0, size)
      fields = _LOCAL.unpack(whole.read(self.header, self.header + _LOCAL.size))
      at = self.header + _LOCAL.size
      name = whole.read(at, at + fields[-2])
      start = at + fields[-2] + fields[-1]
      if fields[0] != b'PK\3\4' or name != self.name:
        raise DataError(
          f"'{self.path}' is damaged: {self._called} is not where the file says"
        )
      self._start = start
    return self._start

  def _inflated(self):
    """The content, decompressed in blocks so that Ctrl-C works."""
    span = Span(self.path, self.begin(), self.packed)
    unpack = zlib.decompressobj(-15)
    content = bytearray()
    try:
      for at in range(0, self.packed, _BLOCK):
        block = span.read(at, min(at + _BLOCK, self.packed))
        while block and len(content) <= self.size:
          content += unpack.decompress(block, _BLOCK)
          block = unpack.unconsumed_tail
      if not unpack.unconsumed_tail:
        content += unpack.flush()
    except zlib.error as error:
      raise DataError(
        f"'{self.path}' is damaged: {self._called}: {error}"
      ) from error
    if len(content) != self.size or not unpack.eof:
      raise DataError(
        f"'{self.path}' is damaged: {self._called} has another size than the "
        'file says'
      )
    self._check(zlib.crc32(content))
    return memoryview(content).toreadonly()
