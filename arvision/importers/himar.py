"""The released weights of Hi-MAR.

Source: HiDream-ai/himar, models/himar.py, models/diffloss.py and models/models.py.
"""

import dataclasses

import numpy as np

from arvision.importers import mar
from arvision.importers.table import Identity, Linear, Row, block, dense

_DENSE = 'cond_diffloss.net'
_POSITIONS, _UNUSED = f'{_DENSE}.pos_embed', f'{_DENSE}.c_pos_embed'
# Official number of our gates, scales and shifts.
_ADALN = (2, 5, 1, 4, 0, 3)


@dataclasses.dataclass(frozen=True)
class PerStage:
  """torch's (stages, 1, 1, 4 d) -> (stages, 4, d)."""

  def shape(self, ours):
    return ours[0], 1, 1, int(np.prod(ours[1:]))

  def inward(self, w, ours):
    return w.reshape(ours)

  def outward(self, p):
    return p.reshape(self.shape(p.shape))


class Transformer(mar.Transformer):
  """`checkpoint-last.pth` of himar_base, himar_large and himar_huge."""

  name = 'Hi-MAR transformer'
  hints = (
    (r'^cond_diffloss\.', 'config.head.later.depth, width and grid'),
    (r'^diffloss\.', 'config.head.first.depth, width and channels'),
    (r'^cond_(proj|tokens)', 'config.layout.scales'),
    *(hint for hint in mar.Transformer.hints if 'diffloss' not in hint[0]),
  )

  head_path = 'head/pivots'

  def rows(self, ours):
    table = [
      *super().rows(ours),
      *dense('backbone/input_small/linear', 'cond_proj'),
      *dense('backbone/recalled', 'cond_z_proj'),
      Row('backbone/unknown', 'cond_tokens', Identity(1)),
    ]
    for end, half in (('', 'encoder'), ('_second', 'decoder')):
      stage, adaln = f'backbone/stage{end}', f'stack{end}/layers/block/adaln'
      theirs = f'{half}_blocks.{{i}}.adaLN'
      table += [
        Row(f'{stage}/entity/table', f'{half}_task_emb.weight'),
        *dense(f'{stage}/linear', f'{half}_blocks_ada.1'),
        Row(f'backbone/{adaln}/factor', f'{theirs}_scale', PerStage()),
        Row(f'backbone/{adaln}/offset', f'{theirs}_shift', PerStage()),
      ]
    return [row for row in table if row.path in ours]

  def head(self, ours):
    own, blocks = 'head/dense', f'{_DENSE}.blocks.{{i}}'
    mine, last = f'{own}/stack/layers/block', f'{_DENSE}.final_layer'
    adaln = f'{blocks}.adaLN_modulation.1'
    return [
      *super().head(ours),
      *_pointwise(f'{own}/input', f'{_DENSE}.x_embedder.proj'),
      *_pointwise(f'{own}/cond', f'{_DENSE}.c_embedder.proj'),
      Row(f'{own}/position_fixed', _POSITIONS, Identity(1)),
      *dense(f'{own}/level/fc1', f'{_DENSE}.t_embedder.mlp.0'),
      *dense(f'{own}/level/fc2', f'{_DENSE}.t_embedder.mlp.2'),
      *block(ours, mine, blocks),
      *dense(f'{mine}/adaln/linear', adaln, chunks=_ADALN),
      *dense(f'{own}/last_adaln', f'{last}.adaLN_modulation.1'),
      *dense(f'{own}/linear', f'{last}.linear'),
    ]

  def buffers(self, weights, grids):
    # A table of zeros that the official code never reads.
    return {_UNUSED: np.zeros_like(weights[_POSITIONS])}

  def derived(self, key):
    return key == _UNUSED


def _pointwise(path, key):
  """Rows of a convolution of 1 x 1 places."""
  yield Row(f'{path}/kernel', f'{key}.weight', Linear(after=2))
  yield Row(f'{path}/bias', f'{key}.bias', Linear(0))
