"""The released weights of HMAR, and those of its two training stages.

Source: NVlabs/HMAR, models/hmar.py, models/nsp.py and models/mp.py.
"""

from arvision.importers import var
from arvision.importers.table import Row

_LAST, _MASKED = 'backbone/stack_last', 'backbone/stack_last_masked'


class NextScale(var.Transformer):
  """What the first stage saves: VAR's keys."""

  name = 'HMAR next-scale network'
  hints = (
    *var.Transformer.hints,
    (r'^(base|ns)_blocks\.', "a config without '_nsp' reads the whole of HMAR"),
  )

  def rows(self, ours):
    trunk = _depth(ours, var.STACK)
    table = [
      *self.shared(),
      *var.blocks(var.STACK, 'blocks'),
      *var.blocks(_LAST, 'blocks', trunk),
      *var.ends('', ''),
    ]
    return [row for row in table if row.path in ours]

  def sees(self, q, k):
    return q == k


class Masked(NextScale):
  """What the second stage saves: VAR's keys and those of masked tokens."""

  name = 'HMAR network of masked tokens'

  def rows(self, ours):
    trunk = _depth(ours, var.STACK)
    table = [
      *_own(self.shared()),
      *var.blocks(var.STACK, 'blocks'),
      *var.blocks(_MASKED, 'blocks', trunk),
      *var.ends('_masked', ''),
    ]
    return [row for row in table if row.path in ours]


class Transformer(NextScale):
  """`hmar-d16.pth` and its like: both networks, with a trunk that they share.

  Attributes:
    files: tables of the files of both stages, which together hold the same.
  """

  name = 'HMAR'
  hints = (
    *(h for h in var.Transformer.hints if not h[0].startswith(r'^blocks')),
    (r'_blocks\.', 'config.backbone.depth, width, heads and body.last'),
    (
      r'^blocks\.',
      'the file is of one of the two stages; give those of both, --source twice',
    ),
  )
  files = NextScale(), Masked()

  def rows(self, ours):
    table = [
      *_own(self.shared()),
      *var.blocks(var.STACK, 'base_blocks'),
      *var.blocks(_LAST, 'ns_blocks'),
      *var.blocks(_MASKED, 'mask_blocks'),
      *var.ends('', 'ns_'),
      *var.ends('_masked', 'mask_'),
    ]
    return [row for row in table if row.path in ours]


def _own(rows):
  """Rows of VAR's, and what networks with masked tokens name otherwise."""
  bias = 'backbone/input/linear/bias'
  yield from (row for row in rows if row.path != bias)
  yield Row(bias, 'word_embed_bias')
  yield Row('backbone/input/masked', 'mask_embed.weight')


def _depth(ours, stack):
  """Layers of a stack, 0 where there is none."""
  found = [shape[0] for path, shape in ours.items() if f'{stack}/' in path]
  return found[0] if found else 0
