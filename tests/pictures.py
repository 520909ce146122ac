"""Encoders of pictures that Pillow does not write, for the tests of readers."""

import struct
import zlib
from collections.abc import Sequence

import numpy as np


def chunk(kind: bytes, data: bytes) -> bytes:
  """A chunk of a PNG file."""
  check = struct.pack('>I', zlib.crc32(kind + data))
  return struct.pack('>I', len(data)) + kind + data + check


def png(
  width: int,
  rows: Sequence[bytes],
  depth: int,
  color: int,
  *extra: tuple[bytes, bytes],
) -> bytes:
  """A PNG file of packed rows, with chunks before its pixels."""
  head = struct.pack('>IIBBBBB', width, len(rows), depth, color, 0, 0, 0)
  pixels = zlib.compress(b''.join(b'\0' + row for row in rows))
  chunks = [(b'IHDR', head), *extra, (b'IDAT', pixels), (b'IEND', b'')]
  return b'\x89PNG\r\n\x1a\n' + b''.join(chunk(*c) for c in chunks)


def tiff(
  pixels: bytes,
  shape: tuple[int, int],
  bits: int,
  order: str = '<',
  tags: dict[int, Sequence[int]] | None = None,
) -> bytes:
  """A grey TIFF file of one strip; `tags` are added or changed, as LONG."""
  height, width = shape
  fields = {
    256: [width],
    257: [height],
    258: [bits],
    259: [1],
    262: [1],
    273: [8],
    277: [1],
    278: [height],
    279: [len(pixels)],
    **(tags or {}),
  }
  start = 8 + len(pixels)
  after = start + 2 + 12 * len(fields) + 4
  entries, rest = b'', b''
  for tag, values in sorted(fields.items()):
    data = struct.pack(f'{order}{len(values)}I', *values)
    if len(data) > 4:
      offset = struct.pack(f'{order}I', after + len(rest))
      rest, data = rest + data, offset
    entries += struct.pack(f'{order}HHI', tag, 4, len(values)) + data
  return (
    (b'II*\0' if order == '<' else b'MM\0*')
    + struct.pack(f'{order}I', start)
    + pixels
    + struct.pack(f'{order}H', len(fields))
    + entries
    + bytes(4)
    + rest
  )


def with_alpha(
  colour: np.ndarray, alpha: np.ndarray, background: Sequence[int]
) -> np.ndarray:
  """(h, w, 3) in 0..255 over a background, alpha (h, w) in 0..1."""
  alpha = alpha[..., None]
  return alpha * colour + (1 - alpha) * np.array(background)
