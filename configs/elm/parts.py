"""Parts of ELM, shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs import common
from arvision.configs.common import block
from arvision.configs.llamagen import parts as llamagen


def bae(
  *,
  grid: tuple[int, int],
  bits: int,
  ids: int = 1,
  channels: int = 256,
  attention_levels: tuple[int, ...] | None = None,
  norm_first: bool = False,
  deterministic: bool = False,
  signed: bool = False,
  code: float = 0.0,
  gen_mul: float = 1.0,
  res_blocks: int = 2,
  **convolutions,
) -> ConfigDict:
  """The block of a binary autoencoder.

  Args:
    grid: (height, width) in tokens.
    bits: of a token.
    ids: that the bits of a token are cut into.
    channels: of what the encoder gives and the decoder takes.
    attention_levels: see `layers.conv.Encoder`, of both halves.
    norm_first: whether the decoder starts with a norm.
    deterministic, signed, code: see `quantizers.bernoulli.Bernoulli`.
    gen_mul: residual blocks of the decoder, in units of the encoder's.
    res_blocks: per level of the encoder.
    **convolutions: see `common.autoencoder`.
  """
  halves = common.autoencoder(
    res_blocks=res_blocks, z_channels=channels, **convolutions
  )
  for half in halves.values():
    half.update(last_swish=False, attention_levels=attention_levels)
  halves['decoder'].update(
    norm_first=norm_first,
    # Ours has one more.
    res_blocks=int(res_blocks * gen_mul) - 1,
  )
  return block(
    type='tokenizers.autoencoder.Autoencoder',
    grid=grid,
    quantizer=block(
      type='quantizers.bernoulli.Bernoulli',
      channels=bits,
      ids=ids,
      deterministic=deterministic,
      signed=signed,
      code=code,
    ),
    post_bias=False,
    darkest=0.0,
    **halves,
  )


def elm(
  config: ConfigDict,
  *,
  parts: int,
  vocab_size: int,
  guidance: float = 4.0,
  adaln: bool = False,
  **sizes,
) -> None:
  """The six parts of ELM, next-token prediction.

  Args:
    config: to fill.
    parts: ids of a token.
    vocab_size: number of ids of a part.
    guidance: scale at the last token.
    adaln: whether the class modulates the norms too.
    **sizes: of `configs.llamagen.parts.llamagen`.
  """
  llamagen.llamagen(config, vocab_size=vocab_size, **sizes)
  several = {'parts': parts, 'vocab_size': vocab_size}
  config.release = block(type='importers.elm.Transformer')
  config.backbone.input = block(type='backbones.decoder.PartsInput', **several)
  config.head = block(
    type='heads.categorical.Categorical', bias=False, std=0.0, **several
  )
  config.sampler.guidance = block(
    type='process.guidance.Rising', scale=guidance, shape='linear'
  )
  if adaln:
    config.condition.modulate = True
    config.backbone.block.adaln = block(
      type='layers.blocks.AdaLN', gate=1.0, rest=1.0
    )
    config.backbone.last_norm = block(
      type='layers.norm.ModulatedNorm', norm=config.backbone.last_norm
    )


def elm_mlm(
  config: ConfigDict,
  *,
  parts: int,
  vocab_size: int,
  steps: int = 10,
  temperature: float = 1.0,
  **sizes,
) -> None:
  """The six parts of ELM's masked models.

  The network takes every id as one token. The ids of a place have its position and
  are masked together. One table embeds all ids, and gives the logits too.

  Args:
    config: to fill.
    parts: ids of a place.
    vocab_size: number of ids.
    steps: of the sampler.
    temperature: of the noise of its confidences.
    **sizes: of `elm`, without `adaln`.
  """
  elm(config, parts=1, vocab_size=vocab_size, **sizes)
  if 'tokenizer' in config:
    config.tokenizer.type = 'tokenizers.autoencoder.Unrolled'
  del config.release  # there are no released weights
  raster, autoregressive = config.layout, config.sampler
  config.layout = block(
    type='layouts.grid.whole',
    height=raster.height,
    width=raster.width,
    prefix=parts,
    copies=parts,
  )
  config.condition.prefix = parts
  config.feed = block(
    type='feeds.mask.RandomMask',
    schedule='cosine',
    unmasked_weight=0.0,
    together=parts,
  )
  config.backbone.input = block(
    type='backbones.decoder.CodeInput', vocab_size=vocab_size, extra=1
  )
  config.backbone.body = block(type='backbones.bodies.TiedLogits')
  config.head = block(
    type='heads.categorical.Given',
    vocab_size=vocab_size,
    label_smoothing=0.1,
  )
  config.sampler = block(
    type='samplers.masked.Masked',
    steps=steps,
    schedule='cosine',
    together=parts,
    policy=block(type='process.masking.LikelyFirst', temperature=temperature),
    guidance=autoregressive.guidance,
    logits_filter=autoregressive.logits_filter,
  )
