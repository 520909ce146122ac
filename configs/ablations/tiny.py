"""What the configs of this folder alone have, at the size of a test.

    arvision train --config=mar/tiny_tokenizer --workdir=runs/mar/tiny_tokenizer
    arvision train --config=ablations/tiny:flow --workdir=runs/ablations/tiny

`flow` is that of `heads.py`; `scale` and `masked` are those of `orders.py`, over
the codes of llamagen/tiny_tokenizer; `unmasked` is the head of BAR in `bits.py`,
over elm/tiny_tokenizer; `bits` is that of `bitwise.py`, over
infinity/tiny_tokenizer.
"""

from arvision.configs import common
from arvision.configs.ablations import bits, bitwise, heads, orders
from arvision.configs.elm import tiny as elm
from arvision.configs.infinity import tiny_tokenizer as infinity
from arvision.configs.llamagen import tiny as llamagen
from arvision.configs.mar import tiny as mar
from arvision.configs.var import parts as var


def get_config(arg: str = 'flow'):
  fill = common.size(arg or 'flow', _VARIANTS)
  config = fill()
  if 'release' in config:
    del config.release
  return common.locked(config)


def _flow():
  config = mar.get_config().unlock()
  heads.flow(config)
  return config


def _order(name):
  config = llamagen.get_config().unlock()
  orders.CHANGES[name](config)
  return config


def _unmasked():
  config = elm.get_config().unlock()
  ids = config.head.parts * 3
  config.tokenizer.quantizer.ids = ids
  config.backbone.input.update(parts=ids, vocab_size=2)
  bits.unmask_bits(config, width=24, depth=1, allocation=(1, 2, 3))
  return config


def _bits():
  config = common.generator(
    infinity.get_config(), 'runs/infinity/tiny_tokenizer'
  )
  var.var(
    config,
    scales=config.tokenizer.scales,
    vocab_size=2,
    classes=10,
    **common.TINY,
  )
  bitwise.predict_bits(config, flips=0.3)
  return common.tiny(config).unlock()


_VARIANTS = {
  'flow': _flow,
  'scale': lambda: _order('scale'),
  'masked': lambda: _order('masked'),
  'unmasked': _unmasked,
  'bits': _bits,
}
SIZES = tuple(_VARIANTS)
