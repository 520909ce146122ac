"""Parts of VAR, shared by its configs."""

import math

from ml_collections import ConfigDict

from arvision.configs import common
from arvision.configs.common import block

# Names that the published code keeps free of weight decay.
NO_DECAY = (
  'position',
  'condition/start',
  'log_scale',
  'adaln/offset',
  'bias',
)


def multi_scale_vq(
  *, scales, vocab_size: int, channels: int, **convolutions
) -> ConfigDict:
  """The block of VAR's tokenizer; see `common.autoencoder` for its convolutions."""
  return block(
    type='tokenizers.residual.ResidualPyramid',
    quantizer=common.lookup(vocab_size, channels),
    scales=tuple(scales),
    **common.autoencoder(**convolutions),
  )


def attention(std: float, out_std: float) -> ConfigDict:
  """VAR's self-attention: queries and keys of unit length, keys without bias."""
  return block(
    type='layers.attention.Attention',
    kernel='auto',
    logits=block(type='layers.attention.L2Normed'),
    biases=('q', 'v', 'out'),
    std=std,
    out_std=out_std,
  )


def var(
  config: ConfigDict,
  *,
  scales,
  vocab_size: int,
  classes: int | None,
  depth: int,
  width: int,
  heads: int,
  gate: float = 1e-3,
  dropout: float = 0.0,
  drop_path: float | None = None,
  guidance: float = 1.5,
  top_k: int = 0,
  top_p: float = 1.0,
  shared_adaln: bool = False,
) -> None:
  """The six parts of VAR (arXiv 2404.02905), next-scale prediction.

  `guidance` is VAR's cfg: the scale runs linearly from 1 to 1 + cfg. Where
  `classes` is None, it is that of the data.
  """
  std = math.sqrt(1 / (3 * width))
  out = std / math.sqrt(2 * depth)
  first = math.prod(common.grids(scales)[0])
  config.release = block(type='importers.var.Transformer')
  config.layout = block(type='layouts.scales.scales', scales=tuple(scales))
  config.feed = block(type='feeds.residual.Residual')
  norm = block(type='layers.norm.LayerNorm')
  adaln = block(type='layers.blocks.AdaLN', std=std, gate=gate, rest=0.5)
  if shared_adaln:
    adaln = block(type='layers.blocks.SharedAdaLN', gate=gate, rest=0.5)
  config.backbone = block(
    type='backbones.decoder.Decoder',
    width=width,
    depth=depth,
    heads=heads,
    input=block(type='backbones.decoder.VectorInput', std=std),
    block=block(
      type='layers.blocks.Block',
      attention=attention(std, out),
      mlp=block(
        type='layers.blocks.GELU',
        hidden=4 * width,
        std=std,
        out_std=out,
        dropout=dropout,
      ),
      norm=norm,
      adaln=adaln,
    ),
    last_norm=block(type='layers.norm.ModulatedNorm', norm=norm, std=0.5 * std),
    position=block(type='layers.position.Learned', std=std, entities=True),
    drop_path=0.1 * depth / 24 if drop_path is None else drop_path,
    remat='none',
    unroll=1,
  )
  if shared_adaln:
    config.backbone.shared_adaln = block(
      type='layers.blocks.SharedModulation', std=std
    )
  config.head = block(
    type='heads.categorical.Categorical',
    vocab_size=vocab_size,
    std=0.02 * std,
    label_smoothing=0.0,
  )
  config.condition = block(
    type='layers.condition.ClassLabel',
    classes=classes,
    width=width,
    prefix=first,
    modulate=True,
    start=True,
    drop=0.1,
    std=std,
  )
  config.sampler = block(
    type='samplers.entity.EntityAR',
    guidance=block(type='process.guidance.Linear', end=1 + guidance),
    logits_filter=block(
      type='process.logits.LogitsFilter', top_k=top_k, top_p=top_p
    ),
  )
