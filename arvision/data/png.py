"""Checks PNG files for damage that Pillow does not see."""

import struct
import zlib
from collections.abc import Iterator

_PREFIX = b'\x89PNG\r\n\x1a\n'
# Real files have fewer.
_CHUNKS = 2**16
# Samples of a pixel by colour type.
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Interlaced pictures: first column and row of each pass, and steps to the next.
_PASSES = (
  (0, 0, 8, 8),
  (4, 0, 8, 8),
  (0, 4, 4, 8),
  (2, 0, 4, 4),
  (0, 2, 2, 4),
  (1, 0, 2, 2),
  (0, 1, 1, 2),
)
# Bytes that are inflated at once; they become at most 17 MB.
_SLICE = 2**14


def check_png(data: bytes) -> None:
  """Checks the chunks of a PNG file, and that its pixels have the stated size.

  Pillow shows a picture whose end was overwritten, as by the zeros of a download
  or a copy that stopped, or whose header states fewer pixels than follow.

  Args:
    data: the file, whose header states a size that may be decoded; files of
      other formats pass.

  Raises:
    ValueError: it ends early, bytes do not match their checksum, or there are
      more or fewer pixels than the header says.
    zlib.error: the pixels cannot be inflated.
    struct.error: the header is too short.
  """
  if not data.startswith(_PREFIX):
    return
  size, found, inflate = 0, 0, zlib.decompressobj()
  for kind, content in _chunks(memoryview(data)):
    if kind == b'IHDR':
      size = _bytes_of_pixels(content)
    if kind != b'IDAT':
      continue
    for start in range(0, len(content), _SLICE):
      if found > size:
        break
      found += len(inflate.decompress(content[start : start + _SLICE]))
  if found != size:
    more = 'more' if found > size else 'fewer'
    raise ValueError(f'it has {more} pixels than its header says')


def _chunks(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
  """(kind, content) of the chunks that a viewer needs."""
  at = len(_PREFIX)
  for _ in range(_CHUNKS):
    if at + 12 > len(data):
      break
    size, kind = struct.unpack_from('>I4s', data, at)
    end = at + 12 + size
    if end > len(data):
      break
    if not kind.isalpha():
      raise ValueError(f'{kind!r} is no kind of a chunk')
    # A capital marks what is needed.
    if kind[:1].isupper():
      stored = int.from_bytes(data[end - 4 : end], 'big')
      if zlib.crc32(data[at + 4 : end - 4]) != stored:
        raise ValueError(f'the checksum of its {kind.decode()} chunk is wrong')
      yield kind, data[at + 8 : end - 4]
    if kind == b'IEND':
      return
    at = end
  raise ValueError('it ends before its IEND chunk')


def _bytes_of_pixels(header):
  """The size of the inflated pixels, with a byte of the filter per row."""
  width, height, depth, colour, interlaced = struct.unpack('>IIBBxxB', header)
  bits = depth * _SAMPLES.get(colour, 0)
  passes = _PASSES if interlaced else ((0, 0, 1, 1),)
  total = 0
  for left, top, across, down in passes:
    columns = -(-max(width - left, 0) // across)
    rows = -(-max(height - top, 0) // down)
    if columns:
      total += rows * (1 + -(-columns * bits // 8))
  return total
