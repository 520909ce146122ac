"""Parts of VQ-Diffusion, shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs import common
from arvision.configs.common import block

# Tokens of all times but the last in high-quality inference of 1,024 tokens in 100
# steps (the published n_sample).
PUBLISHED_COUNTS = (11, 11, *(10, 10, 11) * 32, 10)


def vq_diffusion(
  config: ConfigDict,
  *,
  grid: tuple[int, int],
  vocab_size: int,
  depth: int,
  width: int,
  heads: int,
  classes: int = 0,
  null_row: bool = False,
  caption: dict[str, int] | None = None,
  steps: int = 100,
  hidden: int | None = None,
  convolutions: bool = True,
  sides: tuple[int, int] | None = None,
  sinusoid: bool = False,
  exact: bool = False,
  dropout: float = 0.0,
  auxiliary: float = 1e-3,
  drop: float = 0.0,
  guidance: float = 1.0,
  top_p: float = 0.86,
) -> None:
  """The six parts of VQ-Diffusion (arXiv 2111.14822).

  Args:
    config: to fill.
    grid: height and width in tokens.
    vocab_size: number of codes.
    depth, width, heads: of the transformer.
    classes: number of classes, 0 for an unconditional model.
    null_row: whether the null class has an embedding of its own; otherwise it has
      the mean of those of the classes.
    caption: `length` and `channels` of features of captions, instead of classes.
    steps: times of the diffusion.
    hidden: of the MLP; None: 4 width.
    convolutions: whether the MLP is one of convolutions.
    sides: rows and columns of the tables of positions; None: those of the grid.
    sinusoid: whether norms embed the time by sines (adalayernorm_abs).
    exact: whether the MLP has the error function's gelu.
    dropout: on attention, its weights and MLP.
    auxiliary: weight of the cross entropy.
    drop: share of conditions that are dropped.
    guidance: scale.
    top_p: truncation of the sampler.
  """
  config.release = block(type='importers.vq_diffusion.Transformer', steps=steps)
  config.layout = block(
    type='layouts.grid.whole', height=grid[0], width=grid[1], prefix=0
  )
  process = block(
    type='process.transitions.MaskAndReplace',
    vocab_size=vocab_size,
    steps=steps,
  )
  config.feed = block(type='feeds.transition.Transition', process=process)
  plain = block(type='layers.norm.LayerNorm', epsilon=1e-5)
  affine = block(type='layers.norm.AffineLayerNorm', epsilon=1e-5)
  kind = 'sinusoid' if sinusoid else 'table'
  timed = block(
    type='layers.embedded_norm.LevelNorm',
    count=steps,
    embedding=kind,
    norm=plain,
  )
  biases = ('q', 'k', 'v', 'out')
  name = ('Exact' if exact else 'Quick') + 'ConvMLP'
  if not convolutions:
    name = 'QuickGELU'
  mlp = block(
    type=f'layers.embedded_norm.{name}',
    hidden=hidden or 4 * width,
    dropout=dropout,
  )
  if convolutions:
    mlp.grid = grid
  elif exact:
    mlp.type = 'layers.blocks.ExactGELU'
  config.backbone = block(
    type='backbones.decoder.Decoder',
    width=width,
    depth=depth,
    heads=heads,
    input=block(
      type='backbones.decoder.CodeInput', vocab_size=vocab_size, extra=1
    ),
    block=block(
      type='layers.embedded_norm.NormedBlock',
      attention=block(
        type='layers.attention.Attention',
        kernel='auto',
        biases=biases,
        dropout=dropout,
        weights_dropout=dropout,
      ),
      mlp=mlp,
      norm=timed,
      mlp_norm=affine,
    ),
    last_norm=affine,
    position=block(
      type='layers.position.RowsAndColumns',
      rows=(sides or grid)[0],
      columns=(sides or grid)[1],
    ),
    remat='none',
    unroll=1,
  )
  if caption:
    config.backbone.block.update(
      cross=block(
        type='layers.attention.CrossAttention', kernel='auto', biases=biases
      ),
      cross_norm=timed,
    )
    config.condition = block(
      type='layers.level_condition.LevelAndCaption', drop=drop, **caption
    )
  else:
    config.condition = block(
      type='layers.level_condition.LevelAndClass', classes=classes, drop=drop
    )
    if classes:
      config.backbone.block.mlp_norm = block(
        type='layers.embedded_norm.ClassNorm',
        count=classes + null_row,
        embedding='table',
        norm=plain,
      )
  config.head = block(
    type='heads.discrete.DiscreteDiffusion',
    vocab_size=vocab_size,
    process=process,
    auxiliary=auxiliary,
  )
  config.sampler = block(
    type='samplers.discrete.Ancestral',
    guidance=block(type='process.guidance.Constant', scale=guidance),
    logits_filter=block(
      type='process.logits.LogitsFilter', temperature=1.0, top_p=top_p
    ),
  )
  if 'task' in config:
    config.task.type = 'tasks.importance.ImportanceSampled'


def vqgan(
  *, grid: tuple[int, int], vocab_size: int, channels: int, **convolutions
) -> ConfigDict:
  """The tokenizer block of a VQGAN (arXiv 2012.09841).

  Args:
    grid: height and width in tokens.
    vocab_size, channels: of the codebook.
    **convolutions: of `common.autoencoder`.
  """
  return block(
    type='tokenizers.autoencoder.Autoencoder',
    quantizer=common.lookup(vocab_size, channels),
    grid=grid,
    **common.autoencoder(**convolutions),
  )


def plateau(rate: float, warmup: int) -> ConfigDict:
  """The published optimizer: a warm-up from 3e-6, all parameters decay."""
  schedule = block(
    type='training.schedule.Constant',
    warmup=block(steps=warmup),
    start=3e-6 / rate,
  )
  optim = common.adamw(rate, schedule, weight_decay=0.045, b2=0.96, clip=0.5)
  optim.decay.min_ndim = 0
  return optim


def high_quality(config: ConfigDict, sharpen: float = 1.0, **fields) -> None:
  """The sampler of Improved VQ-Diffusion (arXiv 2205.16007).

  Args:
    config: to change.
    sharpen: the published prior_weight.
    **fields: of `samplers.discrete.HighQuality`.
  """
  config.sampler.update(
    type='samplers.discrete.HighQuality', sharpen=sharpen, **fields
  )
