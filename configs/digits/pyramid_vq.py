"""A tokenizer of scikit-learn's digits whose every scale is a picture.

    arvision train --config=configs/digits/pyramid_vq.py \\
      --workdir=runs/digits/pyramid_vq

8 × 8 px become 30 codes of 128 on grids of side 1, 2, 3, 4; the last 16 are the
picture.

Source: arXiv 2502.20313. Deviations: as in `tokenizer.py` beside this file.
"""

from arvision.configs import common
from arvision.configs.digits import tokenizer


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.release = common.block(type='importers.llamagen.Tokenizer')
  config.tokenizer = common.block(
    type='tokenizers.pyramid.PyramidVQ',
    scales=(1, 2, 3, 4),
    vocab_size=128,
    channels=8,
    commitment=0.25,
    **tokenizer.autoencoder(),
  )
  tokenizer.recipe(config, l2=1.0)
  return common.locked(config)
