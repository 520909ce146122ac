"""BAR's tokenizers on ImageNet: bits of patches of 16 × 16 px.

    arvision import --config=bar/tokenizer --source=bar_fsq_16bits.bin \\
      --workdir=runs/bar-released
    arvision train --config=bar/tokenizer --workdir=runs/bar-tokenizer \\
      --init_from=runs/bar-released \\
      --config.task.distances.lpips.path=LPIPS \\
      --config.task.distances.gram.path=vgg16-397923af.pth \\
      --config.task.distances.logits.path=convnext_small-0c510722.pth \\
      --config.task.adversary.features.path=dino_deitsmall8_pretrain.pth

SigLIP 2's vision tower with 16 bits per patch at 256 px, 10 at 512 px. A frozen
copy of the tower is what a block of the decoder is aligned with. Both copies and
the embeddings come from a released tokenizer (`--init_from`). To train without
any weights, leave the alignment out, train the embeddings too, and start at the
boundary between the two values of a bit: `--config.tokenizer.align=None
--config.optim.trained.without=() --config.tokenizer.encoder.out_bias=-3.8`.

The files are those of LPIPS, of torchvision's VGG-16 and ConvNeXt-S (IMAGENET1K_V1)
and of DINO-S/8.

Published figures (not obtained here): rFID 0.33 (C = 2^32) and 1.25 (C = 2^10).

Source: arXiv 2602.09024; amazon-far/BAR. Deviations: losses whose files are not
stated are off, the discriminator among them; tokenizer and discriminator take a
step together, published: in turn from step 100k on; an image and its reconstruction
are cropped alike for DINO; one learning rate, where that of the encoder is a tenth;
the number of GPUs of 32 images each is not published.
"""

from arvision.configs import common
from arvision.configs.bar import parts

SIZES = {
  '256': dict(bits=16, grid=(16, 16)),
  '512': dict(bits=10, grid=(32, 32)),
}


def get_config(arg: str = '256'):
  arg = arg or '256'
  config = common.new()
  config.data = common.imagenet(size=int(arg), resize=None, batch_size=256)
  config.data.flip = True
  config.release = common.block(type='importers.bar.Tokenizer')
  config.tokenizer = parts.tokenizer(
    patch=16,
    encoder=dict(width=1152, depth=27, heads=16),
    decoder=dict(width=1024, depth=24, heads=16),
    positions=(16, 16),
    hidden=4304,
    align=dict(hidden=2048, layer=2, weight=0.7),
    **common.size(arg, SIZES),
  )
  for half in ('encoder', 'decoder'):
    config.tokenizer[half].update(dtype='bfloat16', remat='dots')
  config.task = common.block(
    type='tasks.tokenizer.TrainTokenizer',
    l1=0.1,
    l2=1.0,
    distances=common.block(
      lpips=common.lpips(1.0),
      logits=common.block(
        type='tasks.perception.ConvNeXtLogits',
        weight=0.1,
        resize='bicubic-antialias',
        path='',
      ),
      gram=common.block(type='tasks.perception.Gram', weight=10.0, path=''),
    ),
    adversary=common.dino(patch=8, weight=0.05, start=100_000, rounded=True),
  )
  config.train = common.block(duration=common.block(steps=200_000))
  config.optim = common.adamw(
    1e-4,
    common.cosine(0.1, steps=10_000),
    weight_decay=0.0,
    b2=0.999,
    clip=1.0,
    without=('align/encoder', 'enc/patches', 'enc/position'),
  )
  config.ema = (0.999,)
  return common.locked(config)
