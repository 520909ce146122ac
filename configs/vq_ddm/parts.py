"""Parts of VQ-DDM (arXiv 2112.01799), shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs.common import block
from arvision.configs.vq_diffusion import parts as vq_diffusion_parts


def vq_ddm(
  config: ConfigDict, *, vocab_size: int, steps: int = 4000, **sizes
) -> None:
  """The six parts of VQ-DDM: VQ-Diffusion's, with codes that are never masked.

  Args:
    config: to fill.
    vocab_size: number of codes.
    steps: times of the diffusion.
    **sizes: of `vq_diffusion`.
  """
  vq_diffusion_parts.vq_diffusion(
    config,
    vocab_size=vocab_size,
    steps=steps,
    sinusoid=True,
    auxiliary=0.0,
    top_p=1.0,
    **sizes,
  )
  del config.release
  process = block(
    type='process.transitions.Multinomial', vocab_size=vocab_size, steps=steps
  )
  config.feed.process = process
  config.head.process = process
  config.backbone.input.extra = 0
