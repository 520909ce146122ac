"""Parts of LlamaGen, shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs import common
from arvision.configs.common import block


def vq(
  *, grid: tuple[int, int], vocab_size: int, channels: int, **convolutions
) -> ConfigDict:
  """The block of LlamaGen's tokenizer; see `common.autoencoder`."""
  return block(
    type='tokenizers.autoencoder.Autoencoder',
    quantizer=common.unit_lookup(vocab_size, channels),
    grid=grid,
    **common.autoencoder(**convolutions),
  )


def llamagen(
  config: ConfigDict,
  *,
  grid: tuple[int, int],
  vocab_size: int,
  classes: int | None,
  depth: int,
  width: int,
  heads: int,
  hidden: int | None = None,
  dropout: float = 0.1,
  guidance: float = 2.0,
  top_k: int = 0,
  top_p: float = 1.0,
) -> None:
  """The six parts of LlamaGen (arXiv 2406.06525), next-token prediction.

  `classes=None` takes the number of classes from the data.
  """
  if hidden is None:
    hidden = -(-int(2 * 4 * width / 3) // 256) * 256
  config.release = block(type='importers.llamagen.Transformer')
  config.layout = block(
    type='layouts.grid.raster', height=grid[0], width=grid[1], longest=64
  )
  config.feed = block(type='feeds.shift.Shift')
  norm = block(type='layers.norm.RMSNorm')
  config.backbone = block(
    type='backbones.decoder.Decoder',
    width=width,
    depth=depth,
    heads=heads,
    input=block(type='backbones.decoder.CodeInput', vocab_size=vocab_size),
    block=block(
      type='layers.blocks.Block',
      attention=block(
        type='layers.attention.Attention', kernel='auto', dropout=dropout
      ),
      mlp=block(type='layers.blocks.SwiGLU', hidden=hidden, dropout=dropout),
      norm=norm,
    ),
    last_norm=norm,
    rotary=block(type='layers.position.Rotary'),
    dropout=dropout,
    remat='none',
    unroll=1,
  )
  config.head = block(
    type='heads.categorical.Categorical',
    vocab_size=vocab_size,
    bias=False,
    std=0.0,
    label_smoothing=0.0,
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
    logits_filter=block(
      type='process.logits.LogitsFilter', top_k=top_k, top_p=top_p
    ),
  )


def llamagen_t2i(
  config: ConfigDict,
  *,
  length: int,
  channels: int,
  width: int,
  guidance: float = 7.5,
  guided_steps: int | None = None,
  top_k: int = 1000,
  **sizes,
) -> None:
  """The six parts of LlamaGen that reads captions.

  Args:
    config: to fill.
    length: rows of features of a caption, as in config.data.text.
    channels: numbers of a row.
    width: d.
    guidance: scale.
    guided_steps: tokens that guidance is used for; None: all.
    top_k: codes to draw from.
    **sizes: of `llamagen`.
  """
  llamagen(
    config, width=width, classes=0, guidance=guidance, top_k=top_k, **sizes
  )
  config.layout.prefix = length
  config.sampler.guidance.until = guided_steps
  config.condition = block(
    type='layers.condition.Caption',
    length=length,
    channels=channels,
    width=width,
    drop=0.1,
  )
