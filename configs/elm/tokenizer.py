"""ELM's binary autoencoders on ImageNet 256 × 256: 16 × 16 tokens of bits.

    arvision train --config=configs/elm/tokenizer.py:20 \\
      --workdir=runs/elm-bae-20 \\
      --config.data.source.data_dir=DIR \\
      --config.task.distances.lpips.path=FILE

The size is the number of bits of a token: 16, 20 or 24. Bits are sampled in
training; `16_deterministic` rounds their probabilities there too. A generator
reads the bits as one id or as several (`configs/elm/imagenet256.py`), which no
weight depends on.

As published: L1, LPIPS, a patch discriminator with batch norm and hinge loss from
step 30 001 on, its weight adapted to the gradients at the last layer and at most 1,
1M steps of batch 256, base rate 4.5e-6, which is taken for every image of a batch.

Source: arXiv 2410.16257; Pepper-lll/LMforImageGeneration. Deviations: the crop
and the betas of Adam are not stated; the images of the discriminator are not
augmented, which is an option there.
"""

from arvision.configs import common
from arvision.configs.elm import parts

SIZES = {
  '16': dict(bits=16),
  '20': dict(bits=20),
  '24': dict(bits=24),
  '16_deterministic': dict(bits=16, deterministic=True),
}


def get_config(arg: str = '20', ids: int = 2):
  config = common.new()
  config.data = common.imagenet(size=256, resize=None, batch_size=256)
  config.data.flip = True
  config.release = common.block(type='importers.elm.Tokenizer')
  config.tokenizer = parts.bae(
    grid=(16, 16), ids=ids, **common.size(arg or '20', SIZES)
  )
  config.task = common.block(
    type='tasks.tokenizer.TrainTokenizer',
    l1=1.0,
    l2=0.0,
    distances=common.block(lpips=common.lpips(1.0)),
    adversary=common.block(
      type='tokenizers.adversarial.Adversary',
      net=common.block(
        type='tokenizers.adversarial.PatchDiscriminator', norm='batch'
      ),
      weight=1.0,
      start=30_001,
      limits=(0.0, 1.0),
    ),
  )
  config.train = common.block(duration=common.block(steps=1_000_000))
  config.optim = common.adamw(
    256 * 4.5e-6,
    common.block(type='training.schedule.Constant'),
    weight_decay=0.0,
    b2=0.999,
    clip=0.0,
  )
  config.optim.kind = 'adam'
  return common.locked(config)
