"""Parts of NFIG, shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs.var import parts as var


def banded(config: ConfigDict) -> ConfigDict:
  """The config of a tokenizer of VAR -> of NFIG (arXiv 2503.07076), unlocked."""
  config = config.unlock()
  del config.release
  config.tokenizer.update(
    type='tokenizers.frequency.FrequencyPyramid', cutoffs=()
  )
  return config


def nfig(config: ConfigDict, **options) -> None:
  """The six parts of NFIG: VAR over frequency bands.

  Args:
    config: with a tokenizer; to fill.
    **options: of `var.parts.var`.
  """
  tokenizer = config.tokenizer
  var.var(
    config,
    scales=tokenizer.scales,
    vocab_size=tokenizer.quantizer.vocab_size,
    **options,
  )
  del config.release
