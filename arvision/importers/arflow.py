"""The released weights of ARFlow.

Source: TheFllood/ARFlow, models.py.
"""

import dataclasses

import numpy as np

from arvision.importers.table import (
  Grids,
  Identity,
  Linear,
  Row,
  Weights,
  dense,
)
from arvision.ranges import Side

# Ours: gates, scales and shifts of attention and MLP.
_ADALN = (2, 5, 1, 4, 0, 3)


@dataclasses.dataclass(frozen=True)
class _Patches:
  """torch's (out, channels, patch, patch) -> (channels patch², out)."""

  patch: int

  def shape(self, ours):
    return ours[1], ours[0] // self.patch**2, self.patch, self.patch

  def inward(self, w, ours):
    return w.reshape(len(w), -1).T

  def outward(self, p):
    return p.T.reshape(self.shape(p.shape))


@dataclasses.dataclass(frozen=True)
class _Velocity(Linear):
  """Their data - noise, place by place -> noise - data, channel by channel."""

  def inward(self, w, ours):
    return -super().inward(w, ours)

  def outward(self, p):
    return super().outward(-p)


@dataclasses.dataclass(frozen=True)
class Transformer:
  """The checkpoints of its training, which hold the model and an average.

  Attributes:
    patch: side of a token in latents.
  """

  patch: Side

  name = 'ARFlow transformer'
  wrapping = 'ema'
  hints = (
    (r'attn|mlp|adaLN', 'config.backbone.depth, width and heads'),
    (r'^(x_embedder|final_layer\.linear)', 'config.release.patch, the head'),
    (r'^y_embedder', 'config.condition.classes'),
    (r'^pos_embed', 'config.layout'),
  )

  def rows(self, ours):
    theirs = 'blocks.{i}'
    block = 'backbone/stack/layers/block'
    attention = f'{block}/attention'
    names = {
      'decay': 'gt',
      'gate': 'g',
      **{n: n for n in ('q', 'k', 'v', 'out')},
    }
    table = [
      Row('condition/label/table', 'y_embedder.embedding_table.weight'),
      *dense('condition/level/fc1', 't_embedder.mlp.0'),
      *dense('condition/level/fc2', 't_embedder.mlp.2'),
      Row(
        'backbone/input/linear/kernel',
        'x_embedder.proj.weight',
        _Patches(self.patch),
      ),
      Row('backbone/input/linear/bias', 'x_embedder.proj.bias'),
      Row('backbone/position/grid_fixed', 'pos_embed', Identity(before=1)),
      *(
        row
        for name, key in names.items()
        for row in dense(
          f'{attention}/{name}', f'{theirs}.attn.{key}_proj', bias=False
        )
      ),
      *dense(f'{block}/mlp/fc1', f'{theirs}.mlp.fc1'),
      *dense(f'{block}/mlp/fc2', f'{theirs}.mlp.fc2'),
      *dense(
        f'{block}/adaln/linear',
        f'{theirs}.adaLN_modulation.1',
        chunks=_ADALN,
      ),
      *dense(
        'backbone/norm/adaln', 'final_layer.adaLN_modulation.1', chunks=(1, 0)
      ),
    ]
    for name, inputs in (('kernel', 1), ('bias', 0)):
      path = f'head/linear/{name}'
      key = f'final_layer.linear.{"weight" if inputs else "bias"}'
      order = self._order(ours.get(path, (0,))[-1])
      table.append(Row(path, key, _Velocity(inputs, order)))
    return [row for row in table if row.path in ours]

  def _order(self, outputs):
    """Their number of every output of ours: velocities, then what is spare."""
    places = self.patch**2
    theirs = np.arange(outputs).reshape(places, -1)
    return tuple(theirs.T.ravel().tolist())

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    return {}

  def derived(self, key: str) -> bool:
    return False
