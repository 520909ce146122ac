"""Files of blocks with digests, of copies in memory."""

import numpy as np

from arvision.training import packs

BLOCKS = {
  'a': np.arange(6, dtype=np.float32).reshape(2, 3),
  's': np.asarray(3, np.int32),
  'e': np.zeros((0,), np.uint8),
}


def test_damaged_blocks_are_left_out(tmp_path):
  path = tmp_path / 'pack'
  packs.write(path, BLOCKS)
  found, data = packs.read(path), path.read_bytes()
  assert np.array_equal(found['a'].view(np.float32).reshape(2, 3), BLOCKS['a'])
  assert len(data) <= packs.size({k: x.nbytes for k, x in BLOCKS.items()})
  for i in range(len(data)):
    flipped = bytearray(data)
    flipped[i] ^= 4
    for changed in (flipped, data[:i]):
      path.write_bytes(changed)
      for name, block in packs.read(path).items():
        assert np.array_equal(block, found[name])
  path.unlink()
  assert packs.read(path) == {}
