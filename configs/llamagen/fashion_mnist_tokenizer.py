"""A VQ tokenizer of Fashion-MNIST at 32 px, for LlamaGen.

    arvision train --config=configs/llamagen/fashion_mnist_tokenizer.py \\
      --workdir=runs/llamagen/fashion_mnist_tokenizer

32 × 32 px become 8 × 8 codes of 256. 24.2 dB on the held-out
images (`arvision eval`).

Cost: 10 minutes on two cores of an AMD EPYC.

Source: arXiv 2406.06525 (quantiser). Deviations: as in var/fashion_mnist_tokenizer.py.
"""

from arvision.configs import common
from arvision.configs.var import fashion_mnist_tokenizer as var


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.release = common.block(type='importers.llamagen.Tokenizer')
  config.tokenizer = common.block(
    type='tokenizers.autoencoder.Autoencoder',
    grid=(8, 8),
    quantizer=common.unit_lookup(256, 8),
    **var.autoencoder(),
  )
  var.recipe(config)
  return common.locked(config)
