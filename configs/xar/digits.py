"""xAR on scikit-learn's digits: next X, in CPU minutes.

    arvision train --config=configs/mar/digits_tokenizer.py \\
      --workdir=runs/mar/digits_tokenizer
    arvision train --config=configs/xar/digits.py --workdir=runs/xar/digits

X is a cell of 2 × 2 latents; `digits.py:token`, `:subsample`, `:scale` and `:image`
are the other entities of the paper: a single latent, every second one, the
whole latent at sides 1, 2 and 4, and the latent at once (plain flow matching).
`:clean`, `:rising` and `:falling` are cells that see other pasts in training: a
clean one (teacher forcing), a less noisy one, and a noisier one.

Cost: 2.2 minutes on two cores of an AMD EPYC.

Source: arXiv 2502.20388, at a size for 8 × 8 px.
"""

from arvision.configs import common
from arvision.configs.mar import digits_tokenizer
from arvision.configs.xar import parts

CONTEXTS = ('clean', 'rising', 'falling')
SIZES = (*parts.ENTITIES, *CONTEXTS)


def get_config(arg: str = 'cell'):
  name = common.size(arg or 'cell', {name: name for name in SIZES})
  config = common.generator(
    digits_tokenizer.get_config(), 'runs/mar/digits_tokenizer'
  )
  parts.xar(
    config,
    grid=(4, 4),
    channels=config.tokenizer.quantizer.channels,
    classes=10,
    depth=3,
    width=96,
    heads=4,
    hidden=256,
    entity=name if name in parts.ENTITIES else 'cell',
    context=name if name in CONTEXTS else 'independent',
    side=2,
    scales=(1, 2, 4),
    steps=20,
    guidance=2.0,
    dropout=0.0,
  )
  config.backbone.unroll = 3  # all layers, see layers.stack.Stack
  config.data.batch_size = 64
  config.train = common.block(duration=common.block(epochs=60))
  config.optim = common.adamw(
    1e-3,
    common.block(
      type='training.schedule.WarmupHoldCosine',
      warmup=common.block(fraction=0.05),
      until=common.block(fraction=0.5),
      final=0.02,
    ),
    weight_decay=0.02,
    b2=0.96,
    clip=1.0,
  )
  config.ema = (0.99,)
  return common.locked(config)
