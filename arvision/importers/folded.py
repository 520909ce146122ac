"""Networks of convolutions with batch normalization, folded into one.

In inference a batch normalization is an affine map of every channel, so it
becomes part of the convolution before it.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.traverse_util
import numpy as np

from arvision.errors import DataError
from arvision.importers.files import find_weights
from arvision.importers.table import paths

# Names in torch: scale, bias, mean and variance.
TORCH_NORM = ('weight', 'bias', 'running_mean', 'running_var')
# How many tensors an error names.
_NAMED = 3


@dataclasses.dataclass(frozen=True)
class Layer:
  """The tensors of one layer in a file.

  Attributes:
    kernel: key of the kernel.
    norm: keys of scale, bias, mean and variance of its batch normalization; ()
      for none.
    bias: key of the bias of a layer without normalization.
    torch: whether the axes of the kernel are in torch's order.
  """

  kernel: str
  norm: tuple[str, ...] = ()
  bias: str = ''
  torch: bool = True

  def shapes(self, kernel: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Shapes in the file, by key.

    Args:
      kernel: shape of our kernel: (*window, in, out).
    """
    shape = kernel
    if self.torch:
      shape = kernel[::-1][:2] + kernel[:-2]
    others = (*self.norm, self.bias) if self.bias else self.norm
    return {self.kernel: shape, **dict.fromkeys(others, kernel[-1:])}

  def params(
    self, weights: Mapping[str, np.ndarray], epsilon: float
  ) -> dict[str, np.ndarray]:
    """Our kernel and bias, float32."""
    kernel = weights[self.kernel]
    if self.torch:
      kernel = np.moveaxis(kernel, (1, 0), (-2, -1))
    if not self.norm:
      return {'kernel': kernel, 'bias': weights[self.bias]}
    scale, bias, mean, variance = (
      weights[key].astype(np.float64) for key in self.norm
    )
    factor = scale / np.sqrt(variance + epsilon)
    return {
      'kernel': (kernel * factor).astype(np.float32),
      'bias': (bias - mean * factor).astype(np.float32),
    }


def to_params(
  path: str | os.PathLike,
  content: Any,
  shapes: Any,
  layers: Mapping[str, Layer],
  name: str,
  epsilon: float = 1e-3,
  ignored: Callable[[str], bool] = lambda key: False,
) -> Any:
  """Converts the weights of a file to parameters.

  Args:
    path: the file, for errors.
    content: of `files.read`.
    shapes: tree of our parameters: kernel and bias of every layer.
    layers: path of a layer -> its tensors in the file.
    name: of the network, for errors.
    epsilon: of the batch normalizations.
    ignored: whether a key of the file that no layer has may be there.

  Returns:
    a tree like `shapes`, contiguous float32.

  Raises:
    DataError: one line about tensors that are missing, left over, of another
      shape or dtype, or not finite.
  """
  ours = paths(shapes)
  wanted = {
    key: shape
    for layer, tensors in layers.items()
    for key, shape in tensors.shapes(ours[f'{layer}/kernel']).items()
  }
  try:
    _, found = find_weights(content, wanted)
  except DataError as error:
    raise DataError(f"'{path}' is not a file of {name}: {error}") from error
  faults = [
    _counted('missing', [k for k in wanted if k not in found]),
    _counted(
      'left over', [k for k in found if k not in wanted and not ignored(k)]
    ),
    _counted(
      'of another shape',
      [
        f'{k} {tuple(np.shape(found[k]))}, wanted {shape}'
        for k, shape in wanted.items()
        if k in found and np.shape(found[k]) != shape
      ],
    ),
    _counted(
      'complex',
      [k for k in wanted if k in found and found[k].dtype.kind == 'c'],
    ),
  ]
  if any(faults):
    text = '; '.join(filter(None, faults))
    raise DataError(f"'{path}' is not a file of {name}: {text}")
  weights = {k: np.asarray(found[k], np.float32) for k in wanted}
  broken = [k for k, w in weights.items() if not np.isfinite(w).all()]
  if broken:
    raise DataError(f"'{path}': {_counted('not finite', broken)}")
  flat = {
    f'{layer}/{kind}': np.ascontiguousarray(value)
    for layer, tensors in layers.items()
    for kind, value in tensors.params(weights, epsilon).items()
    if f'{layer}/{kind}' in ours
  }
  return flax.traverse_util.unflatten_dict(flat, sep='/')


def _counted(what: str, names: Sequence[str]) -> str:
  """'470 missing (a, b, c, ...)', '' for none."""
  if not names:
    return ''
  more = ', ...' if len(names) > _NAMED else ''
  return f'{len(names)} {what} ({", ".join(names[:_NAMED])}{more})'
