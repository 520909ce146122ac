"""Parts of the Axial Transformer, shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs.common import block


def axial(
  config: ConfigDict,
  *,
  levels: int,
  width: int,
  heads: int,
  hidden: int,
  encoder: int,
  outer: int,
  inner: int,
  classes: int | None,
  dropout: float = 0.0,
  guidance: float = 1.0,
) -> None:
  """The six parts of the Axial Transformer (arXiv 1912.12180) over pixels.

  Args:
    config: to fill; its data has a size and channels.
    levels: values of a pixel.
    width, heads: of all layers.
    hidden: inner width of MLPs.
    encoder, outer: pairs of layers; `encoder` is 0 for one channel.
    inner: layers.
    classes: 0 for an unconditional model.
    dropout: rate on the inputs, on attention and on MLPs.
    guidance: scale.
  """
  size, channels = tuple(config.data.size), config.data.channels
  config.tokenizer = block(
    type='tokenizers.pixels.Pixels',
    grid=size,
    channels=channels,
    levels=levels,
  )
  config.layout = block(
    type='layouts.grid.channels',
    height=size[0],
    width=size[1],
    channels=channels,
  )
  config.feed = block(type='feeds.shift.Shift')
  norm = block(type='layers.norm.AffineLayerNorm')
  config.backbone = block(
    type='backbones.axial.Axial',
    grid=size,
    channels=channels,
    width=width,
    heads=heads,
    encoder=encoder,
    outer=outer,
    inner=inner,
    input=block(type='backbones.decoder.CodeInput', vocab_size=levels),
    block=block(
      type='layers.blocks.Block',
      attention=block(
        type='layers.attention.Attention',
        kernel='auto',
        biases=('out',),
        dropout=dropout,
      ),
      mlp=block(type='layers.blocks.GELU', hidden=hidden, dropout=dropout),
      norm=norm,
    ),
    last_norm=norm,
    dropout=dropout,
    remat='none',
    unroll=1,
  )
  config.head = block(
    type='heads.categorical.Categorical', vocab_size=levels, std=0.0
  )
  config.condition = block(
    type='layers.condition.ClassLabel',
    classes=classes,
    width=width,
    prefix=1,
    drop=0.1,
  )
  config.sampler = block(
    type='samplers.entity.EntityAR',
    guidance=block(type='process.guidance.Constant', scale=guidance),
    logits_filter=block(type='process.logits.LogitsFilter', temperature=1.0),
  )
  config.evals.likelihood = block(type='evals.likelihood.Likelihood')
