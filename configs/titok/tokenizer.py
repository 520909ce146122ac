"""TiTok's tokenizers on ImageNet 256 × 256: an image as 32 to 256 tokens.

The first models, L-32, B-64 and S-128, are trained in two stages. In the first
they predict the codes of MaskGIT's tokenizer (`configs/maskgit/tokenizer.py`);
the second trains the way from these codes to pixels, all else at rest:

    arvision train --config=configs/titok/tokenizer.py:L-32_warmup \\
      --workdir=runs/titok-l32-warmup \\
      --config.frozen.teacher=runs/maskgit-tokenizer
    arvision train --config=configs/titok/tokenizer.py:L-32 \\
      --workdir=runs/titok-l32 --init_from=runs/titok-l32-warmup \\
      --config.task.distances.logits.path=convnext_small-0c510722.pth

The later ones, BL-64, BL-128 and SL-256, give pixels and need one stage;
LL-32_kl, BL-64_kl and BL-128_kl have latents of 16 channels instead of codes:

    arvision train --config=configs/titok/tokenizer.py:BL-128 \\
      --workdir=runs/titok-bl128 --config.task.distances.lpips.path=LPIPS \\
      --config.task.distances.logits.path=convnext_small-0c510722.pth

The files are those of LPIPS and of torchvision's ConvNeXt-S (IMAGENET1K_V1).

As published: warm-up 1M steps of batch 256, AdamW, learning rate 1e-4, cosine to
1e-5; squares of pixels in [0, 1] weigh 1, which is 0.25 of those in [-1, 1];
second stage 500k steps, discriminator from step 20k on with weight 0.01 and
LeCam 0.001. Published figures (not obtained here): rFID 2.21 (L-32), 1.70 (B-64),
1.71 (S-128), 2.06 (BL-64), 1.49 (BL-128), 1.03 (SL-256), 1.61 (LL-32_kl), 1.25
(BL-64_kl), 0.84 (BL-128_kl).

Source: arXiv 2406.07550; bytedance/1d-tokenizer. Deviations: losses whose files are
not stated are off.
"""

from arvision.configs import common
from arvision.configs.maskgit import tokenizer as maskgit
from arvision.configs.titok import parts

LEGACY = {
  'L-32': dict(length=32, encoder='large', decoder='large'),
  'B-64': dict(length=64, encoder='base', decoder='base'),
  'S-128': dict(length=128, encoder='small', decoder='small'),
}
_CODES = dict(vocab_size=8192, channels=64)
_LATENTS = dict(vocab_size=0, channels=16)
LATER = {
  'BL-64': dict(length=64, encoder='base', decoder='large', **_CODES),
  'BL-128': dict(length=128, encoder='base', decoder='large', **_CODES),
  'SL-256': dict(length=256, encoder='small', decoder='large', **_CODES),
  'LL-32_kl': dict(length=32, encoder='large', decoder='large', **_LATENTS),
  'BL-64_kl': dict(length=64, encoder='base', decoder='large', **_LATENTS),
  'BL-128_kl': dict(length=128, encoder='base', decoder='large', **_LATENTS),
}
WARMUP = '_warmup'
SIZES = {**LEGACY, **{f'{k}{WARMUP}': v for k, v in LEGACY.items()}, **LATER}


def get_config(arg: str = 'L-32'):
  arg = arg or 'L-32'
  size = common.size(arg, SIZES)
  halves = {half: parts.SIZES[size[half]] for half in ('encoder', 'decoder')}
  sizes = {**size, **halves, 'grid': (16, 16), 'patch': 16}
  config = common.new()
  config.data = common.imagenet(size=256, resize=None, batch_size=256)
  config.data.flip = True
  config.release = common.block(type='importers.titok.Tokenizer')
  if arg in LATER:
    config.tokenizer = parts.titok(**sizes)
  else:
    pixels = maskgit.get_config().tokenizer
    config.tokenizer = parts.legacy_titok(
      vocab_size=4096,
      channels=12,
      pixels=pixels,
      **sizes,
    )
  if arg.endswith(WARMUP):
    parts.titok_warmup(config, pixels, 'runs/maskgit-tokenizer')
  else:
    config.task = common.block(
      type='tasks.tokenizer.TrainTokenizer',
      l1=0.0,
      l2=0.25,
      distances=common.block(
        lpips=common.lpips(0.0 if arg in LEGACY else 1.0),
        logits=common.block(
          type='tasks.perception.ConvNeXtLogits', weight=0.1, path=''
        ),
      ),
      adversary=common.block(
        type='tokenizers.adversarial.Adversary',
        net=common.block(type='tokenizers.adversarial.BlurDiscriminator'),
        lecam=0.001,
        weight=0.01 if arg in LEGACY else 0.1,
        start=20_000 if arg in LEGACY else 200_000,
      ),
    )
  second = arg in LEGACY
  steps = 500_000 if second else 650_000 if arg in LATER else 1_000_000
  config.train = common.block(duration=common.block(steps=steps))
  config.optim = common.adamw(
    1e-4,
    common.cosine(0.1, steps=5_000 if second else 10_000),
    weight_decay=1e-4,
    b2=0.999 if second else 0.99,
    clip=1.0,
    exempt=parts.NO_DECAY + (('pixel_',) if arg.endswith(WARMUP) else ()),
    without=parts.WARMED_UP if second else (),
  )
  config.ema = (0.999,)
  return common.locked(config)
