"""Weights of the 2015 Inception network, from any of its files.

`pt_inception-2015-12-05-6726825d.pth` of mseitzer/pytorch-fid,
`weights-inception-2015-12-05-6726825d.pth` of toshas/torch-fidelity, and the
frozen graph that both come from: `classify_image_graph_def.pb`.
"""

import os
from typing import Any

from arvision.importers import files
from arvision.importers.folded import TORCH_NORM, Layer, to_params
from arvision.importers.table import paths

# Layers of the graph, in its order, by our names.
_STEM = (
  'Conv2d_1a_3x3',
  'Conv2d_2a_3x3',
  'Conv2d_2b_3x3',
  'Conv2d_3b_1x1',
  'Conv2d_4a_3x3',
)
_BLOCKS = ('5b', '5c', '5d', '6a', '6b', '6c', '6d', '6e', '7a', '7b', '7c')
# Branches of a block: our name -> the graph's; '*' is the number of a layer.
_A = {
  'branch1x1': 'conv',
  'branch5x5_*': 'tower',
  'branch3x3dbl_*': 'tower_1',
  'branch_pool': 'tower_2/conv',
}
_B = {'branch3x3': 'conv', 'branch3x3dbl_*': 'tower'}
_C = {
  'branch1x1': 'conv',
  'branch7x7_*': 'tower',
  'branch7x7dbl_*': 'tower_1',
  'branch_pool': 'tower_2/conv',
}
_D = {'branch3x3_*': 'tower', 'branch7x7x3_*': 'tower_1'}
_E = {
  'branch1x1': 'conv',
  'branch3x3_*': 'tower',
  'branch3x3_2a': 'tower/mixed/conv',
  'branch3x3_2b': 'tower/mixed/conv_1',
  'branch3x3dbl_*': 'tower_1',
  'branch3x3dbl_3a': 'tower_1/mixed/conv',
  'branch3x3dbl_3b': 'tower_1/mixed/conv_1',
  'branch_pool': 'tower_2/conv',
}
_BRANCHES = dict(zip(_BLOCKS, (*[_A] * 3, _B, *[_C] * 4, _D, _E, _E)))
_GRAPH_NORM = ('gamma', 'beta', 'moving_mean', 'moving_variance')


def read(path: str | os.PathLike, shapes: Any) -> Any:
  """Reads a file of the network.

  Args:
    path: the file.
    shapes: tree of the parameters of `evals.inception.Network`.

  Returns:
    a tree like `shapes`, float32 numpy arrays.

  Raises:
    DataError: no such file, a damaged one, or one of another network.
  """
  return convert(path, files.read(path), shapes)


def convert(path: str | os.PathLike, content: Any, shapes: Any) -> Any:
  """The same for a file that was read, with `files.read`."""
  graph = 'softmax/weights' in content
  layer = graph_layer if graph else torch_layer
  names = {p.rpartition('/')[0] for p in paths(shapes)}
  return to_params(
    path,
    content,
    shapes,
    {name: layer(name) for name in sorted(names)},
    'the 2015 Inception network',
    # A graph has further constants.
    ignored=lambda key: graph or key.endswith('.num_batches_tracked'),
  )


def torch_layer(name: str) -> Layer:
  """The tensors of 'Mixed_5b/branch1x1' in the files of torch."""
  key = name.replace('/', '.')
  if name == 'fc':
    return Layer(f'{key}.weight', bias=f'{key}.bias')
  norm = tuple(f'{key}.bn.{kind}' for kind in TORCH_NORM)
  return Layer(f'{key}.conv.weight', norm)


def graph_layer(name: str) -> Layer:
  """The same in the frozen graph."""
  if name == 'fc':
    return Layer('softmax/weights', bias='softmax/biases', torch=False)
  key = _graph_name(name)
  norm = tuple(f'{key}/batchnorm/{kind}' for kind in _GRAPH_NORM)
  return Layer(f'{key}/conv2d_params', norm, torch=False)


def _graph_name(name):
  if name in _STEM:
    return _numbered('conv', _STEM.index(name))
  block, branch = name.removeprefix('Mixed_').split('/')
  scope = _numbered('mixed', _BLOCKS.index(block))
  branches = _BRANCHES[block]
  if branch in branches:
    return f'{scope}/{branches[branch]}'
  stem, number = branch[:-1], int(branch[-1])
  return f'{scope}/{branches[stem + "*"]}/' + _numbered('conv', number - 1)


def _numbered(name, i):
  """The i-th node of a name in a scope."""
  return f'{name}_{i}' if i else name
