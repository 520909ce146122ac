"""Weights of the vision transformers of DINO, with timm's keys.

`dino_deitsmall16_pretrain.pth`, `dino_deitsmall8_pretrain.pth` and their like of
facebookresearch/dino, or the same networks as timm stores them.
"""

import os
from collections.abc import Iterator
from typing import Any

from arvision.importers.frozen import Frozen
from arvision.importers.table import Conv, Identity, Row, block


def read(path: str | os.PathLike, shapes: Any) -> Any:
  """Reads a file of the network.

  Args:
    path: the file.
    shapes: tree of the parameters of `tokenizers.dino.ViT`.

  Returns:
    a tree like `shapes`, float32 numpy arrays.

  Raises:
    DataError: no such file, a damaged one, or one of another network.
  """
  return Frozen('vision transformer', _rows, ('norm.', 'head')).read(
    path, shapes
  )


def _rows(ours) -> Iterator[Row]:
  yield Row('patches/kernel', 'patch_embed.proj.weight', Conv())
  yield Row('patches/bias', 'patch_embed.proj.bias')
  yield Row('class_embedding', 'cls_token', Identity(before=1))
  yield Row('position', 'pos_embed', Identity(before=1))
  yield from block(ours, 'stack/layers/block', 'blocks.{i}')
