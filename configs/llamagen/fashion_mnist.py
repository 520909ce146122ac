"""LlamaGen on Fashion-MNIST at 32 px.

    arvision train --config=configs/llamagen/fashion_mnist.py \\
      --workdir=runs/llamagen/fashion_mnist

Train the tokenizer first (`fashion_mnist_tokenizer.py`). docs/experiments.md
has its metrics.

Cost: 15 minutes on two cores of an AMD EPYC.

Source: arXiv 2406.06525, at a size for two CPU cores.
"""

from arvision.configs import common
from arvision.configs.llamagen import fashion_mnist_tokenizer, parts
from arvision.configs.var import fashion_mnist as var


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    fashion_mnist_tokenizer.get_config(),
    'runs/llamagen/fashion_mnist_tokenizer',
  )
  parts.llamagen(
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
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
