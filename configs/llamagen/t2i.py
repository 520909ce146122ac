"""LlamaGen that reads captions, XL at 256 and 512 px, as published.

    arvision train --config=configs/llamagen/t2i.py:256 \\
      --workdir=runs/llamagen-t2i \\
      --config.data.source.path=IMAGES --config.data.text.path=FEATURES

The conditions are features of flan-t5-xl, computed beforehand, of at most 120
tokens for each caption; FEATURES/<SHA-256 of the caption>.npy holds (tokens,
2048), see `data.text.file_name`. Pictures are encoded in the course of training.

As published: 775 million parameters; stage 1 at 256 px on 50 million pictures,
stage 2 at 512 px from its weights (`--init_from`) on 10 million; batch 256,
AdamW, constant learning rate 1e-4, no running average. Guidance 7.5 and the
1,000 best codes are the published sampler's defaults.

Source: arXiv 2406.06525; FoundationVision/LlamaGen, train_t2i.py. Deviations:
captions are not exchanged for short ones at random.
"""

from ml_collections import ConfigDict

from arvision.configs import common
from arvision.configs.llamagen import parts, tokenizer

# Side in pixels, batch size is the same.
SIZES = {'256': 256, '512': 512}
CAPTION = {'length': 120, 'channels': 2048}


def captioned(side: int) -> ConfigDict:
  """Starts a config of images with captions, `side` in pixels."""
  config = common.generator(tokenizer.get_config(), 'runs/llamagen-tokenizer')
  config.tokenizer.grid = (side // 16, side // 16)
  config.data.size = (side, side)
  config.data.update(crop='center', flip=False, batch_size=256)
  config.data.source = common.block(type='data.folder.Folder', path='')
  config.data.text = common.block(type='data.text.Stored', path='', **CAPTION)
  return config


def finished(config: ConfigDict) -> ConfigDict:
  """Ends it with the published training."""
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  config.train = common.block(duration=common.block(epochs=1))
  config.optim = common.adamw(
    1e-4, common.block(type='training.schedule.Constant'), clip=1.0
  )
  config.ema = ()
  return common.locked(config)


def get_config(arg: str = '256'):
  config = captioned(common.size(arg or '256', SIZES))
  parts.llamagen_t2i(
    config,
    **CAPTION,
    grid=config.tokenizer.grid,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    depth=36,
    width=1280,
    heads=20,
  )
  return finished(config)
