"""MAR on Fashion-MNIST at 32 px.

    arvision train --config=configs/mar/fashion_mnist_tokenizer.py \\
      --workdir=runs/mar/fashion_mnist_tokenizer
    arvision train --config=configs/mar/fashion_mnist.py \\
      --workdir=runs/mar/fashion_mnist

8 × 8 latents in 32 steps, with 50 diffusion steps each.

Source: arXiv 2406.11838, at a size for two CPU cores. Deviations: as in
mar/digits.py.
"""

from arvision.configs import common
from arvision.configs.mar import fashion_mnist_tokenizer, parts
from arvision.configs.var import fashion_mnist as var


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    fashion_mnist_tokenizer.get_config(), 'runs/mar/fashion_mnist_tokenizer'
  )
  parts.mar(
    config,
    grid=config.tokenizer.grid,
    channels=config.tokenizer.quantizer.channels,
    classes=10,
    depth=2,
    second_depth=2,
    width=128,
    heads=4,
    hidden=512,
    head_width=192,
    head_depth=3,
    prefix=8,
    dropout=0.0,
    steps=32,
    diffusion_steps=50,
    guidance=2.0,
  )
  config.head.highest = 990  # as in mar/digits.py
  config.head.unroll = 3
  var.recipe(config, clip=3.0, exempt=parts.NO_DECAY)
  del config.evals.likelihood  # latents have none
  config.train.duration.epochs = 3.0
  return common.locked(config)
