"""A VQ tokenizer of scikit-learn's digits whose every scale is a picture.

    arvision train --config=configs/flexvar/digits_tokenizer.py \\
      --workdir=runs/flexvar/digits_tokenizer

8 × 8 px become 30 codes of 128 on grids of side 1, 2, 3, 4; the last 16 are the
picture.

Cost: 1.7 minutes on two cores of an AMD EPYC.

Source: arXiv 2502.20313. Deviations: as in var/digits_tokenizer.py.
"""

from arvision.configs import common
from arvision.configs.var import digits_tokenizer as var


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.release = common.block(type='importers.llamagen.Tokenizer')
  config.tokenizer = common.block(
    type='tokenizers.pyramid.Pyramid',
    scales=(1, 2, 3, 4),
    quantizer=common.unit_lookup(128, 8),
    smaller=1.0,
    **var.autoencoder(),
  )
  var.recipe(config, l2=1.0)
  return common.locked(config)
