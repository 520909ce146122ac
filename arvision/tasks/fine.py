"""Training the fine stage of a coarse-to-fine tokenizer (CTF)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from arvision.metrics import Mean, Metric, Term
from arvision.random import Draw
from arvision.structs import Reconstruction, Template
from arvision.tasks.base import (
  Batch,
  Frozen,
  Objective,
  TrainState,
  inputs_of,
)
from arvision.tasks.proxy import teacher_params, with_copies
from arvision.tasks.tokenizer import TrainTokenizer


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TrainFine(TrainTokenizer):
  """Trains a network to predict codes given their clusters, by cross entropy.

  The autoencoder and its codes are copied from a trained tokenizer, and the codes
  are clustered once, at the start.

  Source: arXiv 2503.16194 (CTF).

  Attributes:
    tokenizer: a `tokenizers.coarse_to_fine.CoarseToFine`.
    teacher: template of the trained tokenizer.
    frozen: {'teacher': variables of the trained tokenizer}.
  """

  teacher: Template

  binds = ('teacher',)

  def _fresh(self, key, image):
    params = super()._fresh(key, image)
    theirs = teacher_params(self.frozen)
    params = with_copies(params, theirs)
    codes: Any = self.teacher().bind({'params': theirs}).quant.codes
    # The keys of the parameters are folded from paths, so this one is free.
    key = jax.random.fold_in(key, 1)
    cluster = self.tokenizer.clustering(key, codes, self.tokenizer.clusters)
    return with_copies(params, {'cluster_fixed': jnp.float32(cluster)})

  def rows(self, state: TrainState, frozen: Frozen, batch: Batch) -> Batch:
    return {'image': batch['image'], 'inputs': self._inputs(batch)}

  def _inputs(self, batch):
    keys = self.tokenizer.blank(1)
    return inputs_of(batch, keys, 'tokenizer.condition')

  def objective(
    self,
    params: Any,
    state: TrainState,
    frozen: Frozen,
    rows: Batch,
    draw: Draw,
  ) -> Objective:
    image = rows['image']
    loss, metrics, coarse = self.tokenizer.apply(
      {'params': params['tokenizer']},
      image,
      rows['inputs'],
      draw,
      train=True,
      rngs={'dropout': draw.key('task/dropout')},
      method='fine_loss',
    )
    out = Reconstruction(image, losses={}, codes=coarse)
    return Objective(
      {'fine': Term(loss)},
      metrics={k: Mean.of(v) for k, v in metrics.items()},
      aux=self._codes(state, rows, out),
    )

  def evaluate(
    self, params: Any, frozen: Frozen, batch: Batch
  ) -> dict[str, Metric]:
    image, weight = batch['image'], batch.get('weight', 1.0)
    draw = Draw.create(self.seed, jnp.arange(len(image)))
    loss, metrics, _ = self.tokenizer.apply(
      {'params': params['tokenizer']},
      image,
      self._inputs(batch),
      draw,
      method='fine_loss',
    )
    mean = lambda x: Mean.of(jnp.mean(x, 1), weight)
    return {
      **super().evaluate(params, frozen, batch),
      'loss': mean(loss),
      **{k: mean(v) for k, v in metrics.items()},
    }
