"""Parts of RAR, shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs.common import block

# Names that the published code keeps free of weight decay.
NO_DECAY = ('position/', 'condition/steps', 'table')


def rar(
  config: ConfigDict,
  *,
  grid: tuple[int, int],
  vocab_size: int,
  classes: int | None,
  depth: int,
  width: int,
  heads: int,
  hidden: int,
  dropout: float = 0.1,
  guidance: float = 4.0,
  power: float = 1.0,
  temperature: float = 1.0,
  spare_positions: int = 0,
  spare_steps: int = 0,
) -> None:
  """The six parts of RAR (arXiv 2411.00776): next token in random orders.

  Published tables of positions and of steps are longer than what is used of
  them; `spare_positions` and `spare_steps` say by how much.
  """
  tokens = grid[0] * grid[1]
  config.release = block(type='importers.rar.Transformer')
  config.layout = block(
    type='layouts.grid.raster',
    height=grid[0],
    width=grid[1],
    prefix=2,
    longest=64,
  )
  config.feed = block(type='feeds.shift.Permuted', start=0.5, end=0.75)
  affine = block(type='layers.norm.AffineLayerNorm')
  config.backbone = block(
    type='backbones.decoder.Decoder',
    width=width,
    depth=depth,
    heads=heads,
    input=block(
      type='backbones.decoder.CodeInput', vocab_size=vocab_size, extra=1
    ),
    block=block(
      type='layers.blocks.Block',
      attention=block(
        type='layers.attention.Attention',
        kernel='auto',
        logits=block(type='layers.attention.Normed', norm=affine),
        biases=('q', 'k', 'v', 'out'),
        dropout=dropout,
        weights_dropout=dropout,
      ),
      mlp=block(type='layers.blocks.ExactGELU', hidden=hidden, dropout=dropout),
      norm=affine,
      adaln=block(type='layers.blocks.AdaLN', std=0.0),
    ),
    last_norm=block(
      type='layers.norm.ModulatedNorm',
      norm=block(type='layers.norm.LayerNorm'),
      std=0.0,
    ),
    position=block(
      type='layers.position.Aimed', rows=tokens + 2 + spare_positions
    ),
    remat='none',
    unroll=1,
  )
  config.head = block(
    type='heads.categorical.Categorical',
    vocab_size=vocab_size,
    label_smoothing=0.0,
  )
  config.condition = block(
    type='layers.condition.ClassLabel',
    classes=classes,
    width=width,
    prefix=1,
    tokens=1,
    steps=tokens + 2 + spare_steps,
    modulate=True,
    drop=0.1,
  )
  config.sampler = block(
    type='samplers.entity.EntityAR',
    guidance=block(
      type='process.guidance.PowerCosine', scale=guidance, power=power
    ),
    logits_filter=block(
      type='process.logits.LogitsFilter', temperature=temperature
    ),
  )
