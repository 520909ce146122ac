"""The released weights of MaskGIT-r, a U-ViT that ReCAP speeds up.

Source: liebenxj/ReCAP, examples/MaskGIT+ReCAP/models/uvit.py.
"""

from arvision.importers.table import (
  Grids,
  Identity,
  Row,
  Weights,
  dense,
  norm,
)
from arvision.importers.titok import uvit_layers


class Transformer:
  """`nnet_ema.pth`."""

  name = 'MaskGIT-r transformer'
  wrapping = ''
  hints = (
    (r'^(in_blocks|mid_block|out_blocks)', 'config.backbone: depth, width'),
    (r'^token_emb\.position', 'config.layout.height and width'),
    (r'^(token_emb|mlm_layer)', 'config.head.vocab_size'),
    (r'^context_embed', 'config.condition.classes'),
  )

  def rows(self, ours):
    tokens, label = 'token_emb', 'context_embed'
    table = [
      Row('backbone/input/codes/table', f'{tokens}.word_embeddings.weight'),
      Row('backbone/position/token', f'{tokens}.position_embeddings.weight'),
      *norm('backbone/embedding_norm', f'{tokens}.LayerNorm'),
      Row('condition/label/table', f'{label}.word_embeddings.weight'),
      Row('condition/start', f'{label}.position_embeddings.weight'),
      *norm('condition/norm', f'{label}.LayerNorm'),
      *uvit_layers(ours),
      *norm('backbone/norm', 'norm'),
      *dense('backbone/output/transform', 'mlm_layer.fc'),
      *norm('backbone/output/norm', 'mlm_layer.ln'),
      Row('backbone/output/bias', 'mlm_layer.bias', Identity(before=2)),
    ]
    return [row for row in table if row.path in ours]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    return {}

  def derived(self, key: str) -> bool:
    return False
