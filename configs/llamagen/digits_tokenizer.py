"""A single-scale VQ tokenizer of scikit-learn's digits, for LlamaGen and NAR.

    arvision train --config=configs/llamagen/digits_tokenizer.py \\
      --workdir=runs/llamagen/digits_tokenizer

8 × 8 px become 4 × 4 codes of 128.

Cost: 1.1 minutes on two cores of an AMD EPYC.

Source: arXiv 2406.06525 (unit-length codes, loss). Deviations: as in
var/digits_tokenizer.py.
"""

from arvision.configs import common
from arvision.configs.var import digits_tokenizer as var


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.release = common.block(type='importers.llamagen.Tokenizer')
  config.tokenizer = common.block(
    type='tokenizers.autoencoder.Autoencoder',
    grid=(4, 4),
    quantizer=common.unit_lookup(128, 8),
    **var.autoencoder(),
  )
  var.recipe(config, l2=1.0)
  return common.locked(config)
