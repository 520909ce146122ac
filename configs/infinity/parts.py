"""Parts of Infinity, shared by its configs."""

import math

from ml_collections import ConfigDict

from arvision.configs import common
from arvision.configs.common import block
from arvision.configs.var import parts as var

# Names that the published code keeps free of weight decay.
NO_DECAY = (
  'condition/null',
  'condition/start',
  'condition/pool/query',
  'position',
  'log_scale',
  'adaln/offset',
  'gamma',
  'bias',
)
# Scales of square images by their sides (h_div_w 1.000 of the published lists).
SCALES = {
  256: (1, 2, 4, 6, 8, 12, 16),
  512: (1, 2, 4, 6, 8, 12, 16, 20, 24, 32),
  768: (1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48),
  1024: (1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64),
}


def multi_scale_bsq(
  *,
  scales,
  bits: int,
  patch: int = 1,
  pixels: int = 1,
  flips: float = 0.3,
  flipped_scales: int | None = 13,
  **convolutions,
) -> ConfigDict:
  """The block of Infinity's tokenizer.

  Args:
    scales: sides of the grids of tokens, small to large.
    bits: of a place of the latent.
    patch: side of a token in places.
    pixels: side of the squares of pixels that enter as channels.
    flips: largest share of flipped bits that generators train on.
    flipped_scales: how many scales have flips, None for all.
    **convolutions: see `common.autoencoder`.
  """
  return block(
    type='tokenizers.bitwise.BitwisePyramid',
    quantizer=block(
      type='quantizers.bsq.BSQ', channels=bits, commitment=0.25, entropy=0.1
    ),
    scales=tuple(scales),
    patch=patch,
    flips=flips,
    flipped_scales=flipped_scales,
    **common.autoencoder(
      z_channels=bits, patch=pixels, attention=False, **convolutions
    ),
  )


def infinity(
  config: ConfigDict,
  *,
  length: int,
  channels: int,
  depth: int,
  width: int,
  heads: int,
  chunks: int = 1,
  hidden: int | None = None,
  pool_heads: int | None = None,
  units: tuple[int, int] | None = None,
  scale_rows: int = 15,
  layer_scale: float | None = None,
  drop_path: float = 0.1,
  area_power: float = 0.5,
  guidance: float = 4.0,
  temperature: float = 0.5,
  top_p: float = 0.97,
) -> None:
  """The six parts of Infinity (arXiv 2412.04431), bitwise next-scale prediction.

  Args:
    config: with a tokenizer; to fill.
    length: most features of a caption.
    channels: numbers of a feature.
    depth, width, heads: of the transformer.
    chunks: of the release, see `importers.infinity.Transformer`.
    hidden: inner width of the MLPs; None: 4 width, in multiples of 256.
    pool_heads: of the pooling of captions; None: of 128 channels each, of 64 each
      above 4096.
    units: grid in whose units positions are; None: the largest scale.
    scale_rows: rows of the table of scales.
    layer_scale: start of the factors of cross attention; None: there are none.
    drop_path: largest rate.
    area_power: see `feeds.residual.Residual`.
    guidance: scale at all steps.
    temperature, top_p: of every bit.
  """
  std = math.sqrt(1 / (3 * width))
  out = std / math.sqrt(2 * depth)
  scales = config.tokenizer.scales
  bits = config.tokenizer.quantizer.channels * config.tokenizer.patch**2
  if pool_heads is None:
    pool_heads = channels // (128 if channels <= 4096 else 64)
  config.release = block(type='importers.infinity.Transformer', chunks=chunks)
  config.layout = block(
    type='layouts.scales.scales',
    scales=scales,
    anchor='rounded',
    units=units,
  )
  config.feed = block(type='feeds.residual.Residual', area_power=area_power)
  norm = block(type='layers.norm.LayerNorm')
  config.backbone = block(
    type='backbones.decoder.Decoder',
    width=width,
    depth=depth,
    heads=heads,
    input=block(type='backbones.decoder.VectorInput', std=std),
    block=block(
      type='layers.blocks.Block',
      attention=var.attention(std, out),
      cross=block(
        type='layers.attention.CrossAttention',
        kernel='auto',
        biases=('q', 'v', 'out'),
        layer_scale=layer_scale,
        std=std,
        out_std=out,
      ),
      cross_norm=block(type='layers.norm.AffineLayerNorm'),
      memory_norm=block(type='layers.norm.NoNorm'),
      mlp=block(
        type='layers.blocks.GELU',
        hidden=hidden or round(4 * width / 256) * 256,
        std=std,
        out_std=out,
      ),
      norm=norm,
      adaln=block(type='layers.blocks.SharedAdaLN', gate=5e-6, rest=1e-3),
    ),
    last_norm=block(
      type='layers.norm.ModulatedNorm', norm=norm, std=1e-3 * std
    ),
    position=block(type='layers.position.PerEntity', rows=scale_rows, std=std),
    rotary=block(type='layers.position.Rotary'),
    shared_adaln=block(type='layers.blocks.SharedModulation', std=std),
    drop_path=drop_path,
    remat='none',
    unroll=1,
  )
  config.head = block(
    type='heads.categorical.Categorical',
    vocab_size=2,
    parts=bits,
    std=0.02 * std,
  )
  config.condition = block(
    type='layers.text.PooledCaption',
    length=length,
    channels=channels,
    width=width,
    heads=pool_heads,
    drop=0.1,
    std=std,
    null_std=1.2 / math.sqrt(channels),
  )
  config.sampler = block(
    type='samplers.entity.EntityAR',
    guidance=block(type='process.guidance.Constant', scale=guidance),
    logits_filter=block(
      type='process.logits.LogitsFilter', temperature=temperature, top_p=top_p
    ),
  )
