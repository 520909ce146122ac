"""Parts of blocks for layouts of a clean and a noisy stream."""

import jax.numpy as jnp

from arvision.layers.attention import BlockInputs
from arvision.layers.blocks import AdaLN, Modulation
from arvision.layouts.base import take


class NoisyAdaLN(AdaLN):
  """adaLN of the noisy stream alone; clean slots have no modulation (ACDiT).

  That is gate 1, scale 0 and shift 0, and not what a zero condition gives.

  Source: arXiv 2412.07720; thunlp/ACDiT.
  """

  def __call__(self, inputs: BlockInputs) -> list[Modulation]:
    """The modulation of every sub-layer, see `AdaLN`.

    Raises:
      ValueError: the layout has one stream.
    """
    layout = inputs.layout
    if layout is None or not layout.two_streams:
      raise ValueError(
        'config.backbone.block.adaln (NoisyAdaLN) wants config.layout to be a '
        'layouts.sequence.two_stream; with one stream use layers.blocks.AdaLN'
      )
    noisy = take(layout.stream, inputs.index)[:, None] > 0
    return [
      tuple(
        jnp.where(noisy, x, x.dtype.type(off)) for x, off in zip(m, (1, 0, 0))
      )
      for m in super().__call__(inputs)
    ]
