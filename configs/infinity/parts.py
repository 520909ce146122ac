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
# How many scales images have whose area is that of a square with this side.
COUNTS = {256: 7, 512: 10, 768: 12, 1024: 13}
_SQUARE = (1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64)
# (heights, widths) of the scales, by the ratio of height and width (the published
# h_div_w). Those below 1 are these with height and width exchanged.
_TALL = {
  1.25: (
    (1, 2, 3, 5, 10, 15, 20, 25, 30, 35, 45, 55, 70),
    (1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 36, 44, 56),
  ),
  1.333: (
    (1, 2, 4, 8, 12, 16, 20, 24, 28, 36, 48, 60, 72),
    (1, 2, 3, 6, 9, 12, 15, 18, 21, 27, 36, 45, 54),
  ),
  1.5: (
    (1, 2, 3, 6, 9, 15, 21, 27, 33, 39, 48, 63, 78),
    (1, 2, 2, 4, 6, 10, 14, 18, 22, 26, 32, 42, 52),
  ),
  1.75: (
    (1, 2, 3, 7, 11, 14, 21, 28, 35, 42, 56, 70, 84),
    (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48),
  ),
  2.0: (
    (1, 2, 4, 6, 10, 16, 22, 30, 38, 46, 60, 74, 90),
    (1, 2, 2, 3, 5, 8, 11, 15, 19, 23, 30, 37, 45),
  ),
  2.5: (
    (1, 2, 5, 10, 15, 20, 25, 30, 40, 50, 65, 80, 100),
    (1, 2, 2, 4, 6, 8, 10, 12, 16, 20, 26, 32, 40),
  ),
  3.0: (
    (1, 2, 6, 9, 15, 21, 27, 36, 45, 54, 72, 90, 111),
    (1, 2, 2, 3, 5, 7, 9, 12, 15, 18, 24, 30, 37),
  ),
}
# '1.250' -> (height, width) of its scales.
RATIOS = {
  '1.000': tuple(zip(_SQUARE, _SQUARE)),
  **{f'{r:.3f}': tuple(zip(*sides)) for r, sides in _TALL.items()},
  **{
    f'{int(1000 / r) / 1000:.3f}': tuple(zip(*sides[::-1]))
    for r, sides in _TALL.items()
  },
}
SCALES = {side: _SQUARE[:count] for side, count in COUNTS.items()}


def rectangles(side: int, ratio: str) -> tuple[tuple[int, int], ...]:
  """(height, width) of the scales of images of some height / width.

  Args:
    side: of a square of the same area, in pixels.
    ratio: a published one.

  Raises:
    ValueError: an unknown ratio; it lists the published ones.
  """
  if ratio not in RATIOS:
    raise ValueError(
      f"no ratio '{ratio}' of height and width; there are: {', '.join(RATIOS)}"
    )
  return RATIOS[ratio][: COUNTS[side]]


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
  ids: int | None = None,
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
    ids: that the bits of a place are joined to; None: every bit is one.
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
  bits = config.tokenizer.quantizer.channels
  if ids is not None:
    config.tokenizer.quantizer.ids = ids
  each = ids or bits
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
    vocab_size=2 ** (bits // each),
    parts=each * config.tokenizer.patch**2,
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
