"""xAR at the size of a test, on scikit-learn's digits.

    arvision train --config=mar/tiny_tokenizer --workdir=runs/mar/tiny_tokenizer
    arvision train --config=xar/tiny --workdir=runs/xar/tiny

`tiny:cell` is the published model; `:token`, `:subsample`, `:scale` and `:image`
are other entities, `:clean`, `:rising` and `:falling` other contexts.

Source: arXiv 2502.20388.
"""

from arvision.configs import common
from arvision.configs.mar import tiny_tokenizer
from arvision.configs.xar import parts

SIZES = (*parts.ENTITIES, *(c for c in parts.CONTEXTS if c != 'independent'))


def get_config(arg: str = 'cell'):
  name = common.size(arg or 'cell', {name: name for name in SIZES})
  config = common.generator(
    tiny_tokenizer.get_config(), 'runs/mar/tiny_tokenizer'
  )
  parts.xar(
    config,
    grid=config.tokenizer.grid,
    channels=config.tokenizer.quantizer.channels,
    classes=10,
    hidden=64,
    entity=name if name in parts.ENTITIES else 'cell',
    context=name if name in parts.CONTEXTS else 'independent',
    side=2,
    scales=(1, 2, 4),
    steps=3,
    guidance=2.0,
    **common.TINY,
  )
  return common.tiny(config)
