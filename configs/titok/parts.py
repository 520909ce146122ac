"""Parts of TiTok, shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs import common
from arvision.configs.common import block

# TiTok's transformers.
SIZES = {
  'small': dict(width=512, depth=8, heads=8),
  'base': dict(width=768, depth=12, heads=12),
  'large': dict(width=1024, depth=24, heads=16),
}

# Of the generators that fill masked codes.
MASKED_OPTIM = {'weight_decay': 0.03, 'b2': 0.96}

# Parameters of a tokenizer that have two axes and no weight decay.
NO_DECAY = (
  'class_embedding',
  'codebook',
  'dec/embed',
  'dec/mask',
  'latents',
  'patches',
  'position',
)

# What the second stage of a legacy TiTok does not train.
WARMED_UP = ('enc', 'quant')


def titok(
  *,
  length: int,
  vocab_size: int,
  channels: int,
  encoder: dict[str, int],
  decoder: dict[str, int],
  grid: tuple[int, int],
  patch: int,
  image_channels: int = 3,
  normalize: bool = False,
) -> ConfigDict:
  """The tokenizer block of TiTok (arXiv 2406.07550).

  Args:
    length: tokens of an image.
    vocab_size, channels: of the codebook; without codes, `vocab_size=0`, tokens
      are latents with a Gaussian posterior.
    encoder, decoder: their `width`, `depth` and `heads`.
    grid: (height, width) in patches.
    patch: side of a patch in pixels.
    image_channels: 3, or 1 for grey.
    normalize: codes on the unit sphere.
  """
  if vocab_size:
    lookup = common.unit_lookup if normalize else common.lookup
    quantizer, z_channels = lookup(vocab_size, channels), channels
  else:
    quantizer = block(type='quantizers.kl.KL', channels=channels, kl=1e-6)
    z_channels = 2 * channels

  def vit(type, size, **more):
    return block(
      type=f'layers.vit.{type}', patch=patch, length=length, **size, **more
    )

  return block(
    type='tokenizers.autoencoder.Autoencoder',
    grid=(1, length),
    quantizer=quantizer,
    quant_kernel=0,
    darkest=0.0,
    encoder=vit('Encoder', encoder, z_channels=z_channels),
    decoder=vit('Decoder', decoder, grid=grid, channels=image_channels),
  )


def legacy_titok(
  *,
  pixels: ConfigDict,
  normalize: bool = True,
  **sizes,
) -> ConfigDict:
  """The tokenizer block of TiTok-L-32, B-64 and S-128.

  Args:
    pixels: block of the second tokenizer.
    normalize: codes on the unit sphere, as published.
    **sizes: of `titok`.
  """
  config = titok(normalize=normalize, **sizes)
  codes, channels = pixels.quantizer.vocab_size, pixels.quantizer.channels
  config.type = 'tokenizers.legacy_titok.LegacyTiTok'
  config.encoder.type = 'layers.vit.LegacyEncoder'
  config.decoder.type = 'layers.vit.CodesDecoder'
  config.decoder.codes = codes
  config.pixel_quantizer = common.lookup(codes, channels, std=0.02)
  config.pixel_decoder = pixels.decoder
  return config


def titok_warmup(config: ConfigDict, teacher: ConfigDict, workdir: str) -> None:
  """The task of the first stage of a legacy TiTok.

  Args:
    config: to fill.
    teacher: the tokenizer block whose codes are predicted.
    workdir: where it was trained; `--config.frozen.teacher` changes it.
  """
  config.task = block(type='tasks.proxy.TrainProxy', teacher=teacher)
  config.frozen = block(teacher=workdir)


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
  config.feed = block(type='feeds.mask.RandomMask', schedule='arccos')
  norm = block(type='layers.norm.AffineLayerNorm', epsilon=1e-5)
  config.backbone = block(
    type='backbones.decoder.Decoder',
    width=width,
    depth=depth,
    heads=heads,
    input=block(
      type='backbones.decoder.CodeInput', vocab_size=vocab_size, extra=1
    ),
    block=block(
      type='layers.blocks.Block',
      attention=block(
        type='layers.attention.Attention',
        kernel='auto',
        biases=('out',),
        dropout=dropout,
      ),
      mlp=block(type='layers.blocks.ExactGELU', hidden=hidden, dropout=dropout),
      norm=norm,
    ),
    last_norm=norm,
    body=block(type='backbones.bodies.Skips'),
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
    logits_filter=block(type='process.logits.LogitsFilter', temperature=1.0),
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
  del config.backbone.body
  config.backbone.update(embedding_norm=norm, dropout=dropout)
  config.backbone.last_norm = block(type='layers.norm.NoNorm')
  config.backbone.block.update(type='layers.blocks.PostNormBlock', norm=norm)
  config.backbone.block.attention.update(
    biases=('q', 'k', 'v', 'out'), weights_dropout=dropout
  )
