"""Parts of MaskBit, shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs.common import block
from arvision.configs.maskgit import parts as maskgit_parts


def lfq(bits: int, **fields) -> ConfigDict:
  """The block of a lookup-free quantiser with its losses as published."""
  fields = {'commitment': 0.25, 'entropy': 0.02, **fields}
  return block(type='quantizers.lfq.LFQ', channels=bits, **fields)


def maskbit_tokenizer(*, quantizer: ConfigDict, **sizes) -> ConfigDict:
  """The tokenizer block of MaskBit (arXiv 2409.16211).

  Args:
    quantizer: `lfq`, or `common.lookup` for VQGAN+.
    **sizes: of `maskgit.parts.maskgit_vq`.
  """
  config = maskgit_parts.maskgit_vq(
    vocab_size=1, channels=quantizer.channels, **sizes
  )
  config.quantizer = quantizer
  config.encoder.type = 'layers.maskgit_conv.StridedEncoder'
  return config
