"""The released weights of NAR.

Source: ThisisBillhe/NAR, NAR-images/autoregressive/models/gpt.py.
"""

from arvision.importers import llamagen
from arvision.importers.table import Row, dense

_TRUNK = 'backbone/stack/layers/block/norm1/scale'


class Transformer(llamagen.Transformer):
  """LlamaGen's keys; the layers of the further branch follow the trunk's."""

  name = 'NAR transformer'

  def rows(self, ours):
    table = [
      *super().rows(ours),
      *llamagen.blocks('backbone/stack_1', first=ours[_TRUNK][0]),
      Row('backbone/norm_1/scale', 'medusa_norm.weight'),
      *dense('head/linear_1', 'medusa_output', bias=False),
    ]
    return [row for row in table if row.path in ours]
