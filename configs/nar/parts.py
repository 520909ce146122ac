"""Parts of NAR, shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs.common import block
from arvision.configs.llamagen import parts as llamagen_parts


def nar(config: ConfigDict, *, grid: tuple[int, int], **sizes) -> None:
  """The six parts of NAR (arXiv 2503.10696), next-diagonal prediction.

  LlamaGen with a layer and a map to logits more, for the token below.

  Args:
    config: to fill.
    grid: height and width in tokens.
    **sizes: of `llamagen`.
  """
  llamagen_parts.llamagen(config, grid=grid, **sizes)
  config.release = block(type='importers.nar.Transformer')
  config.layout = block(
    type='layouts.grid.diagonals', height=grid[0], width=grid[1]
  )
  config.backbone.body = block(type='backbones.bodies.Branches', branches=2)
  config.head.branches = 2
