"""The parts of every paper, as its experiments share them."""

import math

from ml_collections import ConfigDict

from arvision.configs import common
from arvision.configs.common import block

# Names that the published code keeps free of weight decay (see the recipes).
RAR_NO_DECAY = ('position/', 'condition/steps', 'table')
VAR_NO_DECAY = (
  'position',
  'condition/start',
  'log_scale',
  'adaln/offset',
  'bias',
)


def maskgit_vq(
  *,
  grid: tuple[int, int],
  vocab_size: int,
  channels: int,
  ch: int,
  ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4),
  res_blocks: int = 2,
  groups: int = 32,
  patch: int = 1,
  image_channels: int = 3,
  entropy: float = 0.1,
) -> ConfigDict:
  """The tokenizer block of MaskGIT (arXiv 2202.04200)."""
  shared = {
    'ch': ch,
    'ch_mult': ch_mult,
    'res_blocks': res_blocks,
    'patch': patch,
    'groups': groups,
  }
  return block(
    type='tokenizers.vq.VQ',
    grid=grid,
    vocab_size=vocab_size,
    channels=channels,
    normalize=False,
    quant_kernel=0,
    darkest=0.0,
    commitment=0.25,
    entropy=entropy,
    encoder=block(
      type='layers.maskgit_conv.Encoder', z_channels=channels, **shared
    ),
    decoder=block(
      type='layers.maskgit_conv.Decoder', channels=image_channels, **shared
    ),
  )


# Width, layers and heads of TiTok's transformers.
TITOK_SIZES = {
  'small': (512, 8, 8),
  'base': (768, 12, 12),
  'large': (1024, 24, 16),
}


def titok(
  *,
  length: int,
  vocab_size: int,
  channels: int,
  encoder: tuple[int, int, int],
  decoder: tuple[int, int, int],
  grid: tuple[int, int],
  patch: int,
  image_channels: int = 3,
  normalize: bool = False,
) -> ConfigDict:
  """The tokenizer block of TiTok (arXiv 2406.07550).

  Args:
    length: codes of an image.
    vocab_size, channels: of the codebook.
    encoder, decoder: width, layers and heads.
    grid: (height, width) in patches.
    patch: side of a patch in pixels.
    image_channels: 3, or 1 for grey.
    normalize: codes on the unit sphere.
  """

  def vit(type, size, **more):
    width, depth, heads = size
    return block(
      type=f'layers.vit.{type}',
      width=width,
      depth=depth,
      heads=heads,
      patch=patch,
      length=length,
      **more,
    )

  return block(
    type='tokenizers.vq.VQ',
    grid=(1, length),
    vocab_size=vocab_size,
    channels=channels,
    normalize=normalize,
    quant_kernel=0,
    darkest=0.0,
    commitment=0.25,
    encoder=vit('Encoder', encoder, z_channels=channels),
    decoder=vit('Decoder', decoder, grid=grid, channels=image_channels),
  )


def legacy_titok(
  *,
  pixel_codes: int,
  pixel_channels: int,
  pixel_decoder: ConfigDict,
  normalize: bool = True,
  **sizes,
) -> ConfigDict:
  """The tokenizer block of TiTok-L-32, B-64 and S-128.

  Args:
    pixel_codes, pixel_channels: of the codebook of the second tokenizer.
    pixel_decoder: block of its decoder.
    normalize: codes on the unit sphere, as published.
    **sizes: of `titok`.
  """
  config = titok(normalize=normalize, **sizes)
  config.type = 'tokenizers.titok.LegacyTiTok'
  config.encoder.type = 'layers.vit.LegacyEncoder'
  config.decoder.type = 'layers.vit.CodesDecoder'
  config.decoder.codes = pixel_codes
  config.pixel_codes = pixel_codes
  config.pixel_channels = pixel_channels
  config.pixel_decoder = pixel_decoder
  return config


# What the second stage of a legacy TiTok does not train.
TITOK_WARMED_UP = ('enc', 'codebook')


def titok_warmup(config: ConfigDict, teacher: ConfigDict, workdir: str) -> None:
  """The task of the first stage of a legacy TiTok.

  Args:
    config: to fill.
    teacher: the tokenizer block whose codes are predicted.
    workdir: where it was trained; `--config.task.teacher_workdir` changes it.
  """
  config.task = block(
    type='tasks.proxy.TrainProxy', teacher=teacher, teacher_workdir=workdir
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
  `classes` is None, training takes as many as the data has.
  """
  std = math.sqrt(1 / (3 * width))
  out = std / math.sqrt(2 * depth)
  first = math.prod(common.grids(scales)[0])
  config.release = block(type='importers.var.Transformer')
  config.layout = block(type='layouts.scales.scales', scales=tuple(scales))
  config.feed = block(type='feeds.residual.Residual')
  adaln = block(type='layers.blocks.AdaLN', std=std, gate=gate, rest=0.5)
  if shared_adaln:
    adaln = block(type='layers.blocks.SharedAdaLN', gate=gate, rest=0.5)
  config.backbone = block(
    type='backbones.decoder.Decoder',
    width=width,
    depth=depth,
    heads=heads,
    input=block(type='backbones.decoder.VectorInput', std=std),
    attention=block(
      type='layers.attention.Attention',
      logits=block(type='layers.attention.L2Normed'),
      biases=('q', 'v', 'out'),
      std=std,
      out_std=out,
    ),
    mlp=block(
      type='layers.blocks.GELU',
      hidden=4 * width,
      std=std,
      out_std=out,
      dropout=dropout,
    ),
    norm=block(type='layers.norm.LayerNorm'),
    position=block(type='layers.position.Learned', std=std, entities=True),
    adaln=adaln,
    shared_adaln=shared_adaln,
    modulated_norm=True,
    modulation_std=std,
    norm_std=0.5 * std,
    drop_path=0.1 * depth / 24 if drop_path is None else drop_path,
    remat='none',
    unroll=1,
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
    choice=block(type='process.choice.Choice', top_k=top_k, top_p=top_p),
  )


def flexvar(
  config: ConfigDict,
  *,
  scales,
  drawn,
  groups,
  usual_share: float = 0.05,
  budget: int = 680,
  guidance: float = 2.5,
  largest: int = 16,
  best=(),
  top_k: int = 900,
  top_p: float = 0.95,
  **sizes,
) -> None:
  """The six parts of FlexVAR (arXiv 2502.20313): VAR over changing scales.

  Args:
    config: to fill.
    scales: all sides that the tokenizer has.
    drawn: the sides that a sample goes through; larger ones are allowed.
    groups, budget: of `feeds.resample.RandomScales`; `drawn` is its usual list
      with probability `usual_share`, or the first sides of it.
    guidance: FlexVAR's cfg: the scale runs linearly from 1 to 1 + cfg over the
      first ten steps, and on at the same pace; it is 1 + cfg for sides larger
      than `largest`.
    best: sides at which the best code is taken.
    top_k, top_p: for the codes of the other sides.
    **sizes: of `var`.
  """
  var(config, scales=scales, top_k=top_k, top_p=top_p, **sizes)
  config.release = block(type='importers.flexvar.Transformer')
  config.feed = block(
    type='feeds.resample.RandomScales',
    groups=groups,
    usual=tuple(side for side in drawn if side in scales),
    usual_share=usual_share,
    budget=budget,
  )
  config.backbone.position = block(type='layers.position.Resized', side=32)
  pace = max(min(len(drawn) - 1, 9), 1)
  shares = (1 if p > largest else s / pace for s, p in enumerate(drawn))
  config.sampler.layout = block(
    type='layouts.scales.scales', scales=tuple(drawn)
  )
  config.sampler.best = tuple(s for s, p in enumerate(drawn) if p in best)
  config.sampler.guidance = block(
    type='process.guidance.Listed',
    scale=1 + guidance,
    shares=tuple(map(float, shares)),
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

  Where `classes` is None, training takes as many as the data has.
  """
  if hidden is None:
    hidden = -(-int(2 * 4 * width / 3) // 256) * 256
  config.release = block(type='importers.llamagen.Transformer')
  config.layout = block(
    type='layouts.grid.raster', height=grid[0], width=grid[1], longest=64
  )
  config.feed = block(type='feeds.shift.Shift')
  config.backbone = block(
    type='backbones.decoder.Decoder',
    width=width,
    depth=depth,
    heads=heads,
    input=block(type='backbones.decoder.CodeInput', vocab_size=vocab_size),
    attention=block(type='layers.attention.Attention', dropout=dropout),
    mlp=block(type='layers.blocks.SwiGLU', hidden=hidden, dropout=dropout),
    norm=block(type='layers.norm.RMSNorm'),
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
    choice=block(type='process.choice.Choice', top_k=top_k, top_p=top_p),
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


def nar(config: ConfigDict, *, grid: tuple[int, int], **sizes) -> None:
  """The six parts of NAR (arXiv 2503.10696), next-diagonal prediction.

  LlamaGen with a layer and a map to logits more, for the token below.

  Args:
    config: to fill.
    grid: height and width in tokens.
    **sizes: of `llamagen`.
  """
  llamagen(config, grid=grid, **sizes)
  config.release = block(type='importers.nar.Transformer')
  config.layout = block(
    type='layouts.grid.diagonals', height=grid[0], width=grid[1]
  )
  config.backbone.type = 'backbones.branches.Branches'
  config.backbone.branches = 2
  config.head.branches = 2


def rar(
  config: ConfigDict,
  *,
  grid: tuple[int, int],
  vocab_size: int,
  classes: int | None,
  depth: int,
  width: int,
  heads: int,
  hidden: int,
  dropout: float = 0.1,
  guidance: float = 4.0,
  power: float = 1.0,
  temperature: float = 1.0,
  spare_positions: int = 0,
  spare_steps: int = 0,
) -> None:
  """The six parts of RAR (arXiv 2411.00776): next token in random orders.

  Published tables of positions and of steps are longer than what is used of
  them; `spare_positions` and `spare_steps` say by how much.
  """
  tokens = grid[0] * grid[1]
  config.release = block(type='importers.rar.Transformer')
  config.layout = block(
    type='layouts.grid.raster',
    height=grid[0],
    width=grid[1],
    prefix=2,
    longest=64,
  )
  config.feed = block(type='feeds.shift.Permuted', start=0.5, end=0.75)
  affine = block(type='layers.norm.AffineLayerNorm')
  config.backbone = block(
    type='backbones.decoder.Decoder',
    width=width,
    depth=depth,
    heads=heads,
    input=block(
      type='backbones.decoder.CodeInput', vocab_size=vocab_size, extra=1
    ),
    attention=block(
      type='layers.attention.Attention',
      logits=block(type='layers.attention.Normed', norm=affine),
      biases=('q', 'k', 'v', 'out'),
      dropout=dropout,
      weights_dropout=dropout,
    ),
    mlp=block(type='layers.blocks.ExactGELU', hidden=hidden, dropout=dropout),
    norm=affine,
    last_norm=block(type='layers.norm.LayerNorm'),
    position=block(
      type='layers.position.Aimed', rows=tokens + 2 + spare_positions
    ),
    adaln=block(type='layers.blocks.AdaLN', std=0.0),
    modulated_norm=True,
    norm_std=0.0,
    remat='none',
    unroll=1,
  )
  config.head = block(
    type='heads.categorical.Categorical',
    vocab_size=vocab_size,
    label_smoothing=0.0,
  )
  config.condition = block(
    type='layers.condition.ClassLabel',
    classes=classes,
    width=width,
    prefix=1,
    tokens=1,
    steps=tokens + 2 + spare_steps,
    modulate=True,
    drop=0.1,
  )
  config.sampler = block(
    type='samplers.entity.EntityAR',
    guidance=block(
      type='process.guidance.PowerCosine', scale=guidance, power=power
    ),
    choice=block(type='process.choice.Choice', temperature=temperature),
  )


def uvit(
  config: ConfigDict,
  *,
  grid: tuple[int, int],
  vocab_size: int,
  classes: int | None,
  depth: int,
  width: int,
  heads: int,
  hidden: int,
  steps: int,
  temperature: float,
  guidance: ConfigDict,
  dropout: float = 0.0,
) -> None:
  """The six parts of TiTok-S-128's generator: a masked U-ViT.

  Args:
    config: to fill.
    grid: height and width in tokens, (1, length) of a 1D tokenizer.
    vocab_size, classes, depth, width, heads: as usual; `depth` is even.
    hidden: of the MLP.
    steps: of the sampler.
    temperature: of its noise.
    guidance: block of its schedule.
    dropout: on attention and MLP.
  """
  config.release = block(type='importers.titok.Generator')
  config.layout = block(
    type='layouts.grid.whole', height=grid[0], width=grid[1]
  )
  config.feed = block(type='feeds.mask.Mask', schedule='arccos')
  config.backbone = block(
    type='backbones.skips.Skips',
    width=width,
    depth=depth,
    heads=heads,
    input=block(
      type='backbones.decoder.CodeInput', vocab_size=vocab_size, extra=1
    ),
    attention=block(
      type='layers.attention.Attention', biases=('out',), dropout=dropout
    ),
    mlp=block(type='layers.blocks.ExactGELU', hidden=hidden, dropout=dropout),
    norm=block(type='layers.norm.AffineLayerNorm', epsilon=1e-5),
    position=block(type='layers.position.Learned'),
    remat='none',
    unroll=1,
  )
  config.head = block(
    type='heads.categorical.Categorical',
    vocab_size=vocab_size,
    label_smoothing=0.1,
  )
  config.condition = block(
    type='layers.condition.ClassLabel',
    classes=classes,
    width=width,
    prefix=1,
    drop=0.1,
  )
  config.sampler = block(
    type='samplers.masked.Masked',
    steps=steps,
    schedule='arccos',
    policy=block(type='process.masking.NoisyLogits', temperature=temperature),
    guidance=guidance,
    choice=block(type='process.choice.Choice', temperature=1.0),
  )


def bert(config: ConfigDict, *, dropout: float = 0.1, **sizes) -> None:
  """The six parts of TiTok-L-32's and B-64's generator: a masked BERT.

  Args:
    config: to fill.
    dropout: on embeddings, attention, its weights and MLP.
    **sizes: of `uvit`.
  """
  uvit(config, dropout=dropout, **sizes)
  norm = block(type='layers.norm.AffineLayerNorm', epsilon=1e-12)
  config.backbone.type = 'backbones.decoder.Decoder'
  config.backbone.update(
    block=block(type='layers.blocks.PostNormBlock'),
    norm=norm,
    embedding_norm=norm,
    last_norm=block(type='layers.norm.NoNorm'),
    dropout=dropout,
  )
  config.backbone.attention.update(
    biases=('q', 'k', 'v', 'out'), weights_dropout=dropout
  )


def maskgit(config: ConfigDict, *, temperature: float = 4.5, **sizes) -> None:
  """The six parts of MaskGIT (arXiv 2202.04200).

  Args:
    config: to fill.
    temperature: of the sampler's noise.
    **sizes: of `uvit`.
  """
  bert(
    config,
    temperature=temperature,
    guidance=block(type='process.guidance.Constant', scale=1.0),
    **sizes,
  )
  del config.release
  config.feed.update(schedule='cosine', lowest=0.5, shown_weight=0.0)
  config.backbone.mlp.type = 'layers.blocks.GELU'
  config.head.type = 'heads.categorical.Transformed'
  config.head.width = config.backbone.width
  config.condition.drop = 0.0
  config.sampler.schedule = 'cosine'
  config.sampler.policy.type = 'process.masking.LikelyFirst'
