"""Clusters of LlamaGen's codes of scikit-learn's digits, and CTF's fine stage.

    arvision train --config=configs/llamagen/digits_tokenizer.py \\
      --workdir=runs/llamagen/digits_tokenizer
    arvision train --config=configs/ctf/digits_tokenizer.py \\
      --workdir=runs/ctf/digits_tokenizer

The 128 codes become 32 clusters; a network of four layers predicts the codes of
all 16 places in one pass. `random` has random clusters instead, CTF's control.

Cost: 0.8 minutes on two cores of an Intel Xeon.

Source: arXiv 2503.16194, at a size for 8 × 8 px.
"""

from arvision.configs import common
from arvision.configs.ctf import parts
from arvision.configs.llamagen import digits_tokenizer

SIZES = {'': 'KMeans', 'random': 'RandomClusters'}


def get_config(arg: str = ''):
  clustering = common.size(arg, SIZES)
  config = digits_tokenizer.get_config().unlock()
  parts.fine(
    config,
    teacher='runs/llamagen/digits_tokenizer',
    clusters=32,
    clustering=clustering,
    guidance=1.0,
    classes=10,
    depth=4,
    width=96,
    heads=4,
    hidden=256,
    dropout=0.2,
  )
  config.tokenizer.backbone.unroll = 4  # all layers, see layers.stack.Stack
  config.train.duration = common.block(epochs=15)
  config.optim = common.adamw(2e-3, common.cosine(0.05, epochs=2), clip=1.0)
  config.optim.trained.only = parts.FINE
  return common.locked(config)
