"""Parts of FlexVAR, shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs import common
from arvision.configs.common import block
from arvision.configs.var import parts as var_parts


def pyramid_vq(
  *, scales, vocab_size: int, channels: int, **convolutions
) -> ConfigDict:
  """The block of FlexVAR's tokenizer; see `common.autoencoder`."""
  return block(
    type='tokenizers.pyramid.Pyramid',
    quantizer=common.unit_lookup(vocab_size, channels),
    scales=scales,
    smaller=1.0,
    **common.autoencoder(**convolutions),
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
    drawn: the sides that are sampled; they may be larger than `scales`.
    groups, budget: of `feeds.resample.RandomScales`; `drawn` is its usual list
      with probability `usual_share`, or the first sides of it.
    guidance: FlexVAR's cfg: the scale runs linearly from 1 to 1 + cfg over the
      first ten steps, and on at the same pace; it is 1 + cfg for sides larger
      than `largest`.
    best: sides at which the best code is taken.
    top_k, top_p: for the codes of the other sides.
    **sizes: of `var`.
  """
  var_parts.var(config, scales=scales, top_k=top_k, top_p=top_p, **sizes)
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
  config.sampler.greedy_steps = tuple(
    s for s, p in enumerate(drawn) if p in best
  )
  config.sampler.guidance = block(
    type='process.guidance.Listed',
    scale=1 + guidance,
    shares=tuple(map(float, shares)),
  )
