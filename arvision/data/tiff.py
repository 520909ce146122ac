"""Checks TIFF files for tags that take too much time or memory."""

import struct

_PREFIXES = (b'II*\0', b'MM\0*', b'II\0*', b'MM*\0', b'II+\0', b'MM\0+')
_BIG = (b'II+\0', b'MM\0+')
# Bytes per value of a tag type; 1 for the others.
_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_BYTES |= {16: 8, 17: 8, 18: 8}
_TILE_WIDTH, _TILE_LENGTH = 322, 323
# Every value becomes a Python object, and every strip or tile a task.
_MAX_NUMBERS = 2**16


def check_tags(data: bytes, max_pixels: int) -> None:
  """Checks the first directory of a TIFF file.

  Args:
    data: the file; files of other formats pass.
    max_pixels: largest number of pixels of a tile.

  Raises:
    ValueError: tags larger than the file, too many values in a tag, or tiles
      with too many pixels.
    struct.error: the directory is truncated.
  """
  if not data.startswith(_PREFIXES):
    return
  order, big = '<>'[data[:1] == b'M'], data.startswith(_BIG)
  start = struct.unpack_from(f'{order}{"Q" if big else "I"}', data, 4 + 4 * big)
  head, entry = ('Q', 'HHQQ') if big else ('H', 'HHII')
  count = struct.unpack_from(order + head, data, start[0])[0]
  at = start[0] + struct.calcsize(order + head)
  total, tile = 0, {}
  for _ in range(count):
    tag, kind, numbers, value = struct.unpack_from(order + entry, data, at)
    at += struct.calcsize(order + entry)
    width = _BYTES.get(kind, 1)
    total += numbers * width
    if width > 1 and numbers > _MAX_NUMBERS:
      raise ValueError(f'tag {tag} holds {numbers} numbers')
    if tag in (_TILE_WIDTH, _TILE_LENGTH):
      # Short values are at the start of the field.
      unused = 8 * ((8 if big else 4) - width)
      tile[tag] = value >> unused if order == '>' else value
  if total > len(data):
    raise ValueError(f'tags of {total} bytes in a file of {len(data)}')
  if tile.get(_TILE_WIDTH, 1) * tile.get(_TILE_LENGTH, 1) > max_pixels:
    raise ValueError(f'tiles of more than {max_pixels} pixels')
