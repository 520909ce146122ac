"""A network of features that compiles at once, and files of weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from arvision.evals.features import Features
from arvision.evals.networks import FeatureNetwork
from arvision.importers import inception
from arvision.importers.table import paths


@dataclasses.dataclass(frozen=True)
class Toy(FeatureNetwork):
  """One convolution with random weights, averaged."""

  name = 'toy'
  resize = ''

  def params(self):
    return np.random.default_rng(0).normal(size=(3, 3, 3, 5))

  def prepare(self, images):
    return images.astype(jnp.float32) / 255

  def taps(self, params, x):
    return Features(*_taps(params, x))


@jax.jit
def _taps(kernel, x):
  y = jax.lax.conv_general_dilated(
    x,
    kernel.astype(jnp.float32),
    (1, 1),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  return y.mean((1, 2)), y[:, 0, 0]


def images(count, side=6):
  shape = (count, side, side + 1, 3)
  return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def narrow(shapes):
  """The network of these shapes with few channels, and its layers.

  Returns:
    tree of shapes; layer -> random official arrays in our layout.
  """
  rng = np.random.default_rng(2)
  tree = {}
  layers = {}
  for path in paths(shapes):
    layer, _, kind = path.rpartition('/')
    shape = (2, 3) if layer == 'fc' else (1, 2, 2, 3)
    values = rng.normal(size=(5, 3))
    values[4] = np.abs(values[4]) + 0.5  # a variance
    layers[layer] = [np.float32(x) for x in (rng.normal(size=shape), *values)]
    *where, name = layer.split('/')
    inside = tree
    for part in where:
      inside = inside.setdefault(part, {})
    inside.setdefault(name, {})[kind] = jax.ShapeDtypeStruct(
      shape if kind == 'kernel' else shape[-1:], jnp.float32
    )
  return tree, layers


def official(layers, form):
  """The arrays under the keys of a file.

  Args:
    layers: of `narrow`.
    form: `inception.torch_layer` or `inception.graph_layer`.
  """
  found = {}
  for name, (kernel, *values) in layers.items():
    layer = form(name)
    if layer.torch:
      kernel = np.moveaxis(kernel, (-2, -1), (1, 0))
    found[layer.kernel] = kernel
    keys = layer.norm or (layer.bias,)
    found.update(zip(keys, [*values[1:]] if layer.norm else values[:1]))
  return found


def state_dict(layers):
  return official(layers, inception.torch_layer)


def graph(layers):
  return graph_bytes(official(layers, inception.graph_layer))


def field(number, value):
  """A field of a protocol buffer: an integer, or bytes."""
  if isinstance(value, int):
    return _varint(number << 3) + _varint(value)
  return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(n):
  out = b''
  while n > 127:
    out, n = out + bytes([n & 127 | 128]), n >> 7
  return out + bytes([n])


def constant(name, array, content=True, dtype=1, shape=None):
  """A node that holds an array, as bytes or as a list of floats."""
  sizes = np.shape(array) if shape is None else shape
  shape = b''.join(field(2, field(1, n)) for n in sizes)
  data = np.asarray(array, '<f4').tobytes()
  tensor = field(1, dtype) + field(2, shape) + field(4 if content else 5, data)
  attributes = {b'dtype': field(6, dtype), b'value': field(8, tensor)}
  pairs = (field(1, k) + field(2, v) for k, v in attributes.items())
  return (
    field(1, name.encode())
    + field(2, b'Const')
    + b''.join(field(5, pair) for pair in pairs)
  )


def graph_bytes(arrays):
  """A `GraphDef` with these constants, and what else such files hold."""
  nodes = [
    field(1, b'DecodeJpeg/contents') + field(2, b'Placeholder'),
    constant('ResizeBilinear/size', [299, 299], dtype=3),
    *(constant(k, v, i % 2 == 0) for i, (k, v) in enumerate(arrays.items())),
    field(1, b'softmax') + field(2, b'Softmax') + field(3, b'softmax/logits'),
  ]
  versions = field(4, field(1, 8))
  return b''.join(field(1, node) for node in nodes) + versions
