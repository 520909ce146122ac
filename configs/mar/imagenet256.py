"""MAR on ImageNet 256 × 256, as published: B, L, H.

    arvision encode --config=configs/mar/tokenizer.py --workdir=runs/kl16 \\
      --views=flip --output=DIR
    arvision train --config=configs/mar/imagenet256.py:B --workdir=runs/mar-b

or, with the released weights,

    arvision import --config=configs/mar/imagenet256.py:B \\
      --workdir=runs/mar-b --source=checkpoint-last.pth

Latents of KL-16 in a random order, a token at each of 256 steps with 100 diffusion
steps each. `B_disa`, `L_disa` and `H_disa` draw in 64 steps with 50 diffusion steps
at the first and 5 at the last (DiSA, arXiv 2505.20297); they take the same weights.

Published figures (not obtained here): FID 2.31 / 1.78 / 1.55 with the guidance of
the table below; 208M / 479M / 943M parameters.

Deviations: bfloat16 in place of float16 with a scaled loss. The rate stays constant
after its warm-up, as published.

Source: arXiv 2406.11838; LTH14/mar.
"""

from arvision.configs import common
from arvision.configs.mar import parts, tokenizer

# layers of a half, width, heads, blocks and width of the head, guidance.
_MODELS = {
  'B': (12, 768, 12, 6, 1024, 2.9),
  'L': (16, 1024, 16, 8, 1280, 3.0),
  'H': (20, 1280, 16, 12, 1536, 3.2),
}
# The same, and guidance where diffusion is annealed.
_ANNEALED = {'B': 2.9, 'L': 3.0, 'H': 3.3}
SIZES = {
  **{name: (model, None) for name, model in _MODELS.items()},
  **{f'{name}_disa': (_MODELS[name], g) for name, g in _ANNEALED.items()},
}


def get_config(arg: str = 'B'):
  model, annealed = common.size(arg or 'B', SIZES)
  depth, width, heads, head_depth, head_width, guidance = model
  config = common.generator(tokenizer.get_config(), 'runs/kl16')
  parts.mar(
    config,
    grid=(16, 16),
    channels=16,
    classes=1000,
    depth=depth,
    second_depth=depth,
    width=width,
    heads=heads,
    hidden=4 * width,
    head_width=head_width,
    head_depth=head_depth,
    guidance=annealed or guidance,
    steps=64 if annealed else 256,
  )
  if annealed:
    parts.anneal(config)
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  config.head.dtype = 'bfloat16'
  config.data.update(batch_size=2048, crop='center')
  config.train = common.block(duration=common.block(epochs=400))
  config.optim = common.adamw(
    8e-4,
    common.block(
      type='training.schedule.Constant', warmup=common.block(epochs=100)
    ),
    weight_decay=0.02,
    clip=3.0,
    exempt=parts.NO_DECAY,
  )
  config.ema = (0.9999,)
  config.ema_warmup = False
  return common.locked(config)
