"""FlexVAR on ImageNet 256 × 256, as published: d16, d20, d24.

    arvision train --config=configs/flexvar/imagenet256.py:d16 \\
      --workdir=runs/flexvar-d16

VAR without residuals: a scale is shown the one before it alone, positions are
resized, and every step of training has another list of scales, of at most 680
tokens. Sampling may use lists that training never had:
`:d24_13` draws in 13 steps, `:d24_512` at 512 px. Their weights are those of
`:d24`; give the config with --config to `arvision sample`.

Published figures (not obtained here): FID 3.05 / 2.41 / 2.21 in 10 steps; d24 2.08
in 13 steps and 4.43 at 512 px; cfg 2.5 (3.0 at 512 px), top-k 900, top-p 0.95.

Deviations: bfloat16 where the published runs used float16 with a loss scale; one
list of scales for a step of all devices.

Source: arXiv 2502.20313; jiaosiyu1999/FlexVAR.
"""

from ml_collections import ConfigDict

from arvision.configs import common
from arvision.configs.flexvar import parts as flexvar_parts
from arvision.configs.flexvar import tokenizer
from arvision.configs.var import parts as var_parts

STEPS_10 = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
STEPS_13 = (*range(1, 11), 12, 14, 16)
# Other sides are drawn without luck.
SAMPLED = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 23, 24, 32)

# `rate` is for 256 examples, `final` its share at the end, `drawn` the sides of a
# sample.
_SMALL = dict(rate=1e-4, final=0.1, gate=1e-3, drawn=STEPS_10, guidance=2.5)
_D24 = dict(depth=24, epochs=350, rate=8e-5, final=0.01, gate=1e-4)
SIZES = {
  'd16': dict(depth=16, epochs=180, **_SMALL),
  'd20': dict(depth=20, epochs=250, **_SMALL),
  'd24': dict(drawn=STEPS_10, guidance=2.5, **_D24),
  'd24_13': dict(drawn=STEPS_13, guidance=2.5, **_D24),
  'd24_512': dict(drawn=(*STEPS_13, 23, 32), guidance=3.0, **_D24),
}
BATCH = 768


def get_config(arg: str = 'd16'):
  size = ConfigDict(common.size(arg or 'd16', SIZES))
  config = common.generator(tokenizer.get_config(), 'runs/flexvar-tokenizer')
  flexvar_parts.flexvar(
    config,
    scales=config.tokenizer.scales,
    drawn=size.drawn,
    groups=(
      ((1, 2), 2),
      (tuple(range(3, 11)), 5),
      (tuple(range(11, 16)), 2),
      ((16,), 1),
    ),
    best=tuple(side for side in size.drawn if side not in SAMPLED or side > 16),
    guidance=size.guidance,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=1000,
    depth=size.depth,
    width=64 * size.depth,
    heads=size.depth,
    gate=size.gate,
  )
  config.feed.usual = STEPS_10
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  config.data.batch_size = BATCH
  config.train = common.block(duration=common.block(epochs=size.epochs))
  config.optim = common.adamw(
    size.rate * BATCH / 256,
    common.block(
      type='training.schedule.WarmupLin0',
      warmup=common.block(epochs=size.epochs // 50),
      start=0.005,
      flat=0.05,
      final=size.final,
    ),
    exempt=var_parts.NO_DECAY,
  )
  config.optim.weight_decay_end = 0.05
  config.ema = ()
  return common.locked(config)
