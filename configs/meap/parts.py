"""Parts of MEAP (arXiv 2502.07490), shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs.llamagen import parts as llamagen_parts


def meap(config: ConfigDict, *, masked: float = 0.15, **sizes) -> None:
  """The six parts of MEAP: LlamaGen's, with masked input codes in training.

  Args:
    config: to fill.
    masked: share of the input codes.
    **sizes: of `llamagen`.
  """
  llamagen_parts.llamagen(config, **sizes)
  del config.release
  config.feed.masked = masked
  config.backbone.input.extra = 1
