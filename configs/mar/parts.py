"""Parts of MAR (arXiv 2406.11838), shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs.common import block, timm_attention

# Names that the published code keeps free of weight decay, besides vectors.
NO_DECAY = ('head/',)


def head(
  *,
  channels: int,
  width: int,
  depth: int,
  repeats: int = 4,
  diffusion_steps: int = 100,
) -> ConfigDict:
  """The block of the diffusion head."""
  return block(
    type='heads.diffusion.Diffusion',
    channels=channels,
    width=width,
    depth=depth,
    repeats=repeats,
    counts=block(
      type='process.counts.Falling', first=diffusion_steps, last=diffusion_steps
    ),
    remat='none',
    unroll=1,
  )


def anneal(config: ConfigDict, first: int = 50, last: int = 5) -> None:
  """Fewer and fewer diffusion steps while images are drawn (DiSA)."""
  config.head.counts.update(first=first, last=last)


def transformer(
  *,
  width: int,
  depth: int,
  heads: int,
  hidden: int,
  dropout: float,
  biases: tuple[str, ...] = ('q', 'k', 'v', 'out'),
) -> dict:
  """What the backbones of MAR and of its causal baseline have in common."""
  norm = block(type='layers.norm.AffineLayerNorm')
  return {
    'width': width,
    'depth': depth,
    'heads': heads,
    'input': block(type='backbones.decoder.VectorInput', std=None),
    'block': block(
      type='layers.blocks.Block',
      attention=timm_attention(dropout, biases),
      mlp=block(
        type='layers.blocks.ExactGELU',
        hidden=hidden,
        std=None,
        out_std=None,
        dropout=dropout,
        inner_dropout=dropout,
      ),
      norm=norm,
    ),
    'last_norm': norm,
    'position': block(type='layers.position.Learned'),
    'embedding_norm': block(type='layers.norm.AffineLayerNorm'),
    'remat': 'none',
    'unroll': 1,
  }


def mar(
  config: ConfigDict,
  *,
  grid: tuple[int, int],
  channels: int,
  classes: int | None,
  depth: int,
  second_depth: int,
  width: int,
  heads: int,
  hidden: int,
  head_width: int,
  head_depth: int,
  second: dict | None = None,
  prefix: int = 64,
  dropout: float = 0.1,
  repeats: int = 4,
  steps: int = 256,
  diffusion_steps: int = 100,
  guidance: float = 2.9,
  temperature: float = 1.0,
  biases: tuple[str, ...] = ('q', 'k', 'v', 'out'),
) -> None:
  """The six parts of MAR: latents in random order, each by diffusion.

  `second` are the width, heads and hidden of the second half where they are not
  those of the first.
  """
  config.release = block(type='importers.mar.Transformer')
  config.layout = block(
    type='layouts.grid.whole', height=grid[0], width=grid[1], prefix=prefix
  )
  config.feed = block(type='feeds.mask.Dropped', lowest=0.7, group=64)
  config.backbone = block(
    type='backbones.decoder.Decoder',
    body=block(
      type='backbones.encoder_decoder.Masked',
      depth=second_depth,
      out_position=True,
    ),
    **transformer(
      width=width,
      depth=depth,
      heads=heads,
      hidden=hidden,
      dropout=dropout,
      biases=biases,
    ),
  )
  if second:
    second_half(config, **second)
  config.head = head(
    channels=channels,
    width=head_width,
    depth=head_depth,
    repeats=repeats,
    diffusion_steps=diffusion_steps,
  )
  config.condition = block(
    type='layers.condition.ClassLabel',
    classes=classes,
    width=width,
    prefix=prefix,
    drop=0.1,
  )
  config.sampler = block(
    type='samplers.random_order.RandomOrder',
    steps=steps,
    schedule='cosine',
    buckets=8,
    guidance=block(type='process.guidance.Linear', end=guidance),
    logits_filter=block(
      type='process.logits.LogitsFilter', temperature=temperature
    ),
  )


def second_half(
  config: ConfigDict, *, width: int, heads: int, hidden: int
) -> None:
  """Gives the second half of a backbone a size of its own."""
  mlp = config.backbone.block.mlp.copy_and_resolve_references()
  mlp.hidden = hidden
  config.backbone.body.update(width=width, heads=heads, mlp=mlp)


def causal(config: ConfigDict, *, prefix: int = 1, **sizes) -> None:
  """The baseline of the paper: the next latent in raster order, by diffusion.

  Attention is causal, with a cache; whatever else it can share is that of MAR.
  """
  width, heads, hidden = sizes['width'], sizes['heads'], sizes['hidden']
  depth = sizes['depth'] + sizes['second_depth']
  dropout = sizes.get('dropout', 0.1)
  mar(config, prefix=prefix, **sizes)
  del config.release
  config.layout.type = 'layouts.grid.raster'
  config.feed = block(type='feeds.shift.Shift')
  config.backbone = block(
    type='backbones.decoder.Decoder',
    **transformer(
      width=width, depth=depth, heads=heads, hidden=hidden, dropout=dropout
    ),
  )
  config.sampler = block(
    type='samplers.entity.EntityAR',
    guidance=config.sampler.guidance,
    logits_filter=config.sampler.logits_filter,
  )
