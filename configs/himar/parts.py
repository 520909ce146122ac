"""Parts of Hi-MAR (arXiv 2505.20288), shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs.common import block, timm_attention
from arvision.configs.mar import parts as mar

# Names that the published code keeps free of weight decay, besides vectors: those
# with 'diffloss'.
NO_DECAY = mar.NO_DECAY


def pyramid(tokenizer: ConfigDict, scales) -> None:
  """Makes a KL tokenizer encode the image at several sizes."""
  tokenizer.type = 'tokenizers.pyramid.ImagePyramid'
  tokenizer.scales = tuple(scales)
  tokenizer.kind = 'bicubic'
  if 'grid' in tokenizer:
    del tokenizer.grid


def dense_head(
  *, side: int, channels: int, width: int, depth: int, heads: int, hidden: int
) -> ConfigDict:
  """The diffusion transformer over all dense tokens."""
  norm = block(type='layers.norm.LayerNorm')
  return block(
    type='heads.diffusion.EntityDiffusion',
    grid=(side, side),
    channels=channels,
    width=width,
    depth=depth,
    heads=heads,
    block=block(
      type='layers.blocks.Block',
      attention=timm_attention(0.0),
      mlp=block(
        type='layers.blocks.GELU', hidden=hidden, std=None, out_std=None
      ),
      norm=norm,
      adaln=block(type='layers.blocks.AdaLN', std=0.0),
    ),
    last_norm=norm,
    remat='none',
    unroll=1,
  )


def himar(
  config: ConfigDict,
  *,
  scales: tuple[int, int],
  channels: int,
  classes: int | None,
  depth: int,
  second_depth: int,
  width: int,
  heads: int,
  hidden: int,
  head_width: int,
  head_depth: int,
  dense_width: int,
  dense_depth: int,
  dense_heads: int,
  dense_ratio: float = 4.0,
  prefix: int = 64,
  dropout: float = 0.1,
  repeats: int = 4,
  first_steps: int | None = None,
  steps: int = 4,
  diffusion_steps: int = 100,
  dense_diffusion_steps: int = 250,
  first_guidance: float = 2.7,
  guidance: float = 2.5,
  temperature: float = 1.0,
) -> None:
  """The six parts of Hi-MAR: pivots one by one, then all dense tokens together.

  Args:
    config: to fill.
    scales: sides of the grids of pivots and of dense tokens.
    channels: of the latent.
    classes: number of classes; None: that of the data.
    depth, second_depth: layers of the two halves.
    width, heads, hidden: of both halves.
    head_width, head_depth: of the MLP for pivots.
    dense_width, dense_depth, dense_heads: of the transformer for dense tokens.
    dense_ratio: inner width of its MLPs, as a multiple of its width.
    prefix: slots of the class in each stage.
    dropout: of both halves.
    repeats: times that a token is trained on.
    first_steps: of the loop over pivots; None: 4 for a side of their grid.
    steps: of the loop over dense tokens (Hi-MAR's num_iter).
    diffusion_steps, dense_diffusion_steps: of the two heads.
    first_guidance: scale at the end of the pivots (Hi-MAR's re_cfg).
    guidance: scale at the end of the dense tokens (its cfg).
    temperature: of the noise of both heads.
  """
  config.release = block(type='importers.himar.Transformer')
  config.layout = block(
    type='layouts.stages.stages', scales=tuple(scales), prefix=prefix
  )
  config.feed = block(
    type='feeds.stages.Stages',
    first=block(type='feeds.mask.Dropped', lowest=0.7, group=64),
    later=block(type='feeds.stages.Scheduled', schedule='cosine', group=64),
    # Shares of 64 and 256 of 320 tokens, times 2.0 and 0.75, as published.
    weights=(0.4, 0.6),
    recall=0.25,
    warmup=0.25,
  )
  transformer = mar.transformer(
    width=width, depth=depth, heads=heads, hidden=hidden, dropout=dropout
  )
  transformer['block'].adaln = block(type='layers.entity_adaln.EntityAdaLN')
  config.backbone = block(
    type='backbones.stages.Stages',
    body=block(
      type='backbones.encoder_decoder.MaskedStages',
      depth=second_depth,
      out_position=True,
    ),
    **transformer,
  )
  pivots = mar.head(
    channels=channels,
    width=head_width,
    depth=head_depth,
    repeats=repeats,
    diffusion_steps=diffusion_steps,
  )
  dense = dense_head(
    side=scales[-1],
    channels=channels,
    width=dense_width,
    depth=dense_depth,
    heads=dense_heads,
    hidden=int(dense_ratio * dense_width),
  )
  dense.update(
    repeats=repeats,
    counts=block(
      type='process.counts.ConstantSteps', count=dense_diffusion_steps
    ),
  )
  config.head = block(type='heads.stages.Stages', first=pivots, later=dense)
  config.condition = block(
    type='layers.condition.ClassPerStage',
    classes=classes,
    width=width,
    prefix=prefix,
    stages=2,
    rate=0.1,
  )
  config.sampler = block(
    type='samplers.stages.Stages',
    first_steps=first_steps or 4 * scales[0],
    first_guidance=block(type='process.guidance.Linear', end=first_guidance),
    steps=steps,
    schedule='cosine',
    buckets=8,
    guidance=block(type='process.guidance.Linear', end=guidance),
    logits_filter=block(
      type='process.logits.LogitsFilter', temperature=temperature
    ),
  )
