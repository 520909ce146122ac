"""Parts of MaskBit, shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs.common import block
from arvision.configs.maskgit import parts as maskgit_parts
from arvision.configs.titok import parts as titok_parts


def lfq(bits: int, **fields) -> ConfigDict:
  """The block of a lookup-free quantiser with its losses as published."""
  published = {'commitment': 0.25, 'entropy': 0.02, 'extra': 2.0}
  return block(
    type='quantizers.lfq.LFQ', channels=bits, **{**published, **fields}
  )


def maskbit_tokenizer(*, quantizer: ConfigDict, **sizes) -> ConfigDict:
  """The tokenizer block of MaskBit (arXiv 2409.16211).

  Args:
    quantizer: `lfq`, or `common.lookup` for VQGAN+.
    **sizes: of `maskgit.parts.maskgit_vq`.
  """
  config = maskgit_parts.maskgit_vq(
    vocab_size=1, channels=quantizer.channels, **sizes
  )
  config.quantizer = block(**quantizer)
  config.encoder.type = 'layers.maskgit_conv.StridedEncoder'
  return config


def maskbit(
  config: ConfigDict,
  *,
  bits: int,
  splits: int = 2,
  guidance: ConfigDict,
  temperature: float,
  prenorm: bool = False,
  **sizes,
) -> None:
  """The six parts of MaskBit (arXiv 2409.16211).

  Args:
    config: to fill; its tokenizer, if it has one, gives tokens of `splits` ids.
    bits: of a token.
    splits: ids that they are divided into.
    guidance: block of the sampler's schedule.
    temperature: of its noise.
    prenorm: norms before the sub-layers and after the last one, not after the sums.
    **sizes: of `titok.parts.uvit`.
  """
  vocab_size = 2 ** (bits // splits)
  titok_parts.bert(
    config,
    vocab_size=vocab_size,
    guidance=guidance,
    temperature=temperature,
    **sizes,
  )
  if 'tokenizer' in config:
    config.tokenizer.quantizer.ids = splits
  config.release = block(type='importers.maskbit.Generator')
  config.feed = block(type='feeds.mask.RandomParts', schedule='arccos')
  if prenorm:
    config.backbone.block.type = 'layers.blocks.Block'
    config.backbone.last_norm = block(**config.backbone.block.norm)
  config.backbone.input = block(type='backbones.decoder.VectorInput')
  config.head.update(
    type='heads.categorical.ExactTransformed',
    parts=splits,
    width=config.backbone.width,
  )
  config.sampler.policy.type = 'process.masking.LikelyFirst'


def guidance(scale: float, power: float) -> ConfigDict:
  """The published schedule: c + s (c - u) is guidance by 1 + s here."""
  return block(
    type='process.guidance.PowerCosine', scale=1 + scale, power=power
  )
