"""Files of named blocks of bytes, each with its digest.

A file is a line with the CRC-32 of a JSON list, that list, and the bytes of the
blocks: `<crc> [[name, size, crc], ...]`, a newline, block after block.
"""

import json
import pathlib
import zlib
from collections.abc import Mapping

import numpy as np

# Bytes of the longest list of blocks.
_LONGEST_HEAD = 2**28


def write(path: pathlib.Path, blocks: Mapping[str, np.ndarray]) -> None:
  """Writes blocks to a file.

  Args:
    path: the file.
    blocks: name -> contiguous array of any shape and dtype.
  """
  flat = {name: x.reshape(-1).view(np.uint8) for name, x in blocks.items()}
  listed = [[name, x.size, zlib.crc32(x.data)] for name, x in flat.items()]
  head = json.dumps(listed).encode()
  with path.open('wb') as file:
    file.write(b'%08x %s\n' % (zlib.crc32(head), head))
    for block in flat.values():
      file.write(block.data)


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The intact blocks of a file, as (bytes,) uint8 arrays.

  A missing or damaged file has fewer blocks, or none.
  """
  try:
    data = np.fromfile(path, np.uint8)
    end = data[:_LONGEST_HEAD].tobytes().index(b'\n')
    head = data[9:end].tobytes()
    if int(data[:8].tobytes(), 16) != zlib.crc32(head):
      return {}
    listed = json.loads(head)
  except (OSError, ValueError):
    return {}
  found, start = {}, end + 1
  for name, size, crc in listed:
    block = data[start : start + size]
    start += size
    if block.size == size and zlib.crc32(block.data) == crc:
      found[name] = block
  return found


def size(blocks: Mapping[str, int]) -> int:
  """Bytes of a file with blocks of these sizes, or a few more."""
  digits = 40
  return 10 + sum(n + len(name) + digits for name, n in blocks.items())
