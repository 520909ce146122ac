"""One transformer over the tokens of six quantisers of eight bits.

    arvision train --config=ablations/quantizers_tokenizer:lfq \\
      --workdir=runs/ablations/quantizers_tokenizer_lfq
    arvision train --config=ablations/quantizers:lfq \\
      --workdir=runs/ablations/quantizers_lfq

A token is one id of 256, whatever the quantiser of `quantizers_tokenizer.py`; but
`levels` has four ids of four.
`launch/ablations.py` compares them.
"""

from arvision.configs import common
from arvision.configs.ablations import bits, quantizers_tokenizer
from arvision.configs.tokenbridge import parts as tokenbridge

SIZES = quantizers_tokenizer.SIZES


def get_config(arg: str = 'lookup'):
  kind = arg or 'lookup'
  config = common.generator(
    quantizers_tokenizer.get_config(kind),
    f'runs/ablations/quantizers_tokenizer_{kind}',
  )
  if kind == 'levels':
    tokenbridge.quantized(config.tokenizer, 4, low=-3.0, high=3.0)
  bits.transformer(config, ids=4 if kind == 'levels' else 1)
  return common.digits(config, epochs=50)


def get_sweep():
  """Every quantiser over a tokenizer of its own, for `arvision sweep`."""
  tokenizer = 'ablations/quantizers_tokenizer'
  return [
    {'variant': size, 'needs': {'frozen.tokenizer': f'{tokenizer}:{size}'}}
    for size in SIZES
  ]
