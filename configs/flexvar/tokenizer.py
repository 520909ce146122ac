"""The tokenizer of FlexVAR: VQ-16 whose every scale is a picture by itself.

    arvision train --config=configs/flexvar/tokenizer.py \\
      --workdir=runs/flexvar-tokenizer \\
      --config.data.source.data_dir=DIR \\
      --config.task.distances.lpips.path=FILE

8,912 codes (the released number) of 32 channels and unit length, on grids of
side 1 to 16. As published: AdamW, learning rate 1e-4, batch 128, 20 epochs.

Source: arXiv 2502.20313; jiaosiyu1999/FlexVAR. Its training code was not
released. Deviations: ImageNet instead of OpenImages; one smaller scale is drawn
at every step and compared by squared difference alone; discriminator as for
LlamaGen.
"""

from arvision.configs import common
from arvision.configs.flexvar import parts
from arvision.configs.llamagen import tokenizer

SIDES = tuple(range(1, 17))


def get_config(arg: str = ''):
  del arg
  config = tokenizer.get_config().unlock()
  config.tokenizer = parts.pyramid_vq(
    scales=SIDES, vocab_size=8912, channels=32, ch=128, z_channels=256
  )
  config.train = common.block(duration=common.block(epochs=20))
  config.optim.kind = 'adamw'
  return common.locked(config)
