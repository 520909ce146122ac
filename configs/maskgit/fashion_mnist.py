"""MaskGIT on Fashion-MNIST at 32 px.

    arvision train --config=configs/llamagen/fashion_mnist_tokenizer.py \\
      --workdir=runs/llamagen/fashion_mnist_tokenizer
    arvision train --config=configs/maskgit/fashion_mnist.py \\
      --workdir=runs/maskgit/fashion_mnist

A BERT over the 8 × 8 codes of LlamaGen's tokenizer, sampled in 32 steps.

Source: arXiv 2202.04200, at a size for two CPU cores. Deviations: the tokenizer is
LlamaGen's, labels are dropped and samples guided.
"""

from arvision.configs import common
from arvision.configs.llamagen import fashion_mnist_tokenizer
from arvision.configs.maskgit import parts
from arvision.configs.var import fashion_mnist as var


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    fashion_mnist_tokenizer.get_config(),
    'runs/llamagen/fashion_mnist_tokenizer',
  )
  parts.maskgit(
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    depth=4,
    width=128,
    heads=4,
    hidden=512,
    steps=32,
    dropout=0.0,
  )
  config.condition.drop = 0.1
  config.sampler.guidance.scale = 1.5
  var.recipe(config, clip=1.0)
  del config.evals.likelihood  # no order of tokens has one
  config.train.duration.epochs = 3.0
  return common.locked(config)
