"""A multi-scale tokenizer of Fashion-MNIST at 32 px, for VAR.

    arvision train --config=configs/var/fashion_mnist_tokenizer.py \\
      --workdir=runs/var/fashion_mnist_tokenizer

The four IDX files are looked for in config.data.source.folder; Debian's
package `dataset-fashion-mnist` puts them where the config says. 32 × 32 px
become 103 codes of 256 on grids of side 1, 2, 3, 5, 8. 24.0 dB on the
held-out images (`arvision eval`).

Cost: 10 minutes on two cores of an AMD EPYC.

Source: arXiv 2404.02905 (quantiser and loss). Deviations: no perceptual loss
and no discriminator; unused codes are restarted.
"""

from arvision.configs import common

CLASSES = (
  't-shirt',
  'trouser',
  'pullover',
  'dress',
  'coat',
  'sandal',
  'shirt',
  'sneaker',
  'bag',
  'ankle boot',
)


def recipe(config) -> None:
  """Data and training that the tokenizers of Fashion-MNIST share."""
  config.data = common.block(
    type='data.pipeline.Images',
    source=common.block(
      type='data.idx.Idx',
      folder='/usr/share/datasets/fashion-mnist',
      classes=CLASSES,
    ),
    size=(32, 32),
    channels=1,
    batch_size=64,
    flip=True,
    cache=True,
  )
  config.task = common.block(
    type='tasks.tokenizer.TrainTokenizer', l1=0.5, l2=2.0, restart_after=100
  )
  config.train = common.block(duration=common.block(epochs=1.25))
  config.evals.every = common.block(fraction=0.5)  # 10,000 pictures take long
  config.evals.suite = common.block(type='evals.suite.TokenizerSuite')
  config.optim = common.adamw(
    2e-3,
    common.cosine(0.02, steps=100),
    clip=1.0,
  )
  config.ema = (0.99,)


def autoencoder() -> dict:
  """Squares of 4 × 4 px enter as channels: convolutions on an 8 × 8 grid."""
  return common.autoencoder(
    image_channels=1,
    ch=64,
    ch_mult=(1,),
    res_blocks=1,
    z_channels=32,
    patch=4,
    attention=False,
  )


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.release = common.block(type='importers.var.Tokenizer')
  config.tokenizer = common.block(
    type='tokenizers.residual.ResidualPyramid',
    scales=(1, 2, 3, 5, 8),
    quantizer=common.lookup(256, 16),
    **autoencoder(),
  )
  recipe(config)
  return common.locked(config)
