"""Checks the checksums of PNG files."""

import struct
import zlib

_PREFIX = b'\x89PNG\r\n\x1a\n'
# Real files have fewer; the rest of others is not checked.
_CHUNKS = 2**16


def check_chunks(data: bytes) -> None:
  """Checks what a PNG file needs: its header, palette and pixels.

  Pillow does not see that the end of the pixels was overwritten, as by the zeros
  of a download or a copy that stopped.

  Args:
    data: the file; files of other formats, and truncated ones, pass.

  Raises:
    ValueError: bytes that do not match their checksum.
  """
  if not data.startswith(_PREFIX):
    return
  view, at = memoryview(data), len(_PREFIX)
  for _ in range(_CHUNKS):
    if at + 12 > len(data):
      return
    size, kind = struct.unpack_from('>I4s', data, at)
    end = at + 12 + size
    if end > len(data) or not kind.isalpha():
      return
    needed = kind[:1].isupper()
    if needed and zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(
      view[end - 4 : end], 'big'
    ):
      raise ValueError(f'the checksum of its {kind.decode()} chunk is wrong')
    if kind == b'IEND':
      return
    at = end
