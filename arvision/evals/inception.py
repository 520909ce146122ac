"""The Inception network of 2015, in which FID and its relatives are defined.

All implementations of these metrics share its weights, and differ in how an
image becomes its input: see `Inception.variant`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from arvision.evals.features import Features
from arvision.evals.networks import FeatureNetwork
from arvision.importers import inception as importer
from arvision.kernels.cpu.winograd import convolve
from arvision.layers.resize import resize

SIDE = 299
CLASSES = 1008
# Channels of the spatial features.
_SPATIAL = 7

# A TPU would round the operands to bfloat16.
_PRECISION = jax.lax.Precision.HIGHEST


class Taps(NamedTuple):
  """What the network gives out, float32.

  Attributes:
    pool: (b, 2048) averages of the last block: `pool_3`.
    spatial: (b, 17 * 17 * 7) first channels of the first branch of block 6d:
      `mixed_6/conv`.
    unbiased: (b, 1008) logits without the bias.
    logits: (b, 1008) logits.
  """

  pool: jax.Array
  spatial: jax.Array
  unbiased: jax.Array
  logits: jax.Array


def _conv(x, name, features, kernel=1, stride=1, padding='SAME'):
  """A convolution with a folded batch normalization, and ReLU."""
  size = (kernel, kernel) if isinstance(kernel, int) else kernel
  conv = nn.Conv(
    features,
    size,
    stride,
    padding,
    precision=_PRECISION,
    conv_general_dilated=_convolve,
    name=name,
  )
  return nn.relu(conv(x))


def _convolve(x, kernel, strides, padding, **options):
  """`convolve`; on a CPU three times as fast for convolutions without padding.

  XLA is so if there is some padding, so the result is padded and cropped.
  """
  if padding != 'VALID':
    return convolve(x, kernel, strides, padding, **options)
  height, width = (
    (n - k) // s + 1 for n, k, s in zip(x.shape[1:3], kernel.shape[:2], strides)
  )
  y = convolve(x, kernel, strides, ((0, 1), (0, 1)), **options)
  return y[:, :height, :width]


def _down(x, name, features):
  """A convolution that halves the grid."""
  return _conv(x, name, features, 3, 2, 'VALID')


def _chain(x, name, *layers):
  """Convolutions `<name>_1`, `<name>_2`, ... of (features, kernel)."""
  for i, (features, kernel) in enumerate(layers, 1):
    x = _conv(x, f'{name}_{i}', features, kernel)
  return x


def _pool(x, f, stride=1, outside=None):
  """f of windows of 3 x 3, one axis after the other.

  On a CPU slices are 3 times as fast as XLA's reduction of windows.

  Args:
    x: (b, h, w, c).
    f: of two arrays: sum or maximum.
    stride: of the windows.
    outside: value of a frame of one pixel; None: no frame.
  """
  for axis in (1, 2):
    if outside is not None:
      frame = [(1, 1) if i == axis else (0, 0) for i in range(4)]
      x = jnp.pad(x, frame, constant_values=outside)
    end = max(x.shape[axis] - 2, 0)
    before = (slice(None),) * axis
    a, b, c = (x[*before, i : i + end : stride] for i in range(3))
    x = f(f(a, b), c)
  return x


def average(x: jax.Array) -> jax.Array:
  """Averages of 3 x 3 without the padding, as TensorFlow computes them."""
  count = _pool(jnp.ones((1, *x.shape[1:3], 1)), jnp.add, outside=0)
  return _pool(x, jnp.add, outside=0) / count


def largest(x: jax.Array) -> jax.Array:
  """Maxima of 3 x 3."""
  return _pool(x, jnp.maximum, outside=-jnp.inf)


def _halved(x):
  return _pool(x, jnp.maximum, stride=2)


def _joined(*branches):
  return jnp.concatenate(branches, axis=-1)


class A(nn.Module):
  """(b, 35, 35, c) -> (b, 35, 35, 224 + pooled).

  Attributes:
    pooled: channels of the pooled branch.
  """

  pooled: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return _joined(
      _conv(x, 'branch1x1', 64),
      _chain(x, 'branch5x5', (48, 1), (64, 5)),
      _chain(x, 'branch3x3dbl', (64, 1), (96, 3), (96, 3)),
      _conv(average(x), 'branch_pool', self.pooled),
    )


class B(nn.Module):
  """(b, 35, 35, 288) -> (b, 17, 17, 768)."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    inner = _chain(x, 'branch3x3dbl', (64, 1), (96, 3))
    return _joined(
      _down(x, 'branch3x3', 384),
      _down(inner, 'branch3x3dbl_3', 96),
      _halved(x),
    )


class C(nn.Module):
  """(b, 17, 17, 768) -> the same, and the first branch of it.

  Attributes:
    inner: channels inside the branches.
  """

  inner: int

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    wide, tall = (self.inner, (1, 7)), (self.inner, (7, 1))
    first = _conv(x, 'branch1x1', 192)
    out = _joined(
      first,
      _chain(x, 'branch7x7', (self.inner, 1), wide, (192, (7, 1))),
      _chain(
        x, 'branch7x7dbl', (self.inner, 1), tall, wide, tall, (192, (1, 7))
      ),
      _conv(average(x), 'branch_pool', 192),
    )
    return out, first


class D(nn.Module):
  """(b, 17, 17, 768) -> (b, 8, 8, 1280)."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    inner = _chain(x, 'branch7x7x3', (192, 1), (192, (1, 7)), (192, (7, 1)))
    return _joined(
      _down(_conv(x, 'branch3x3_1', 192), 'branch3x3_2', 320),
      _down(inner, 'branch7x7x3_4', 192),
      _halved(x),
    )


class E(nn.Module):
  """(b, 8, 8, c) -> (b, 8, 8, 2048).

  Attributes:
    pool: of the pooled branch, over 3 x 3. The two blocks differ in it.
  """

  pool: Callable[[jax.Array], jax.Array]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    short = _chain(x, 'branch3x3', (384, 1))
    long = _chain(x, 'branch3x3dbl', (448, 1), (384, 3))
    return _joined(
      _conv(x, 'branch1x1', 320),
      _conv(short, 'branch3x3_2a', 384, (1, 3)),
      _conv(short, 'branch3x3_2b', 384, (3, 1)),
      _conv(long, 'branch3x3dbl_3a', 384, (1, 3)),
      _conv(long, 'branch3x3dbl_3b', 384, (3, 1)),
      _conv(self.pool(x), 'branch_pool', 192),
    )


class Classes(nn.Module):
  """(b, 2048) -> logits of `CLASSES` without and with the bias."""

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    shape = (x.shape[-1], CLASSES)
    kernel = self.param('kernel', nn.initializers.lecun_normal(), shape)
    bias = self.param('bias', nn.initializers.zeros, shape[1:])
    logits = jnp.dot(x, kernel, precision=_PRECISION)
    return logits, logits + bias


class Network(nn.Module):
  """The network, with the names of torchvision's layers.

  Source: Szegedy et al., arXiv 1512.00567, as in the frozen graph of
    2015-12-05: the average pools leave out the padding, and the pooled branch
    of the last block takes the maximum.
  """

  @nn.compact
  def __call__(self, x: jax.Array) -> Taps:
    """(b, 299, 299, 3) in about [-1, 1] -> what the metrics need."""
    x = _conv(x, 'Conv2d_1a_3x3', 32, 3, 2, 'VALID')
    x = _conv(x, 'Conv2d_2a_3x3', 32, 3, padding='VALID')
    x = _conv(x, 'Conv2d_2b_3x3', 64, 3)
    x = self.tap('64', _halved(x))
    x = _conv(x, 'Conv2d_3b_1x1', 80)
    x = _conv(x, 'Conv2d_4a_3x3', 192, 3, padding='VALID')
    x = self.tap('192', _halved(x))
    for name, pooled in (('5b', 32), ('5c', 64), ('5d', 64)):
      x = A(pooled, name=f'Mixed_{name}')(x)
    x = B(name='Mixed_6a')(x)
    for name, inner in (('6b', 128), ('6c', 160)):
      x, _ = C(inner, name=f'Mixed_{name}')(x)
    x, first = C(160, name='Mixed_6d')(x)
    spatial = first[..., :_SPATIAL].reshape(len(x), -1)
    x, _ = C(192, name='Mixed_6e')(x)
    x = self.tap('768', x)
    x = D(name='Mixed_7a')(x)
    x = E(average, name='Mixed_7b')(x)
    x = E(largest, name='Mixed_7c')(x)
    pool = x.mean((1, 2))
    unbiased, logits = Classes(name='fc')(pool)
    return Taps(pool, spatial, unbiased, logits)

  def tap(self, name: str, x: jax.Array) -> jax.Array:
    """Keeps the output of a block, in the collection 'intermediates'."""
    self.sow('intermediates', name, x)
    return x


@dataclasses.dataclass(frozen=True)
class Variant:
  """How an implementation of the metrics makes the input of the network.

  Attributes:
    resize: a kind of `layers.resize`.
    centre, unit: the input is (pixel - centre) / unit, with pixels of 0 to 255.
  """

  resize: str
  centre: float
  unit: float


# Sources: openai/guided-diffusion, evaluations/evaluator.py, whose graph resizes
# inside; mseitzer/pytorch-fid, inception.py; toshas/torch-fidelity,
# feature_extractor_inceptionv3.py.
VARIANTS = {
  'adm': Variant('bilinear-tf1', 128.0, 128.0),
  'pytorch-fid': Variant('bilinear', 127.5, 127.5),
  'torch-fidelity': Variant('bilinear-tf1', 128.0, 128.0),
}


@dataclasses.dataclass(frozen=True)
class Inception(FeatureNetwork):
  """Features of the 2015 Inception network.

  Attributes:
    path: a file that `importers.inception` reads.
    variant: the implementation whose features these are.
  """

  variant: Literal['adm', 'pytorch-fid', 'torch-fidelity'] = 'adm'

  @property
  def name(self) -> str:
    return f'inception-{self.variant}'

  @property
  def resize(self) -> str:
    return VARIANTS[self.variant].resize

  def params(self) -> Any:
    return importer.read(self.file(), shapes())

  def prepare(self, images: jax.Array) -> jax.Array:
    return prepare(VARIANTS[self.variant], images)

  def taps(self, params: Any, x: jax.Array) -> Features:
    found = taps(params, x)
    return Features(found.pool, found.spatial, found.unbiased)


def shapes() -> Any:
  """Tree of the shapes of the parameters."""
  x = jnp.zeros((1, SIDE, SIDE, 3))
  return jax.eval_shape(Network().init, jax.random.key(0), x)['params']


@functools.partial(jax.jit, static_argnums=0)
def prepare(variant: Variant, images: jax.Array) -> jax.Array:
  """(b, H, W, 3) pixels of 0 to 255 -> (b, 299, 299, 3) float32."""
  x = resize(images.astype(jnp.float32), (SIDE, SIDE), variant.resize)
  return (x - variant.centre) / variant.unit


@jax.jit
def taps(params: Any, x: jax.Array) -> Any:
  """`Taps` by one program, which all variants and sizes of images share."""
  return Network().apply({'params': params}, x)
