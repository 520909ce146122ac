"""Weights of torchvision's ResNet and ConvNeXt, for perceptual losses.

`resnet50-0676ba61.pth` and `convnext_small-0c510722.pth`, or others of these
families.
"""

import os
import re
from collections.abc import Iterator
from typing import Any

from arvision.importers import files, folded
from arvision.importers.frozen import Frozen
from arvision.importers.table import Conv, Identity, Row, dense, norm, paths


def read_resnet(path: str | os.PathLike, shapes: Any) -> Any:
  """Reads a file of torchvision's ResNet.

  Args:
    path: the file.
    shapes: tree of the parameters of `tokenizers.classifiers.ResNet`.

  Returns:
    a tree like `shapes`, float32 numpy arrays.

  Raises:
    DataError: no such file, a damaged one, or one of another network.
  """
  names = {p.rpartition('/')[0] for p in paths(shapes)}
  return folded.to_params(
    path,
    files.read(path),
    shapes,
    {name: _layer(name) for name in sorted(names)},
    'this ResNet',
    epsilon=1e-5,
    ignored=lambda key: key.endswith('.num_batches_tracked'),
  )


def _layer(name):
  if name == 'fc':
    return folded.Layer('fc.weight', bias='fc.bias')
  # 'layer1_0/conv2' -> 'layer1.0.conv2' and 'layer1.0.bn2'
  key = name.replace('_', '.').replace('/', '.')
  conv, bn = key, key.replace('conv', 'bn')
  if key.endswith('downsample'):
    conv, bn = f'{key}.0', f'{key}.1'
  kinds = tuple(f'{bn}.{kind}' for kind in folded.TORCH_NORM)
  return folded.Layer(f'{conv}.weight', kinds)


def read_convnext(path: str | os.PathLike, shapes: Any) -> Any:
  """The same for ConvNeXt, `tokenizers.classifiers.ConvNeXt`."""
  return Frozen('ConvNeXt', _convnext).read(path, shapes)


def _convnext(ours) -> Iterator[Row]:
  for path in ours:
    stage = re.fullmatch(r'stage_(\d)_(\d+)/scale', path)
    down = re.fullmatch(r'down_(\d)/kernel', path)
    if stage:
      yield from _block(path.rpartition('/')[0], stage[1], stage[2])
    elif down:
      yield from _down(int(down[1]))
  yield from norm('norm_out', 'classifier.0')
  yield from dense('fc', 'classifier.2')


def _block(path, stage, number):
  # torchvision counts the layers between the stages too.
  key = f'features.{2 * int(stage) + 1}.{number}'
  yield from _conv(f'{path}/depthwise', f'{key}.block.0')
  yield from norm(f'{path}/norm', f'{key}.block.2')
  yield from dense(f'{path}/fc1', f'{key}.block.3')
  yield from dense(f'{path}/fc2', f'{key}.block.5')
  yield Row(f'{path}/scale', f'{key}.layer_scale', Identity(after=2))


def _down(stage):
  key = f'features.{2 * stage}'
  # The first convolution comes before its norm, the others after it.
  conv, own = (1, 0) if stage else (0, 1)
  yield from _conv(f'down_{stage}', f'{key}.{conv}')
  yield from norm(f'norm_{stage}', f'{key}.{own}')


def _conv(path, key):
  yield Row(f'{path}/kernel', f'{key}.weight', Conv())
  yield Row(f'{path}/bias', f'{key}.bias')
