"""A tokenizer of frequency bands of scikit-learn's digits, for NFIG.

    arvision train --config=configs/nfig/digits_tokenizer.py \\
      --workdir=runs/nfig/digits_tokenizer

8 × 8 px become 30 codes of 128 on grids of side 1, 2, 3, 4. Squares of 2 × 2 px
enter as channels, which keeps the convolutions on a 4 × 4 grid.

Cost: 1.0 minute on two cores of an Intel Xeon.

Source: arXiv 2503.07076 (quantiser and loss). Deviations: cut-offs and losses as
in tokenizer.py; no perceptual loss and no discriminator, which need larger images;
unused codes are restarted.
"""

from arvision.configs import common
from arvision.configs.nfig import parts
from arvision.configs.var import digits_tokenizer


def get_config(arg: str = ''):
  return common.locked(parts.banded(digits_tokenizer.get_config(arg)))
