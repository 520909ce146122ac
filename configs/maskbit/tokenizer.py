"""MaskBit's tokenizers on ImageNet 256 × 256: 16 × 16 tokens of 10 to 18 bits.

`vqgan_plus_10` and `vqgan_plus_12` are VQGAN+, the same network with a table of 1,024
codes of 256 channels, or of 4,096 codes of 64.

    arvision train --config=configs/maskbit/tokenizer.py:14 \\
      --workdir=runs/maskbit-tokenizer-14 \\
      --config.data.source.data_dir=DIR \\
      --config.task.distances.logits.path=resnet50-0676ba61.pth

As published: AdamW, learning rate 1e-4, cosine to a tenth, weight decay 1e-4,
1.35M steps, entropy loss 0.02, three times as much at the start, falling over
2,000 steps; squares of pixels in [0, 1] weigh 4, which is 1 of those in [-1, 1];
logits of torchvision's ResNet-50 (IMAGENET1K_V1) weigh 0.1; discriminator from step
20k on with weight 0.02 and LeCam 0.001. Published figures (not obtained here): rFID
1.76 (10 bits), 1.52 (12), 1.37 (14), 1.29 (16), 1.16 (18), 1.39 (vqgan_plus_12).

Source: arXiv 2409.16211; markweberdev/maskbit. Deviations: the loss of logits is off
where its file is not stated; the entropy is that of the whole batch, published: of
the 16 images of a GPU; crops do not change the aspect ratio.
"""

from arvision.configs import common
from arvision.configs.maskbit import parts

STEPS = 1_350_000
_BITS = (10, 12, 14, 16, 18)
SIZES = {
  **{str(bits): parts.lfq(bits, extra_until=2_000 / STEPS) for bits in _BITS},
  'vqgan_plus_10': common.lookup(1024, 256),
  'vqgan_plus_12': common.lookup(4096, 64),
}


def get_config(arg: str = '14'):
  quantizer = common.size(arg or '14', SIZES)
  config = common.new()
  config.data = common.imagenet(size=256, resize=None, batch_size=256)
  config.data.flip = True
  config.release = common.block(type='importers.maskbit.Tokenizer')
  config.tokenizer = parts.maskbit_tokenizer(
    quantizer=quantizer, grid=(16, 16), ch=128
  )
  config.task = common.block(
    type='tasks.tokenizer.TrainTokenizer',
    l1=0.0,
    l2=1.0,
    distances=common.block(
      logits=common.block(
        type='tasks.perception.ResNetLogits', weight=0.1, path=''
      ),
    ),
    adversary=common.block(
      type='tokenizers.adversarial.Adversary',
      net=common.block(
        type='tokenizers.adversarial.BlurDiscriminator', features=128, stages=4
      ),
      weight=0.02,
      start=20_000,
      lecam=0.001,
    ),
  )
  config.train = common.block(duration=common.block(steps=STEPS))
  config.optim = common.adamw(
    1e-4,
    common.cosine(0.1, steps=5_000),
    weight_decay=1e-4,
    b2=0.999,
    clip=1.0,
  )
  config.ema = (0.999,)
  return common.locked(config)
