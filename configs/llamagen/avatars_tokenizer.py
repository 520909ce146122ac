"""The tokenizer of LlamaGen on avatars at 64 px.

    bash launch/avatars.sh my/avatars
    arvision train --config=configs/llamagen/avatars_tokenizer.py \\
      --workdir=runs/llamagen/avatars_tokenizer \\
      --config.data.source.path=my/avatars

The 20,000 pictures of `launch/avatars.sh` in ten classes. 64 × 64 px become
16 × 16 codes of 1024; squares of 4 × 4 px enter as channels.

Source: arXiv 2406.06525. Deviations: no discriminator; unused codes are restarted.
"""

from arvision.configs import common
from arvision.configs.llamagen import parts


def get_config(arg: str = ''):
  del arg
  config = common.new()
  config.data = common.block(
    type='data.pipeline.Images',
    source=common.block(type='data.folder.Folder', path=''),
    size=(64, 64),
    channels=3,
    batch_size=16,
    cache=True,
  )
  config.release = common.block(type='importers.llamagen.Tokenizer')
  config.tokenizer = parts.vq(
    grid=(16, 16),
    vocab_size=1024,
    channels=8,
    ch=96,
    ch_mult=(1,),
    res_blocks=2,
    z_channels=32,
    patch=4,
    attention=False,
  )
  config.task = common.block(
    type='tasks.tokenizer.TrainTokenizer', l1=1.0, l2=1.0, restart_after=100
  )
  config.train = common.block(duration=common.block(epochs=10))
  config.optim = common.adamw(
    1e-3,
    common.cosine(0.02, steps=200),
    clip=1.0,
  )
  config.ema = (0.999,)
  return common.locked(config)
