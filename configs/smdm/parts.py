"""Parts of SMDM (arXiv 2410.18514), shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs.common import block
from arvision.configs.llamagen import parts as llamagen_parts


def smdm(
  config: ConfigDict, *, guidance: float = 1.0, samples: int = 128, **sizes
) -> None:
  """The six parts of SMDM: absorbing diffusion with LlamaGen's transformer.

  The label is masked like a token, so that unsupervised guidance has its null.

  Args:
    config: to fill.
    guidance: scale; 1 + w in the paper.
    samples: of the bound of the likelihood, for every image.
    **sizes: of `llamagen`.
  """
  llamagen_parts.llamagen(config, guidance=guidance, dropout=0.0, **sizes)
  del config.release
  grid = {key: config.layout[key] for key in ('height', 'width')}
  config.layout = block(type='layouts.grid.whole', **grid)
  config.feed = block(
    type='feeds.mask.Absorbing', schedule='linear', lowest=1e-3
  )
  config.backbone.input.extra = 1
  config.head.std = 0.02
  config.condition.drop = None
  config.sampler.type = 'samplers.absorbing.FirstHitting'
  config.sampler.logits_filter = block(
    type='process.logits.Precise', temperature=1.0
  )
  config.evals.likelihood = block(type='evals.masked_likelihood.ChainRule')
  config.evals.elbo = block(
    type='evals.masked_likelihood.MonteCarlo', samples=samples
  )
