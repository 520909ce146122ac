"""LlamaGen on Fashion-MNIST at 32 px.

    arvision train --config=configs/fashion_mnist/llamagen.py \\
      --workdir=runs/fashion_mnist/llamagen

Train the tokenizer first (`vq.py`). A quarter of an hour on two cores of an AMD
EPYC; the README has what `arvision eval` says of it.

Source: arXiv 2406.06525, at a size for two CPU cores.
"""

from arvision.configs import common
from arvision.configs.fashion_mnist import var, vq
from arvision.configs.llamagen import parts


def get_config(arg: str = ''):
  del arg
  config = common.generator(vq.get_config(), 'runs/fashion_mnist/vq')
  parts.llamagen(
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.vocab_size,
    classes=10,
    depth=4,
    width=128,
    heads=4,
    hidden=352,
    dropout=0.0,
    guidance=2.0,
  )
  var.recipe(config, clip=1.0)
  return common.locked(config)
