"""The released weights of FlexVAR's transformer.

Its tokenizer has the keys of LlamaGen's.

Source: jiaosiyu1999/FlexVAR, models/flexvar.py.
"""

from arvision.importers import var
from arvision.importers.table import Grids, Map, Row, Weights


class Transformer(var.Transformer):
  """`FlexVARd16-epo179.pth` and its like: VAR's keys, positions as a map."""

  name = 'FlexVAR transformer'
  hints = (
    *(hint for hint in var.Transformer.hints if 'pos_1LC' not in hint[0]),
    (r'^pos_1LC', 'config.backbone.position.side and config.backbone.width'),
  )

  def rows(self, ours):
    place = Row('backbone/position/map', 'pos_1LC', Map())
    return [*super().rows(ours), place]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    return {
      key: w
      for key, w in super().buffers(weights, grids).items()
      if key != 'lvl_1L'
    }
