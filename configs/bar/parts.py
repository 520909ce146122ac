"""Parts of BAR, shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs import common
from arvision.configs.common import block


def tokenizer(
  *,
  bits: int,
  grid: tuple[int, int],
  patch: int,
  encoder: dict[str, int],
  decoder: dict[str, int],
  positions: tuple[int, int],
  image_channels: int = 3,
  hidden: int | None = None,
  align: dict[str, int] | None = None,
) -> ConfigDict:
  """The tokenizer block of BAR (arXiv 2602.09024): bits of patches.

  Args:
    bits: of a token.
    grid: (height, width) in patches.
    patch: side of a patch in pixels.
    encoder, decoder: their `width`, `depth` and `heads`.
    positions: (height, width) of the encoder's table of positions.
    image_channels: 3, or 1 for grey.
    hidden: of the encoder's MLPs; None: four times its width.
    align: `hidden`, `layer` and `weight` of the alignment with a frozen copy of
      the encoder; None: there is none.
  """

  def vit(kind, size, mlp, hidden, epsilon, **more):
    norm = block(type='layers.norm.AffineLayerNorm', epsilon=epsilon)
    return block(
      type=f'layers.patch_vit.{kind}',
      patch=patch,
      norm=norm,
      block=block(
        type='layers.blocks.Block',
        attention=block(
          type='layers.attention.Attention',
          kernel='auto',
          biases=('q', 'k', 'v', 'out'),
        ),
        mlp=block(type=f'layers.blocks.{mlp}', hidden=hidden),
        norm=norm,
      ),
      **size,
      **more,
    )

  config = block(
    type='tokenizers.aligned.AlignedPatches',
    grid=grid,
    patch=1,
    quant_kernel=0,
    encoder=vit(
      'PatchEncoder',
      encoder,
      'GELU',
      hidden or 4 * encoder['width'],
      1e-6,
      z_channels=bits,
      positions=positions,
    ),
    quantizer=block(
      type='quantizers.fsq.SymmetricFSQ', levels=(2,) * bits, ids=bits
    ),
    decoder=vit(
      'PatchDecoder',
      decoder,
      'ExactGELU',
      4 * decoder['width'],
      1e-5,
      grid=grid,
      channels=image_channels,
    ),
  )
  if align is not None:
    config.align = block(
      type='tokenizers.aligned.Alignment', encoder=config.encoder, **align
    )
  return config


# Names that the published code keeps free of weight decay.
NO_DECAY = (
  'position/',
  'condition/steps',
  'adaln/',
  'table',
  'head/time',
  'head/linear',
)


def bar(
  config: ConfigDict,
  *,
  grid: tuple[int, int],
  bits: int,
  classes: int | None,
  depth: int,
  width: int,
  heads: int,
  allocation: tuple[int, ...],
  patch: int = 1,
  repeat: int = 32,
  head_width: int = 2048,
  head_depth: int = 3,
  dropout: float = 0.0,
  guidance: float = 5.0,
  temperature: float = 2.5,
  start: float = 0.5,
  end: float = 0.75,
  spare_positions: int = 0,
  spare_steps: int = 0,
) -> None:
  """The six parts of BAR (arXiv 2602.09024).

  Published tables of positions, of steps and of classes are longer than what is
  used of them; `spare_positions` and `spare_steps` say by how much.

  Args:
    config: to fill; a `tokenizer` in it gets the patches.
    grid: (height, width) of the patches of the tokenizer's encoder.
    bits: of such a patch.
    classes, depth, width, heads: as usual.
    allocation: bits of a token that every step of the head keeps.
    patch: side of a token, in patches of the encoder.
    repeat: prefix slots that the class fills.
    head_width, head_depth: of the head.
    dropout: on attention and within the MLP.
    guidance: scale after the last step.
    temperature: of the noise on the bits.
    start, end: see `feeds.shift.Permuted`.
    spare_positions, spare_steps: see above.
  """
  height, width_ = (side // patch for side in grid)
  tokens, prefix, parts = height * width_, 1 + repeat, bits * patch**2
  if 'tokenizer' in config:
    config.tokenizer.patch = patch
  config.release = block(type='importers.bar.Transformer', prefix=prefix)
  config.layout = block(
    type='layouts.grid.raster',
    height=height,
    width=width_,
    prefix=prefix,
    longest=64,
    prefix_aims=True,
  )
  config.feed = block(type='feeds.shift.Permuted', start=start, end=end)
  norm = block(type='layers.norm.RMSNorm', epsilon=1e-6)
  config.backbone = block(
    type='backbones.decoder.Decoder',
    width=width,
    depth=depth,
    heads=heads,
    input=block(type='backbones.inputs.SharedPartsInput', parts=parts, size=2),
    block=block(
      type='layers.blocks.Block',
      attention=block(
        type='layers.attention.AimedAttention',
        kernel='auto',
        logits=block(type='layers.attention.Normed', norm=norm),
        biases=('q', 'k', 'v', 'out'),
        dropout=dropout,
      ),
      mlp=block(
        type='layers.blocks.BiasedSwiGLU',
        hidden=int(2 / 3 * 4 * width),
        inner_dropout=dropout,
      ),
      norm=norm,
      adaln=block(type='layers.blocks.AdaLN', std=0.0),
    ),
    last_norm=norm,
    position=block(
      type='layers.position.Aimed', rows=prefix + tokens + spare_positions
    ),
    rotary=block(type='layers.position.AimedRotary'),
    remat='none',
    unroll=1,
  )
  config.head = block(
    type='heads.masked_bits.MaskedBits',
    channels=parts,
    levels=2,
    width=head_width,
    depth=head_depth,
    hidden=int(2 / 3 * 4 * head_width),
    allocation=allocation,
  )
  config.condition = block(
    type='layers.condition.ClassLabel',
    classes=classes,
    width=width,
    prefix=repeat,
    tokens=1,
    steps=prefix + tokens + spare_steps,
    spare=3,
    modulate=True,
    drop=0.1,
  )
  config.sampler = block(
    type='samplers.entity.EntityAR',
    guidance=block(type='process.guidance.Linear', end=guidance, over=tokens),
    logits_filter=block(
      type='process.logits.LogitsFilter', temperature=temperature
    ),
  )


def published(tokenizer: ConfigDict, workdir: str, *, steps: int, **sizes):
  """A generator's config with the published recipe.

  Args:
    tokenizer: config of its tokenizer.
    workdir: where that was trained.
    steps: duration.
    **sizes: of `bar`.
  """
  config = common.generator(tokenizer, workdir)
  bar(
    config,
    grid=config.tokenizer.grid,
    bits=len(config.tokenizer.quantizer.levels),
    classes=1000,
    spare_positions=95,
    spare_steps=67,
    **sizes,
  )
  config.backbone.dtype = config.head.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  config.data.batch_size = 2048
  config.train = block(duration=block(steps=steps))
  config.optim = common.adamw(
    4e-4,
    common.cosine(0.025, fraction=0.25),
    weight_decay=0.03,
    b2=0.96,
    clip=1.0,
    exempt=NO_DECAY,
  )
  config.ema = ()
  return common.locked(config)
