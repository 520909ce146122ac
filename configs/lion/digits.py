"""LlamaGen on scikit-learn's digits, trained by Lion or by AdamW.

    arvision train --config=configs/llamagen/digits_tokenizer.py \\
      --workdir=runs/llamagen/digits_tokenizer
    arvision train --config=configs/lion/digits.py:lion-4e-4 \\
      --workdir=runs/lion/digits

Three learning rates for each optimizer, since the best ones differ: the paper
recommends rates 3 to 10 times smaller than those of AdamW, and a weight decay that
is as many times larger. docs/ablations/optimizers.md compares them.

Source: arXiv 2302.06675, section 5; b2 of 0.99. Deviations: the weight decay is ten
times that of AdamW at every rate.
"""

from arvision.configs import common
from arvision.configs.llamagen import digits

_RATES = {'lion': (1e-4, 2e-4, 4e-4), 'adamw': (1e-3, 2e-3, 4e-3)}
SIZES = {
  f'{kind}-{rate:.0e}'.replace('e-0', 'e-'): (kind, rate)
  for kind, rates in _RATES.items()
  for rate in rates
}


def get_config(arg: str = 'lion-4e-4'):
  kind, rate = common.size(arg or 'lion-4e-4', SIZES)
  config = digits.get_config()
  config.optim.learning_rate = rate
  if kind == 'lion':
    config.optim.update(kind=kind, b2=0.99)
    config.optim.weight_decay *= 10
  return config


def get_sweep():
  """Every optimizer and rate over one tokenizer, for `arvision sweep`."""
  needs = {'frozen.tokenizer': 'llamagen/digits_tokenizer'}
  return [{'variant': size, 'needs': needs} for size in SIZES]
