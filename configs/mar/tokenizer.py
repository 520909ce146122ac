"""The KL-16 autoencoder of MAR on ImageNet 256 × 256.

    arvision train --config=configs/mar/tokenizer.py \\
      --workdir=runs/kl16 \\
      --config.data.source.data_dir=DIR \\
      --config.task.distances.lpips.path=FILE

or, with the released weights,

    arvision import --config=configs/mar/tokenizer.py --workdir=runs/kl16 \\
      --source=kl16.ckpt

xAR, FlowAR and TokenBridge use it too. Its encoder attends at the lowest level
and in the middle, its decoder in the middle alone. As published: L1 and LPIPS,
both summed over pixels and channels, the KL divergence with weight 1e-6, a patch
discriminator with batch norm and hinge loss from step 50 001 on, its weight 0.5
adapted to the gradients at the last layer, Adam with betas (0.5, 0.9) and a
constant rate for both networks. Batch 256 and rate 1e-4 are those of MAR's
authors; LDM's are 4.5e-6 for every image of a batch. Published figure (not
obtained here): rFID 0.53.

Deviations: the length of the run is not published; the crop is MAR's.

Source: arXiv 2112.10752 (kl-f16); arXiv 2406.11838; LTH14/mar.
"""

from ml_collections import ConfigDict

from arvision.configs import common

SIZE, CHANNELS = 256, 3
# Distances are means here and sums there.
VALUES = SIZE * SIZE * CHANNELS


def kl16(
  *,
  grid: tuple[int, int] = (16, 16),
  channels: int = 16,
  ch: int = 128,
  ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4),
  res_blocks: int = 2,
  encoder_levels: tuple[int, ...] | None = None,
  scale: float = 0.2325,
  image_channels: int = 3,
) -> ConfigDict:
  """The block of a KL autoencoder as MAR has it.

  Args:
    grid: (height, width) of the latent.
    channels: of the latent.
    ch, ch_mult, res_blocks: see `layers.conv.Encoder`.
    encoder_levels: those that attend in the encoder; None: the lowest. The
      official code takes the level of 16 × 16 places in an image of 256 px.
    scale: what latents are multiplied by, 1 / their standard deviation.
    image_channels: 3, or 1 for grey.
  """
  parts = common.autoencoder(
    image_channels=image_channels,
    ch=ch,
    ch_mult=ch_mult,
    res_blocks=res_blocks,
    z_channels=2 * channels,
  )
  parts['encoder'].attention_levels = encoder_levels
  parts['decoder'].attention_levels = ()
  return common.block(
    type='tokenizers.autoencoder.Autoencoder',
    grid=grid,
    quantizer=common.block(
      type='quantizers.kl.KL', channels=channels, kl=1e-6, scale=scale
    ),
    **parts,
  )


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.data = common.imagenet(size=SIZE, resize=None, batch_size=256)
  config.data.update(crop='adm', flip=True)
  config.release = common.block(type='importers.kl.Tokenizer')
  config.tokenizer = kl16()
  config.task = common.block(
    type='tasks.tokenizer.TrainTokenizer',
    l1=float(VALUES),
    l2=0.0,
    distances=common.block(lpips=common.lpips(float(VALUES))),
    adversary=common.block(
      type='tokenizers.adversarial.Adversary',
      net=common.block(
        type='tokenizers.adversarial.PatchDiscriminator', norm='batch'
      ),
      weight=0.5,
      start=50_001,
      limits=(0.0, 1e4),
    ),
  )
  config.train = common.block(duration=common.block(epochs=50))
  config.optim = common.adamw(
    1e-4,
    common.block(type='training.schedule.Constant'),
    weight_decay=0.0,
    b2=0.9,
    clip=0.0,
  )
  config.optim.update(kind='adam', b1=0.5)
  config.ema = (0.9999,)
  return common.locked(config)
