"""VAR on Fashion-MNIST at 32 px.

    arvision train --config=configs/var/fashion_mnist.py \\
      --workdir=runs/var/fashion_mnist

Train the tokenizer first (`fashion_mnist_tokenizer.py`). docs/experiments.md
has its metrics.

Cost: 23 minutes on two cores of an AMD EPYC with other work beside it.

Source: arXiv 2404.02905, at a size for two CPU cores.
"""

from arvision.configs import common
from arvision.configs.var import fashion_mnist_tokenizer, parts


def recipe(config, clip: float, exempt: tuple[str, ...] = ()) -> None:
  """How both generators of Fashion-MNIST are trained."""
  config.backbone.unroll = 4  # all layers, see layers.stack.Stack
  config.data.batch_size = 64
  config.train = common.block(duration=common.block(epochs=1.5))
  config.evals.every = common.block(fraction=0.5)  # 10,000 pictures take long
  config.optim = common.adamw(
    1e-3,
    common.cosine(0.02, steps=100),
    clip=clip,
    exempt=exempt,
  )
  config.ema = (0.99,)
  common.neighbours(config)
  config.evals.likelihood = common.block(type='evals.likelihood.Likelihood')


def get_config(arg: str = ''):
  del arg
  config = common.generator(
    fashion_mnist_tokenizer.get_config(), 'runs/var/fashion_mnist_tokenizer'
  )
  parts.var(
    config,
    scales=config.tokenizer.scales,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=10,
    depth=4,
    width=128,
    heads=4,
    gate=1e-1,
    drop_path=0.0,
    guidance=1.0,
  )
  recipe(config, clip=2.0, exempt=parts.NO_DECAY)
  return common.locked(config)
