"""The released weights of VAR: its transformer and its tokenizer.

Source: FoundationVision/VAR, models/var.py and models/vqvae.py.
"""

import dataclasses
import re
from collections.abc import Iterator

import numpy as np

from arvision.importers import autoencoder
from arvision.importers.table import (
  Grids,
  Identity,
  Linear,
  Row,
  Weights,
  dense,
)

STACK = 'backbone/stack'


class Transformer:
  """`var_d16.pth` and its like, with an adaLN of every block or a shared one."""

  name = 'VAR transformer'
  wrapping = ''
  hints: tuple[tuple[str, str], ...] = (
    (r'shared_ada_lin|ada_gss', 'config.backbone.shared_adaln'),
    (r'^blocks\.', 'config.backbone.depth, width and heads'),
    (r'^class_emb', 'config.condition.classes'),
    (r'^head\.', 'config.head.vocab_size'),
    (r'^(pos_1LC|lvl_embed)', 'config.layout.scales'),
    (r'^word_embed', 'config.tokenizer.quantizer.channels'),
  )

  def rows(self, ours):
    table = [*self.shared(), *blocks(STACK, 'blocks'), *ends('', '')]
    return [row for row in table if row.path in ours]

  def shared(self) -> Iterator[Row]:
    """Rows of what is neither in a block nor behind all of them."""
    yield from [
      Row('condition/label/table', 'class_emb.weight'),
      Row('condition/start', 'pos_start', Identity(before=1)),
      *dense('backbone/input/linear', 'word_embed'),
      Row('backbone/position/slot', 'pos_1LC', Identity(before=1)),
      Row('backbone/position/entity', 'lvl_embed.weight'),
      *dense('backbone/shared_adaln/linear', 'shared_ada_lin.1'),
    ]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    areas = [height * width for height, width in grids]
    level = np.repeat(np.arange(len(areas)), areas)
    hidden = np.where(self.sees(level[:, None], level), 0, -np.inf)
    biases = [key for key in weights if key.endswith('.q_bias')]
    return {
      'lvl_1L': level[None],
      'attn_bias_for_masking': hidden[None, None].astype(np.float32),
      **{
        key.replace('q_bias', 'zero_k_bias'): np.zeros_like(weights[key])
        for key in biases
      },
    }

  def sees(self, q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Whether a token of scale q sees those of scale k."""
    return q >= k

  def derived(self, key: str) -> bool:
    return key in ('lvl_1L', 'attn_bias_for_masking') or key.endswith(
      '.zero_k_bias'
    )


def blocks(path: str, key: str, first: int = 0) -> Iterator[Row]:
  """Rows of a stack of blocks.

  Args:
    path: of the stack.
    key: of the official blocks, without their number.
    first: number of the first one.
  """
  block = f'{path}/layers/block'
  attention, adaln = f'{block}/attention', f'{block}/adaln'
  flat, scale = Identity(flat=True), Identity(before=1, after=2)
  key = f'{key}.{{i}}'
  rows = [
    Row(f'{adaln}/offset', f'{key}.ada_gss', Identity(before=2)),
    *dense(f'{adaln}/linear', f'{key}.ada_lin.1'),
    Row(f'{attention}/qkv/kernel', f'{key}.attn.mat_qkv.weight', Linear()),
    Row(f'{attention}/q_bias', f'{key}.attn.q_bias', flat),
    Row(f'{attention}/v_bias', f'{key}.attn.v_bias', flat),
    Row(f'{attention}/logits/log_scale', f'{key}.attn.scale_mul_1H11', scale),
    *dense(f'{attention}/out', f'{key}.attn.proj', inputs=2),
    *dense(f'{block}/mlp/fc1', f'{key}.ffn.fc1'),
    *dense(f'{block}/mlp/fc2', f'{key}.ffn.fc2'),
  ]
  yield from (dataclasses.replace(row, first=first) for row in rows)


def ends(ours: str, theirs: str) -> Iterator[Row]:
  """Rows of the last norm and the head.

  Args:
    ours: what our names end with.
    theirs: what the official ones begin with.
  """
  yield from dense(f'backbone/norm{ours}/adaln', f'{theirs}head_nm.ada_lin.1')
  yield from dense(f'head/linear{ours}', f'{theirs}head')


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """`vae_ch160v4096z32.pth`.

  Attributes:
    own_phi: whether every scale has a phi of its own, config.tokenizer.phi_share
      is 0; those have other keys.
  """

  own_phi: bool = False

  name = 'VAR tokenizer'
  wrapping = ''
  hints = (
    (
      r'^quantize\.embedding',
      'config.tokenizer.quantizer: vocab_size and channels',
    ),
    (r'^quantize\.quant_resi', 'config.tokenizer.phi_share'),
    (
      r'(down|up)\.\d',
      'config.tokenizer.encoder and decoder: ch_mult, res_blocks',
    ),
    (r'conv_(in|out)', 'config.tokenizer.encoder and decoder: ch, channels'),
  )

  def rows(self, ours):
    # One phi for all scales has no number.
    phi = r'qresi_ls.\1' if 'phi_1/kernel' in ours else 'qresi'
    if self.own_phi:
      phi = r'\1'

    def rename(name):
      name = re.sub(r'^phi_(\d+)', rf'quantize.quant_resi.{phi}', name)
      return autoencoder.ldm(name)

    return [
      Row('quant/codebook', 'quantize.embedding.weight'),
      *autoencoder.rows(ours, rename, fused_qkv=True),
    ]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    codes = len(weights['quantize.embedding.weight'])
    hits = np.zeros((len(grids), codes), np.float32)
    return {'quantize.ema_vocab_hit_SV': hits}

  def derived(self, key: str) -> bool:
    return key == 'quantize.ema_vocab_hit_SV'
