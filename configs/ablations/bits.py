"""One transformer over the bits of one FSQ tokenizer, with four kinds of heads.

    arvision train --config=ablations/quantizers_tokenizer:bits \\
      --workdir=runs/ablations/quantizers_tokenizer_bits
    arvision train --config=ablations/bits:eight --workdir=runs/ablations/bits_eight

The eight bits of a token are one id of 256 (`one`), two ids of 16 (`two`, ELM's
sub-codes), eight bits (`eight`, Infinity), each a softmax independent of the
others; or a small MLP unmasks them in four steps (`masked`, BAR). The transformer
(ELM's), schedule, guidance and the tokenizer's weights are the same.
`launch/ablations.py` compares them.
"""

from arvision.configs import common
from arvision.configs.ablations import quantizers_tokenizer
from arvision.configs.common import block
from arvision.configs.elm import parts

# Ids of a token.
_IDS = {'one': 1, 'two': 2, 'eight': 8, 'masked': 8}
SIZES = tuple(_IDS)


def get_config(arg: str = 'one'):
  kind = arg or 'one'
  ids = common.size(kind, _IDS)
  config = common.generator(
    quantizers_tokenizer.get_config('bits'),
    'runs/ablations/quantizers_tokenizer_bits',
  )
  config.tokenizer.quantizer.ids = ids
  transformer(config, ids)
  if kind == 'masked':
    unmask_bits(config, width=128, depth=2, allocation=(1, 1, 2, 4))
  return common.digits(config, epochs=50)


def transformer(config, ids: int) -> None:
  """ELM's over tokens of 8 bits, which are cut into some ids."""
  parts.elm(
    config,
    grid=config.tokenizer.grid,
    parts=ids,
    vocab_size=2 ** (quantizers_tokenizer.BITS // ids),
    classes=10,
    depth=4,
    width=96,
    heads=4,
    hidden=256,
    dropout=0.2,
  )
  del config.release


def unmask_bits(config, *, width: int, depth: int, allocation) -> None:
  """Gives a transformer over bits the head of BAR."""
  config.head = block(
    type='heads.masked_bits.MaskedBits',
    channels=sum(allocation),
    levels=2,
    width=width,
    depth=depth,
    hidden=int(2 / 3 * 4 * width),
    allocation=allocation,
    unroll=depth,
  )


def get_sweep():
  """Every variant over the same tokenizer, for `arvision sweep`."""
  needs = {'frozen.tokenizer': 'ablations/quantizers_tokenizer:bits'}
  return [{'variant': size, 'needs': needs} for size in SIZES]
