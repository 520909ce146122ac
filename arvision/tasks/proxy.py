"""Proxy codes: the first training stage of TiTok tokenizers of the paper."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

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
    params = super()._fresh(key, image)
    theirs = self.frozen['teacher']['params']
    taken = {'pixel_dec': theirs['dec'], 'pixel_quant': theirs['quant']}

    def put(own, value):
      boxed = isinstance(own, nn.meta.AxisMetadata)
      return own.replace_boxed(jnp.asarray(value)) if boxed else value

    is_box = lambda x: isinstance(x, nn.meta.AxisMetadata)
    for name, tree in taken.items():
      params[name] = jax.tree.map(put, params[name], tree, is_leaf=is_box)
    return params

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
