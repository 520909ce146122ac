"""A multi-scale tokenizer of scikit-learn's digits, for VAR.

    arvision train --config=configs/var/digits_tokenizer.py \\
      --workdir=runs/var/digits_tokenizer

8 × 8 px become 30 codes of 128 on grids of side 1, 2, 3, 4. Squares of 2 × 2 px
enter as channels, which keeps the convolutions on a 4 × 4 grid.

Cost: 1.0 minute on two cores of an AMD EPYC.

Source: arXiv 2404.02905 (quantiser and loss). Deviations: no perceptual loss
and no discriminator, which need larger images; unused codes are restarted.
"""

from arvision.configs import common


def autoencoder() -> dict:
  """Encoder and decoder of the digits, as blocks of a tokenizer."""
  return common.autoencoder(
    image_channels=1,
    ch=32,
    ch_mult=(1,),
    res_blocks=1,
    z_channels=16,
    patch=2,
    groups=8,
    attention=False,  # on four by four places 3 × 3 kernels see nearly all
  )


def recipe(config, *, l2: float) -> None:
  """How the tokenizers of the digits are trained."""
  config.data = common.block(
    type='data.pipeline.Images',
    source=common.block(type='data.digits.Digits'),
    size=(8, 8),
    channels=1,
    batch_size=64,
    cache=True,
  )
  config.task = common.block(
    type='tasks.tokenizer.TrainTokenizer',
    l1=0.0,
    l2=l2,
    restart_after=50,
  )
  config.train = common.block(duration=common.block(epochs=60))
  config.optim = common.adamw(
    3e-3,
    common.cosine(0.02, epochs=1),
    clip=1.0,
  )
  config.ema = (0.99,)


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.release = common.block(type='importers.var.Tokenizer')
  config.tokenizer = common.block(
    type='tokenizers.residual.ResidualPyramid',
    scales=(1, 2, 3, 4),
    quantizer=common.lookup(128, 16),
    **autoencoder(),
  )
  recipe(config, l2=2.0)
  common.follow(config)
  return common.locked(config)
