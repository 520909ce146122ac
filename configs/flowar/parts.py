"""Parts of FlowAR, shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs.common import block, timm_attention

# The kinds of flow head: what its blocks are made of.
SELF, CROSS = 'self', 'cross'


def pyramid(tokenizer: ConfigDict, scales) -> None:
  """Turns the block of a KL tokenizer into that of its latent at all scales."""
  tokenizer.type = 'tokenizers.pyramid.Pyramid'
  tokenizer.scales = tuple(scales)
  tokenizer.kind = 'area'
  if 'grid' in tokenizer:
    del tokenizer.grid


def gelu_hidden(width: int) -> int:
  """The inner width of FlowAR's gated MLPs."""
  return int(width * 4 * 2 / 3)


def flowar(
  config: ConfigDict,
  *,
  scales,
  channels: int,
  classes: int | None,
  width: int,
  heads: int,
  depth: int,
  second_depth: int,
  head: str,
  head_width: int,
  head_depth: int,
  head_heads: int | None = None,
  dropout: float = 0.1,
  guidance: float = 2.4,
  below: float = 0.9,
  steps: int = 25,
) -> None:
  """The six parts of FlowAR (arXiv 2412.15205).

  Args:
    config: to fill.
    scales: sides of the latent, small to large; the first is 1.
    channels: of the latent.
    classes: number of classes; None: that of the data.
    width, heads: of the transformer over scales.
    depth, second_depth: layers of its two halves.
    head: SELF or CROSS: whether the blocks of the flow head read z again.
    head_width, head_depth: of the flow head.
    head_heads: of it; None: one for every 64 of its width.
    dropout: of the transformer, on attention, its weights and MLP.
    guidance: FlowAR's cfg, at the last scale; it is 1 at the first.
    below: highest noise level with guidance.
    steps: FlowAR's num_steps, of the solver at every scale.
  """
  config.release = block(type='importers.flowar.Transformer', heads=heads)
  config.layout = block(
    type='layouts.scales.scales', scales=tuple(scales), anchor='corner'
  )
  config.feed = block(type='feeds.resample.UpAndDown')
  bare = block(type='layers.norm.RMSNorm', epsilon=1e-6, use_scale=False)
  norm = block(type='layers.norm.RMSNorm', epsilon=1e-6)
  rotary = block(type='layers.position.Rotary')
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
        hidden=gelu_hidden(width),
        std=None,
        out_std=None,
        dropout=dropout,
      ),
      norm=bare,
      adaln=block(type='layers.blocks.AdaLN', std=None),
    ),
    last_norm=norm,
    body=block(
      type='backbones.encoder_decoder.EncoderDecoder',
      depth=second_depth,
      out_position=True,
    ),
    position=block(type='layers.position.Learned'),
    rotary=rotary,
    embedding_norm=norm,
    remat='none',
    unroll=1,
  )
  config.head = block(
    type='heads.flow.Flow',
    channels=channels,
    width=head_width,
    depth=head_depth,
    heads=head_heads or head_width // 64,
    block=block(
      type='layers.blocks.Block',
      attention=block(
        type='layers.attention.Attention',
        biases=('out',),
        std=None,
        out_std=None,
      ),
      mlp=block(
        type='layers.blocks.GeGLU',
        hidden=gelu_hidden(head_width),
        std=None,
        out_std=None,
      ),
      norm=bare,
      **_reads(head, norm),
    ),
    last_norm=bare,
    rotary=rotary,
    counts=block(type='process.counts.Falling', first=steps, last=steps),
    solver=block(type='process.flow.TwoSpeeds'),
    remat='none',
    unroll=1,
  )
  config.condition = block(
    type='layers.condition.ClassLabel',
    classes=classes,
    width=width,
    prefix=1,
    modulate=True,
    drop=0.1,
  )
  config.sampler = block(
    type='samplers.entity.EntityAR',
    guidance=block(
      type='process.guidance.Below',
      schedule=block(type='process.guidance.Linear', end=guidance),
      level=below,
    ),
  )


def _reads(head, norm):
  """How the blocks of the flow head read the condition."""
  if head == SELF:
    return {'adaln': block(type='layers.blocks.AdaLN', std=None)}
  if head == CROSS:
    return {
      'adaln': block(type='layers.blocks.SplitAdaLN', std=None),
      'cross': block(type='layers.attention.CrossAttention', std=None),
      'cross_norm': norm,
    }
  raise ValueError(f"head='{head}': wanted '{SELF}' or '{CROSS}'")


def falling(config: ConfigDict, first: int, last: int) -> None:
  """Fewer solver steps the larger the scale (DiSA, arXiv 2505.20297)."""
  config.head.counts.update(first=first, last=last)
