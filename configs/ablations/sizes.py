"""Three orders of prediction on Fashion-MNIST at any depth, for scaling laws.

    arvision train --config=var/fashion_mnist_tokenizer \\
      --workdir=runs/var/fashion_mnist_tokenizer
    arvision train --config=llamagen/fashion_mnist_tokenizer \\
      --workdir=runs/llamagen/fashion_mnist_tokenizer
    arvision train --config=configs/ablations/sizes.py:scale_3 \\
      --workdir=runs/scaling/scale_3

All sizes of one order, the fit, and a prediction that is written down before the
seventh is trained:

    arvision scaling --config=ablations/sizes \\
      --sizes=scale_1,scale_2,scale_3,scale_4,scale_5,scale_6 --next=scale_7 \\
      --output=runs/scaling/scale

`scale` is VAR, `token` LlamaGen and `masked` MaskGIT; the last two share a
tokenizer. `scale_3` has 3 layers, without a number it is 4. Width and heads grow
with the depth, as in VAR: 16 times as wide, a head for every layer. Schedule,
batch and duration are the same for all sizes.

Source: arXiv 2404.02905, section 4.2.
"""

from arvision.configs import common
from arvision.configs.llamagen import fashion_mnist_tokenizer as vq
from arvision.configs.llamagen import parts as llamagen
from arvision.configs.maskgit import parts as maskgit
from arvision.configs.var import fashion_mnist_tokenizer as multi_scale
from arvision.configs.var import parts as var


def get_config(arg: str = 'scale'):
  kind, _, number = (arg or 'scale').partition('_')
  fill = common.size(kind, ORDERS)
  number = number or '4'
  if not (number.isdecimal() and 1 <= int(number) <= 99):
    raise ValueError(f"depth '{number}' in '{arg}': wanted 1 to 99 layers")
  depth = int(number)
  config = fill(depth, {'width': 16 * depth, 'heads': depth})
  config.backbone.unroll = depth  # all layers, see layers.stack.Stack
  config.data.batch_size = 64
  config.train = common.block(duration=common.block(steps=300))
  config.evals = common.block(every=common.block(fraction=1.0))
  config.pictures.every = common.block(fraction=1.0)
  config.optim = common.adamw(3e-3, common.cosine(0.02, steps=30), clip=1.0)
  config.ema = ()
  return common.locked(config)


def _scale(depth, sizes):
  config = common.generator(
    multi_scale.get_config(), 'runs/var/fashion_mnist_tokenizer'
  )
  var.var(
    config,
    scales=config.tokenizer.scales,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    depth=depth,
    gate=1e-1,
    drop_path=0.0,
    **sizes,
  )
  return config


def _token(depth, sizes):
  config = _over_vq()
  llamagen.llamagen(
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    depth=depth,
    hidden=3 * sizes['width'],
    dropout=0.0,
    guidance=2.0,
    **sizes,
  )
  return config


def _masked(depth, sizes):
  config = _over_vq()
  maskgit.maskgit(
    config,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    depth=depth,
    hidden=4 * sizes['width'],
    steps=8,
    dropout=0.0,
    **sizes,
  )
  return config


def _over_vq():
  return common.generator(
    vq.get_config(), 'runs/llamagen/fashion_mnist_tokenizer'
  )


ORDERS = {'scale': _scale, 'token': _token, 'masked': _masked}
SIZES = tuple(ORDERS)
