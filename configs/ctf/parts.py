"""Parts of CTF, shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs.common import block
from arvision.configs.llamagen import parts as llamagen

# The trained part of a tokenizer of clusters.
FINE = ('fine_condition', 'fine_backbone', 'fine_head')


def fine(
  config: ConfigDict,
  *,
  teacher: str,
  clusters: int,
  clustering: str = 'KMeans',
  guidance: float,
  **sizes,
) -> None:
  """Turns the config of a tokenizer of codes into one of clusters (CTF).

  The fine stage (arXiv 2503.16194) has the layers of LlamaGen, which all see one
  another. The rows of its table after those of the clusters are not used: the
  published number of parameters counts as many as there are codes.

  Args:
    config: the config of the tokenizer of codes; its data stay.
    teacher: where that tokenizer was trained; `--config.frozen.teacher` changes
      it.
    clusters: number of clusters.
    clustering: a class of `quantizers.clusters`.
    guidance: scale of the fine stage.
    **sizes: of `llamagen.llamagen`.
  """
  codes = config.tokenizer
  vocab_size, net = codes.quantizer.vocab_size, ConfigDict()
  llamagen.llamagen(net, grid=codes.grid, vocab_size=vocab_size, **sizes)
  net.backbone.input.update(vocab_size=clusters, extra=vocab_size - clusters)
  config.task = block(
    type='tasks.fine.TrainFine',
    teacher=codes,
  )
  config.frozen = block(teacher=teacher)
  fields = dict(codes.items()) | {
    'type': 'tokenizers.coarse_to_fine.CoarseToFine',
    'clusters': clusters,
    'clustering': block(type=f'quantizers.clusters.{clustering}'),
    'condition': net.condition,
    'backbone': net.backbone,
    'head': net.head,
    'guidance': guidance,
  }
  config.tokenizer = block(**fields)
  if 'release' in config:
    del config.release


def ctf(config: ConfigDict, **sizes) -> None:
  """The six parts of CTF: LlamaGen over clusters; see `llamagen.llamagen`."""
  tokenizer = config.tokenizer
  llamagen.llamagen(
    config, grid=tokenizer.grid, vocab_size=tokenizer.clusters, **sizes
  )
  del config.release
