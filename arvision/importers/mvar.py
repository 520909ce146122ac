"""The released weights of M-VAR's transformer. Its tokenizer is VAR's.

Source: OliverRensu/MVAR, models/mvar.py; state-spaces/mamba, modules/mamba2.py.
"""

import dataclasses
import re

import numpy as np

from arvision.importers import var
from arvision.importers.table import (
  Grids,
  Identity,
  Linear,
  Row,
  Weights,
  dense,
)


@dataclasses.dataclass(frozen=True)
class Depthwise:
  """torch's (channels, 1, length) -> (length, *channels)."""

  def shape(self, ours):
    return int(np.prod(ours[1:])), 1, ours[0]

  def inward(self, w, ours):
    return w[:, 0].T.reshape(ours)

  def outward(self, p):
    return p.reshape(len(p), -1).T[:, None]


class Transformer(var.Transformer):
  """`d32.pth` and its like: VAR's keys, and those of a Mamba-2 in every block."""

  name = 'M-VAR transformer'
  hints = (
    (r'mamba\.', 'config.backbone.block.mixer: state, head, conv and expand'),
    (r'scale_mul_1H11', 'config.backbone.block.attention.logits'),
    *var.Transformer.hints,
  )

  def rows(self, ours):
    path, key = f'{var.STACK}/layers/block/mixer', 'blocks.{i}.mamba'
    size = lambda name: int(np.prod(ours.get(f'{path}/{name}', (0, 0))[1:]))
    heads, inner, bc = size('dt_bias'), size('norm/scale'), size('conv_bc_bias')
    total = 2 * inner + bc + heads

    def projection(name, start):
      # z, x, B, C and dt share one official matrix.
      return Row(
        f'{path}/{name}/kernel',
        f'{key}.in_proj.weight',
        Linear(),
        start,
        total,
      )

    def conv(name, start):
      own = start, inner + bc
      kernel = f'{path}/conv_{name}_kernel', f'{key}.conv1d.weight'
      yield Row(*kernel, Depthwise(), *own)
      bias = f'{path}/conv_{name}_bias', f'{key}.conv1d.bias'
      yield Row(*bias, Identity(flat=True), *own)

    mixer = [
      projection('zx', 0),
      projection('bc', 2 * inner),
      projection('dt', 2 * inner + bc),
      *conv('x', 0),
      *conv('bc', inner),
      Row(f'{path}/dt_bias', f'{key}.dt_bias'),
      Row(f'{path}/log_a', f'{key}.A_log'),
      Row(f'{path}/skip', f'{key}.D'),
      Row(f'{path}/norm/scale', f'{key}.norm.weight'),
      *dense(f'{path}/out', f'{key}.out_proj', inputs=2, bias=False),
    ]
    return [*super().rows(ours), *(row for row in mixer if row.path in ours)]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    areas = np.array([h * w for h, w in grids], np.int32)
    found = super().buffers(weights, grids)
    own = {
      re.sub(r'zero_k_bias$', 'patch_nums', k): areas
      for k in found
      if k.endswith('.zero_k_bias')
    }
    return found | own

  def sees(self, q, k):
    return q == k

  def derived(self, key: str) -> bool:
    return super().derived(key) or key.endswith('.attn.patch_nums')
