"""Parts of xAR (arXiv 2502.20388), shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs.common import block, timm_attention

ENTITIES = ('cell', 'token', 'subsample', 'scale', 'image')
# What an entity sees of its past in training -> the feed that shows it.
CONTEXTS = {
  'independent': 'Noise',
  'clean': 'CleanPast',
  'rising': 'Rising',
  'falling': 'Falling',
}


def xar(
  config: ConfigDict,
  *,
  grid: tuple[int, int],
  channels: int,
  classes: int | None,
  depth: int,
  width: int,
  heads: int,
  hidden: int,
  entity: str = 'cell',
  side: int = 8,
  scales: tuple[int, ...] = (),
  context: str = 'independent',
  steps: int = 50,
  guidance: float = 1.0,
  dropout: float = 0.1,
) -> None:
  """The six parts of xAR, for any entity X of an autoregressive step.

  Args:
    config: to fill; it has a block of a KL tokenizer, which entities of scales
      make one that gives the latent at several sizes.
    grid: (height, width) of the latent.
    channels: of the latent.
    classes: of the condition, None for those of the data.
    depth: layers of each half.
    width: d.
    heads: of the attention.
    hidden: inner width of the MLP.
    entity: one of `ENTITIES`: squares of neighbours; single tokens; phases of
      the grid; the latent at several sizes; the whole latent.
    side: of a cell in tokens. A phase has as many tokens as a cell.
    scales: sides of the latent at its sizes, small to large.
    context: one of `CONTEXTS`: the past of an entity has independent noise,
      none, less noise than the entity, or more.
    steps: of the solver, per entity.
    guidance: scale at the last entity; it grows linearly from 1 at the first.
      An entity without others has it from the start.
    dropout: rate in attention and MLP.

  Raises:
    ValueError: an entity that is not known.
  """
  config.layout = _layout(grid, entity, side, scales)
  if entity == 'scale':
    del config.tokenizer['grid']
    config.tokenizer.update(
      type='tokenizers.pyramid.Pyramid', scales=scales, kind='nearest'
    )
  feed = f'feeds.noise.{CONTEXTS[context]}'
  config.feed = block(type=feed, levels='logit_normal')
  weighted = block(type='layers.norm.RMSNorm', epsilon=1e-6)
  config.backbone = block(
    type='backbones.decoder.Decoder',
    width=width,
    depth=depth,
    heads=heads,
    input=block(type='backbones.decoder.VectorInput', std=None),
    block=block(
      type='layers.blocks.Block',
      attention=timm_attention(dropout),
      mlp=block(
        type='layers.blocks.GeGLU',
        hidden=hidden,
        std=None,
        out_std=None,
        dropout=dropout,
        inner_dropout=dropout,
      ),
      norm=block(type='layers.norm.RMSNorm', epsilon=1e-6, use_scale=False),
      adaln=block(type='layers.blocks.AdaLN', std=None),
    ),
    last_norm=weighted,
    body=block(
      type='backbones.encoder_decoder.EncoderDecoder', depth=depth, std=None
    ),
    embedding_norm=weighted,
    position=block(type='layers.position.Learned'),
    rotary=block(type='layers.position.Rotary'),
    remat='none',
    unroll=1,
  )
  if entity == 'cell' and context != 'clean':
    # What is released are cells; `heads` is written once, in the backbone.
    config.release = block(
      type='importers.xar.Transformer', heads=config.backbone.get_ref('heads')
    )
  config.head = block(
    type='heads.velocity.Velocity', channels=channels, std=None
  )
  config.condition = block(
    type='layers.condition.ClassAndLevel',
    classes=classes,
    width=width,
    drop=0.1,
  )
  schedule = block(type='process.guidance.Linear', end=guidance)
  if entity == 'image':
    schedule = block(type='process.guidance.Constant', scale=guidance)
  config.sampler = block(
    type='samplers.refine.Refine',
    guidance=schedule,
    counts=block(type='process.counts.Falling', first=steps, last=steps),
    solver=block(type='process.flow.EulerMaruyama', lowest=0.04),
  )
  if context == 'clean':
    config.layout = block(
      type='layouts.sequence.two_stream',
      layout=config.layout.copy_and_resolve_references(),
    )
    config.backbone.position = block(type='layers.position.PerToken')


def _layout(grid, entity, side, scales):
  height, width = grid
  if entity == 'scale':
    return block(type='layouts.scales.scales', scales=scales, start=False)
  if entity == 'subsample':
    # Members of a phase lie as far apart as there are cells on a side.
    stride = (height // side, width // side)
    return block(
      type='layouts.grid.subsample', height=height, width=width, stride=stride
    )
  cells = {'cell': (side, side), 'token': (1, 1), 'image': grid}
  if entity not in cells:
    raise ValueError(
      f"no entity '{entity}' in xAR; there are: {', '.join(ENTITIES)}"
    )
  return block(
    type='layouts.grid.cells', height=height, width=width, cell=cells[entity]
  )
