"""Proxy codes: the first training stage of TiTok tokenizers of the paper."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from arvision.errors import ConfigError
from arvision.metrics import Mean, Metric, Term
from arvision.random import Draw
from arvision.structs import Template
from arvision.tasks.base import Batch, Frozen, Objective, TrainState
from arvision.tasks.tokenizer import TrainTokenizer


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TrainProxy(TrainTokenizer):
  """Trains a tokenizer to predict the codes of a teacher, by cross entropy.

  The decoder and the codebook of the teacher are copied. The second stage
  (`TrainTokenizer`, started from this run) trains them.

  Source: arXiv 2406.07550 (proxy codes).

  Attributes:
    teacher: template of the tokenizer whose codes are predicted.
    frozen: {'teacher': variables of the teacher}.
  """

  teacher: Template | None = None

  binds = ('teacher',)

  def _fresh(self, key, image):
    theirs = teacher_params(self.frozen)
    taken = {'pixel_dec': theirs['dec'], 'pixel_quant': theirs['quant']}
    return with_copies(super()._fresh(key, image), taken)

  def objective(
    self,
    params: Any,
    state: TrainState,
    frozen: Frozen,
    rows: Batch,
    draw: Draw,
  ) -> Objective:
    image = rows['image']
    logits, out = self.tokenizer.apply(
      {'params': params['tokenizer']},
      image,
      draw,
      train=True,
      rngs={'dropout': draw.key('task/dropout')},
      method='proxy',
    )
    each, right = self._proxy(frozen, image, logits)
    return Objective(
      {'proxy': Term(each), **self._own(out)},
      metrics={'proxy_accuracy': Mean.of(right), **out.metrics},
      aux=self._codes(state, rows, out),
    )

  def _proxy(self, frozen, image, logits):
    """(b,) cross entropy in nats and accuracy, means over the codes."""
    codec: Any = self.teacher().bind(frozen['teacher'])
    wanted = codec.encode(image).values
    flat = logits.reshape(*wanted.shape, -1)
    loss = optax.softmax_cross_entropy_with_integer_labels(flat, wanted)
    right = jnp.argmax(flat, -1) == wanted
    return jnp.mean(loss, -1), jnp.mean(right.astype(jnp.float32), -1)

  def evaluate(
    self, params: Any, frozen: Frozen, batch: Batch
  ) -> dict[str, Metric]:
    image, weight = batch['image'], batch.get('weight', 1.0)
    logits, _ = self.tokenizer.apply(
      {'params': params['tokenizer']}, image, method='proxy'
    )
    each, right = self._proxy(frozen, image, logits)
    return {
      **super().evaluate(params, frozen, batch),
      'loss': Mean.of(each, weight),
      'proxy_accuracy': Mean.of(right, weight),
    }


def teacher_params(frozen: Frozen) -> Any:
  """Parameters of the teacher; zeros where there are only shapes, in plans."""

  def array(x):
    shape = isinstance(x, jax.ShapeDtypeStruct)
    return jnp.zeros(x.shape, x.dtype) if shape else jnp.asarray(x)

  return jax.tree.map(array, frozen['teacher']['params'])


def with_copies(params: dict[str, Any], taken: dict[str, Any]) -> Any:
  """Boxed parameters with the values of others, under the same names.

  Args:
    params: parameters at the start, boxed with their logical axes.
    taken: name -> arrays.

  Raises:
    ConfigError: arrays of other names or shapes.
  """
  own = nn.unbox({name: params.get(name, {}) for name in taken})
  shapes = lambda tree: {
    jax.tree_util.keystr(path, simple=True, separator='/'): x.shape
    for path, x in jax.tree_util.tree_leaves_with_path(tree)
  }
  theirs, ours = shapes(taken), shapes(own)
  for name in sorted({*theirs, *ours}):
    if theirs.get(name) != ours.get(name):
      raise ConfigError(
        f'config.task.teacher and config.tokenizer do not agree: {name} is '
        f'{theirs.get(name)} in one and {ours.get(name)} in the other'
      )

  def put(own, value):
    boxed = isinstance(own, nn.meta.AxisMetadata)
    return own.replace_boxed(value) if boxed else value

  is_box = lambda x: isinstance(x, nn.meta.AxisMetadata)
  copies = {
    name: jax.tree.map(put, params[name], tree, is_leaf=is_box)
    for name, tree in taken.items()
  }
  return {**params, **copies}
