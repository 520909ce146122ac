"""Parts of MaskGIT, shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs import common
from arvision.configs.common import block
from arvision.configs.titok import parts as titok_parts


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
    type='tokenizers.autoencoder.Autoencoder',
    grid=grid,
    quantizer=common.lookup(vocab_size, channels, entropy=entropy),
    quant_kernel=0,
    darkest=0.0,
    encoder=block(
      type='layers.maskgit_conv.Encoder', z_channels=channels, **shared
    ),
    decoder=block(
      type='layers.maskgit_conv.Decoder', channels=image_channels, **shared
    ),
  )


def maskgit(config: ConfigDict, *, temperature: float = 4.5, **sizes) -> None:
  """The six parts of MaskGIT (arXiv 2202.04200).

  Args:
    config: to fill.
    temperature: of the sampler's noise.
    **sizes: of `uvit`.
  """
  titok_parts.bert(
    config,
    temperature=temperature,
    guidance=block(type='process.guidance.Constant', scale=1.0),
    **sizes,
  )
  del config.release
  config.feed.update(schedule='cosine', lowest=0.5, unmasked_weight=0.0)
  config.backbone.block.mlp.type = 'layers.blocks.GELU'
  config.head.type = 'heads.categorical.Transformed'
  config.head.width = config.backbone.width
  config.condition.drop = 0.0
  config.sampler.schedule = 'cosine'
  config.sampler.policy.type = 'process.masking.LikelyFirst'
