"""Parts of Token-Shuffle, shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs.common import block
from arvision.configs.llamagen import parts as llamagen


def token_shuffle(
  config: ConfigDict,
  *,
  window: int,
  width: int,
  fusion: int = 2,
  guidance: float,
  captions: bool = False,
  **sizes,
) -> None:
  """The six parts of Token-Shuffle (arXiv 2504.17789): LlamaGen over windows.

  Args:
    config: to fill; its tokenizer has one grid of codes.
    window: side of a window in tokens.
    width: d.
    fusion: residual MLPs after shuffling and before unshuffling.
    guidance: scale of the second half.
    captions: whether a caption is the condition, or a class.
    **sizes: of `llamagen.llamagen`, or of `llamagen.llamagen_t2i`.
  """
  config.tokenizer.update(type='tokenizers.autoencoder.Patched', patch=window)
  height, across = config.tokenizer.grid
  vocab_size = config.tokenizer.quantizer.vocab_size
  fill = llamagen.llamagen_t2i if captions else llamagen.llamagen
  fill(
    config,
    grid=(height // window, across // window),
    vocab_size=vocab_size,
    width=width,
    **sizes,
  )
  del config.release
  config.backbone.input = block(
    type='layers.window.Shuffle',
    vocab_size=vocab_size,
    parts=window**2,
    depth=fusion,
  )
  config.head = block(
    type='heads.window.Unshuffle',
    vocab_size=vocab_size,
    bias=False,
    std=0.0,
    parts=window**2,
    width=width,
    depth=fusion,
  )
  config.sampler.guidance = block(type='process.guidance.Ramp', scale=guidance)
