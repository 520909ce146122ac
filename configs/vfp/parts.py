"""Parts of VFP (arXiv 2502.16965), shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs.llamagen import parts as llamagen_parts


def vfp(
  config: ConfigDict, *, rows: int, prompt: str = 'class', **sizes
) -> None:
  """The six parts of VFP: LlamaGen's, behind a prompt that they predict too.

  Args:
    config: to fill; it has data and a tokenizer of codes.
    rows: of codes of the prompt.
    prompt: see `tokenizers.prompted.Prompted`.
    **sizes: of `llamagen`, without the grid.
  """
  height, width = config.tokenizer.grid
  config.tokenizer.update(
    type='tokenizers.prompted.Prompted', rows=rows, prompt=prompt
  )
  config.data.companions = 1 if prompt == 'class' else 0
  llamagen_parts.llamagen(
    config,
    grid=(rows + height, width),
    vocab_size=config.tokenizer.quantizer.vocab_size,
    **sizes,
  )
  del config.release
