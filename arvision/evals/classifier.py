"""A small classifier that provides the features of the Fréchet distance.

It is trained once on the training split of the generator's data, and cached.
Its held-out accuracy is reported with every figure: features of a poor
classifier give poor figures.
"""

import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from arvision.data.base import Data
from arvision.errors import ConfigError
from arvision.evals.base import Metrics
from arvision.evals.protocol import size_name


class Network(nn.Module):
  """A plain strided CNN: stem, convolutions of stride 2, two dense layers.

  The stem reduces the image to at most 16 x 16, the convolutions to 4 x 4, so
  that the cost hardly grows with the size of the image.

  Attributes:
    classes: number of outputs.
    width: channels of the stem; every convolution doubles them, up to 128.
    features: width of the last hidden layer, whose activations are the
      features.
    max_side: larger images are resized to this many pixels first.
  """

  classes: int
  width: int = 32
  features: int = 128
  max_side: int = 64

  @nn.compact
  def __call__(self, image: jax.Array, train: bool = False):
    """(b, H, W, C) in [-1, 1] -> (b, features) and logits (b, classes)."""
    norm = functools.partial(
      nn.BatchNorm, use_running_average=not train, momentum=0.9
    )
    x = self._shrink(image)
    fold = -(-max(x.shape[1:3]) // 16)
    kernel = 2 * fold + 1
    x = nn.Conv(self.width, (kernel, kernel), fold)(x)
    x = nn.relu(norm()(x))
    while max(x.shape[1:3]) > 4:
      channels = min(2 * x.shape[-1], 128)
      x = nn.Conv(channels, (3, 3), 2, use_bias=False)(x)
      x = nn.relu(norm()(x))
    x = nn.Dense(self.features)(x.reshape(x.shape[0], -1))
    x = nn.relu(norm()(x))
    return x, nn.Dense(self.classes)(x)

  def _shrink(self, image):
    scale = self.max_side / max(image.shape[1:3])
    if scale >= 1:
      return image
    height, width = (max(1, round(s * scale)) for s in image.shape[1:3])
    shape = (image.shape[0], height, width, image.shape[3])
    return jax.image.resize(image, shape, 'linear', antialias=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
  """A trained network.

  Attributes:
    network: the module.
    variables: parameters and running statistics.
    accuracy: on held-out images, in [0, 1]; None without a held-out split.
    seconds: training time, compilation included.
  """

  network: Network
  variables: Any
  accuracy: float | None
  seconds: float

  def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(b, H, W, C) in [-1, 1] -> features (b, f), logits (b, classes)."""
    features, logits = _apply(self.network, self.variables, image)
    return np.asarray(features), np.asarray(logits)

  @functools.cached_property
  def digest(self) -> str:
    """SHA-256 of the variables in hex."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(self.variables):
      digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()

  def metrics(self, data: Data, dataset: str) -> Metrics:
    """`classifier_accuracy`, if it is known."""
    if self.accuracy is None:
      return {}
    protocol = f'held-out-{dataset}-{size_name(data.shape)}'
    return {f'classifier_accuracy/{protocol}': self.accuracy}


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How the classifier is trained: AdamW with a cosine schedule.

  Attributes:
    images: training examples, repeats counted.
    max_epochs: limits `images` for small data sets.
    batch_size: images per step.
    learning_rate: peak learning rate.
    weight_decay: of AdamW.
    label_smoothing: probability that is spread over all classes.
    shift: largest random shift in pixels; edges are repeated.
    noise: standard deviation of the noise added to images in [-1, 1].
    width, features: see `Network`.
    seed: of all random numbers.
  """

  images: int = 240_000
  max_epochs: int = 32
  batch_size: int = 128
  learning_rate: float = 3e-3
  weight_decay: float = 1e-2
  label_smoothing: float = 0.1
  shift: int = 1
  noise: float = 0.05
  width: int = 32
  features: int = 128
  seed: int = 0

  def network(self, classes: int) -> Network:
    return Network(classes, self.width, self.features)

  def train(
    self, data: Data, say: Callable[[str], None] = lambda text: None
  ) -> Classifier:
    """Trains on the training split and evaluates on the held-out split.

    Args:
      data: images with labels of at least two classes.
      say: called with about ten lines about the progress.

    Raises:
      ConfigError: fewer than two classes.
    """
    if data.num_classes < 2:
      raise ConfigError(
        f'a classifier needs at least 2 classes, the data has '
        f'{data.num_classes}: use a source with labels (for a folder, one '
        'sub-folder per class), or evaluate with --which=reconstruction'
      )
    start = time.time()
    batch_size = min(self.batch_size, data.examples)
    images = min(self.images, self.max_epochs * data.examples)
    steps = max(1, images // batch_size)
    network = self.network(data.num_classes)
    # The default generator takes XLA as long to compile for a CPU as the
    # network.
    key = jax.random.key(self.seed, impl='rbg')
    state = _start(self, network, steps, data.shape, key)
    batches = iter(data.train(batch_size, seed=self.seed))
    for i in range(steps):
      batch = next(batches)
      state, loss = _step(
        self, network, steps, state, batch['image'], batch['label'], key
      )
      if i and i % max(1, steps // 10) == 0:
        speed = (i + 1) * batch_size / (time.time() - start)
        say(
          f'classifier: step {i} of {steps}, loss {float(loss):.3f}, '
          f'{speed:.0f} images/s'
        )
    variables = jax.tree.map(np.asarray, state['variables'])
    trained = Classifier(network, variables, None, 0.0)
    return dataclasses.replace(
      trained,
      accuracy=accuracy(trained, data),
      seconds=time.time() - start,
    )


def accuracy(
  classifier: Classifier, data: Data, batch_size: int = 256
) -> float | None:
  """Accuracy on held-out images, in [0, 1]; None without any."""
  if not data.held_out_examples:
    return None
  right = total = 0.0
  for batch in data.held_out(min(batch_size, data.held_out_examples)):
    logits = classifier(batch['image'])[1]
    hits = np.argmax(logits, axis=-1) == batch['label']
    right += float(np.sum(hits * batch['weight']))
    total += float(np.sum(batch['weight']))
  return right / total if total else None


@functools.partial(jax.jit, static_argnums=0)
def _apply(network, variables, image):
  return network.apply(variables, image)


def _optimizer(recipe, steps):
  schedule = optax.warmup_cosine_decay_schedule(
    recipe.learning_rate / 10, recipe.learning_rate, steps // 10, steps
  )
  return optax.adamw(schedule, weight_decay=recipe.weight_decay)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _start(recipe, network, steps, shape, key):
  variables = network.init(key, jnp.zeros((1, *shape)))
  memory = _optimizer(recipe, steps).init(variables['params'])
  return {
    'variables': variables,
    'optimizer': memory,
    'step': jnp.zeros((), jnp.int32),
  }


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def _step(recipe, network, steps, state, image, label, key):
  params = state['variables']['params']
  statistics = {'batch_stats': state['variables']['batch_stats']}
  key = jax.random.fold_in(key, state['step'])
  image = _augment(image, recipe.shift, recipe.noise, key)

  def loss(params):
    (_, logits), updated = network.apply(
      {'params': params, **statistics}, image, True, mutable=['batch_stats']
    )
    target = optax.smooth_labels(
      jax.nn.one_hot(label, network.classes), recipe.label_smoothing
    )
    return optax.softmax_cross_entropy(logits, target).mean(), updated

  (value, statistics), gradient = jax.value_and_grad(loss, has_aux=True)(params)
  update, memory = _optimizer(recipe, steps).update(
    gradient, state['optimizer'], params
  )
  params = optax.apply_updates(params, update)
  state = {
    'variables': {'params': params, **statistics},
    'optimizer': memory,
    'step': state['step'] + 1,
  }
  return state, value


def _augment(image, shift, noise, key):
  move, disturb = jax.random.split(key)
  border = ((0, 0), (shift, shift), (shift, shift), (0, 0))
  padded = jnp.pad(image, border, mode='edge')
  at = jax.random.randint(move, (image.shape[0], 2), 0, 2 * shift + 1)
  cut = lambda x, i: jax.lax.dynamic_slice(x, (i[0], i[1], 0), image.shape[1:])
  return jax.vmap(cut)(padded, at) + noise * jax.random.normal(
    disturb, image.shape
  )
