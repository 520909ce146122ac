"""The first stage of a legacy TiTok: another tokenizer's codes for pixels."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from arvision.structs import Template
from arvision.tasks.base import Batch, Metrics, TrainState
from arvision.tasks.tokenizer import TrainTokenizer, pick


@dataclasses.dataclass(frozen=True, eq=False)
class TrainProxy(TrainTokenizer):
  """Cross entropy of the teacher's codes under the tokenizer's logits.

  The decoder of the teacher is taken over as it is, for the second stage to
  train (`TrainTokenizer`, started from this run).

  Source: arXiv 2406.07550 (proxy codes).

  Attributes:
    teacher: template of the tokenizer whose codes are predicted.
    teacher_workdir: folder of the run that trained it.
    frozen: {'teacher': its variables}.
  """

  teacher: Template | None = None
  teacher_workdir: str = ''

  def _fresh(self, key, image):
    params = super()._fresh(key, image)
    theirs = self.frozen['teacher']['params']
    taken = {'pixel_dec': theirs['dec'], 'pixel_codebook': theirs['codebook']}

    def put(own, value):
      boxed = isinstance(own, nn.meta.AxisMetadata)
      return own.replace_boxed(jnp.asarray(value)) if boxed else value

    is_box = lambda x: isinstance(x, nn.meta.AxisMetadata)
    for name, tree in taken.items():
      params[name] = jax.tree.map(put, params[name], tree, is_leaf=is_box)
    return params

  def _loss(self, params, state, image, draw, chosen, piece):
    size = image.shape[0]
    logits, out = self.tokenizer.apply(
      {'params': params['tokenizer']},
      image,
      train=True,
      rngs={'dropout': draw.key('task/dropout')},
      method='proxy',
    )
    each, right = self._proxy(state, image, logits)
    total = jnp.sum(each)
    metrics = {'proxy': total, 'proxy_accuracy': jnp.sum(right)}
    for name, value in out.losses.items():
      metrics[name] = size * value
      total += size * value
    metrics['loss'] = total
    metrics['counts'] = self._counts(out.codes)
    if self.restart_after:
      metrics['fresh'] = pick(out.features, chosen, piece)
    return total, (jnp.float32(size), metrics)

  def _proxy(self, state, image, logits):
    """(b,) cross entropy in nats and share of right codes, means over places."""
    codec: Any = self.teacher().bind(state.frozen['teacher'])
    wanted = codec.encode(image).values
    flat = logits.reshape(*wanted.shape, -1)
    loss = optax.softmax_cross_entropy_with_integer_labels(flat, wanted)
    right = jnp.argmax(flat, -1) == wanted
    return jnp.mean(loss, -1), jnp.mean(right.astype(jnp.float32), -1)

  def evaluate(self, state: TrainState, params: Any, batch: Batch) -> Metrics:
    image = batch['image']
    weight = batch.get('weight', jnp.ones(image.shape[0], jnp.float32))
    sums = super().evaluate(state, params, batch)
    logits, _ = self.tokenizer.apply(
      {'params': params['tokenizer']}, image, method='proxy'
    )
    each, right = self._proxy(state, image, logits)
    sums['loss'] = jnp.sum(weight * each)
    return {**sums, 'proxy_accuracy': jnp.sum(weight * right)}
