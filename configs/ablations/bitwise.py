"""VAR's transformer on Fashion-MNIST, over codes and over bits.

    arvision train --config=infinity/fashion_mnist_tokenizer \\
      --workdir=runs/infinity/fashion_mnist_tokenizer
    arvision train --config=ablations/bitwise:flips \\
      --workdir=runs/ablations/bitwise_flips

`codes` is VAR over 256 codes per token. `bits` predicts eight bits per token of
Infinity's tokenizer, which sees the same scales. `flips` is `bits` with
self-correction in training: some bits of what the network is shown are flipped,
and the targets of later scales correct them. Transformer, schedule and guidance are
the same. `launch/ablations.py` compares them.

Source: arXiv 2412.04431, section 3.3.
"""

from arvision.configs import common
from arvision.configs.infinity import fashion_mnist_tokenizer as bits
from arvision.configs.var import fashion_mnist, parts
from arvision.configs.var import fashion_mnist_tokenizer as codes

# Largest share of flipped bits; None: codes.
_FLIPS = {'codes': None, 'bits': 0.0, 'flips': 0.3}
SIZES = tuple(_FLIPS)


def get_config(arg: str = 'codes'):
  flips = common.size(arg or 'codes', _FLIPS)
  family, tokenizer = ('var', codes) if flips is None else ('infinity', bits)
  config = common.generator(
    tokenizer.get_config(), f'runs/{family}/fashion_mnist_tokenizer'
  )
  parts.var(
    config,
    scales=config.tokenizer.scales,
    vocab_size=256,
    classes=10,
    depth=4,
    width=128,
    heads=4,
    gate=1e-1,
    drop_path=0.0,
    guidance=1.0,
  )
  del config.release
  if flips is not None:
    predict_bits(config, flips)
  fashion_mnist.recipe(config, clip=2.0, exempt=parts.NO_DECAY)
  for slow in ('likelihood', 'neighbours'):
    del config.evals[slow]
  return common.locked(config)


def predict_bits(config, flips: float) -> None:
  """Makes a VAR over Infinity's tokenizer predict bits."""
  config.tokenizer.flips = flips
  config.head.update(vocab_size=2, parts=config.tokenizer.quantizer.channels)


def get_sweep():
  """Every variant over the tokenizer of its family, for `arvision sweep`."""
  family = lambda size: 'var' if size == 'codes' else 'infinity'
  tokenizer = lambda size: f'{family(size)}/fashion_mnist_tokenizer'
  return [
    {'variant': size, 'needs': {'frozen.tokenizer': tokenizer(size)}}
    for size in SIZES
  ]
