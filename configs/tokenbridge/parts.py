"""Parts of TokenBridge (arXiv 2503.16430), shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs.common import block
from arvision.configs.mar import parts as mar

# The channels of KL-16, those that hold the low frequencies first.
ORDER = (8, 1, 10, 9, 6, 12, 4, 0, 3, 11, 7, 14, 2, 15, 13, 5)


def quantized(
  tokenizer: ConfigDict,
  levels: int,
  low: float = -5.0,
  high: float = 5.0,
  span: float = 3.0,
) -> None:
  """Turns the block of a KL tokenizer into one with levels."""
  tokenizer.quantizer.update(
    type='quantizers.levels.Levels',
    levels=levels,
    low=low,
    high=high,
    span=span,
  )


def tokenbridge(
  config: ConfigDict,
  *,
  order: tuple[int, ...],
  levels: int,
  span: float = 3.0,
  head_width: int,
  head_depth: int,
  head_heads: int,
  head_hidden: int,
  dropout: float = 0.1,
  guidance: float = 3.1,
  temperature: float = 1.0,
  **sizes,
) -> None:
  """The six parts of TokenBridge: those of MAR, with levels and another head.

  Args:
    config: to fill.
    order: of the channels.
    levels: of a channel.
    span: of the levels, see `quantizers.levels.Levels`.
    head_width, head_depth, head_heads, head_hidden: of the transformer over
      channels.
    dropout: of both transformers.
    guidance, temperature: of the sampler.
    **sizes: the other arguments of `mar.parts.mar`.
  """
  mar.mar(
    config,
    channels=len(order),
    head_width=head_width,
    head_depth=head_depth,
    dropout=dropout,
    guidance=guidance,
    temperature=temperature,
    **sizes,
  )
  config.release = block(type='importers.tokenbridge.Transformer', span=span)
  config.head = block(
    type='heads.channels.Channels',
    channels=len(order),
    levels=levels,
    width=head_width,
    depth=head_depth,
    heads=head_heads,
    hidden=head_hidden,
    order=order,
    dropout=dropout,
    remat='none',
    unroll=1,
  )
  config.sampler.site = 'hidden'
