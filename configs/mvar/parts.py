"""Parts of M-VAR, shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs.common import block
from arvision.configs.var import parts as var_parts


def mvar(
  config: ConfigDict,
  *,
  width: int,
  heads: int,
  l2_norm: bool = True,
  state: int = 64,
  head: int = 64,
  **var,
) -> None:
  """VAR with attention inside a scale, and Mamba-2 from scale to scale.

  Args:
    config: to fill.
    width, heads: of the transformer.
    l2_norm: whether queries and keys have unit length (M-VAR's attn_l2_norm).
    state, head: of `layers.mamba.Mamba2`.
    **var: of VAR's `var`.
  """
  var_parts.var(config, width=width, heads=heads, **var)
  config.release = block(type='importers.mvar.Transformer')
  config.layout.window = 0
  own = config.backbone.block
  own.type = 'layers.mamba.MixerBlock'
  own.adaln.type = 'layers.mamba.OpenAdaLN'
  own.mixer = block(
    type='layers.mamba.Mamba2',
    state=state,
    head=head,
    std=own.mlp.std,
    conv_std=0.02,
  )
  if not l2_norm:
    own.attention.logits = block(
      type='layers.attention.Scaled', scale=0.25 / (width // heads) ** 0.5
    )
