"""Limits of what a TIFF file may ask a reader to do."""

import struct

_PREFIXES = (b'II*\0', b'MM\0*', b'II\0*', b'MM*\0', b'II+\0', b'MM\0+')
_BIG = (b'II+\0', b'MM\0+')
# Of a number, by its type; 1 of those that are missing here.
_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_BYTES |= {16: 8, 17: 8, 18: 8}
_TILE_WIDTH, _TILE_LENGTH = 322, 323
# Every number becomes a Python object, and every strip or tile a task.
_MAX_NUMBERS = 2**16


def check_tags(data: bytes, max_pixels: int) -> None:
  """Looks at the first directory of a file before a reader does.

  Args:
    data: a file; one that is no TIFF passes.
    max_pixels: of a tile.

  Raises:
    ValueError: tags that hold more than the file does, too many numbers in a
      tag, or tiles of too many pixels.
    struct.error: the directory is cut short.
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
      # Shorter numbers stand at the start of the field.
      unused = 8 * ((8 if big else 4) - width)
      tile[tag] = value >> unused if order == '>' else value
  if total > len(data):
    raise ValueError(f'tags of {total} bytes in a file of {len(data)}')
  if tile.get(_TILE_WIDTH, 1) * tile.get(_TILE_LENGTH, 1) > max_pixels:
    raise ValueError(f'tiles of more than {max_pixels} pixels')
