"""Parts of ReCAP (arXiv 2505.19089), shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs.common import block
from arvision.configs.titok import parts as titok


def maskgit(
  config: ConfigDict,
  *,
  full_steps: int,
  reuse: int = 1,
  noise: float = 5.5,
  last: float = 0.7,
  skips: bool = True,
  biases: tuple[str, ...] = ('out',),
  **sizes,
) -> None:
  """The six parts of MaskGIT-r, the U-ViT of AutoNAT, with ReCAP's sampler.

  Args:
    config: to fill.
    full_steps, reuse: see `samplers.recap.Reuse`.
    noise: on confidences at the start.
    last: temperature of ids at the last step.
    skips: whether there are long skips.
    biases: of the attention.
    **sizes: of `configs.titok.parts.uvit`, without temperature and guidance.
  """
  guidance = block(type='process.guidance.Constant', scale=1.0)
  titok.uvit(config, temperature=noise, guidance=guidance, **sizes)
  config.release = block(type='importers.recap.Transformer')
  config.layout.prefix = 1
  backbone = config.backbone
  inner = 'Skips' if skips else 'Unjoined'
  backbone.body = block(
    type='backbones.bodies.TiedLogits',
    body=block(type=f'backbones.bodies.{inner}'),
  )
  backbone.position = block(type='layers.position.PerToken')
  backbone.embedding_norm = block(type='layers.norm.TokenLayerNorm')
  backbone.block.attention.biases = biases
  config.head.type = 'heads.categorical.Given'
  config.condition.update(
    start=True, norm=block(type='layers.norm.AffineLayerNorm')
  )
  config.sampler.update(
    type='samplers.recap.ReuseMasked',
    schedule='autonat',
    reuse=reuse,
    full_steps=full_steps,
  )
  config.sampler.policy = block(
    type='process.masking.SampledAgain', temperature=noise, last=last
  )


def reuse_in_mar(
  config: ConfigDict,
  *,
  full_steps: int,
  reuse: int = 1,
  share: float = 0.4,
  prefix_again: bool = True,
) -> None:
  """Replaces the sampler of MAR by ReCAP's.

  Args:
    config: of MAR.
    full_steps, reuse, share, prefix_again: see `samplers.recap`.
  """
  config.sampler.update(
    type='samplers.recap.ReuseRandomOrder',
    reuse=reuse,
    full_steps=full_steps,
    share=share,
    prefix_again=prefix_again,
    least_masked=0,
  )
