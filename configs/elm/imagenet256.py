"""ELM on ImageNet 256 × 256: next-token prediction over sub-codes.

    arvision train --config=configs/elm/imagenet256.py:L-2-10 \\
      --workdir=runs/elm-l-2-10 --config.frozen.tokenizer=runs/elm-bae-20

or, with the released weights,

    arvision import --config=configs/elm/imagenet256.py:L-2-10 \\
      --workdir=runs/elm-l-2-10 --source=FILE \\
      --config.frozen.tokenizer=runs/elm-bae-20

`L-2-10-mlm` and its like fill masked tokens, in ten steps.

LlamaGen's transformer; `L-2-10` is its size L on tokens of two ids of 10 bits, which
are embedded by tables of their own and drawn independently of each other.

As published: AdamW, constant learning rate 1e-4, batch 256, 400 epochs, images
encoded in the course of training. Guidance grows linearly to 4.0 and the 1,000
best ids are drawn from for L-2-10; the other sizes draw from half of the ids here,
as the authors advise. Published figures (not obtained here): FID 1.54 (2B-2-12);
without guidance 15.95 (L), 12.70 (XL) and 10.11 (XXL).

Source: arXiv 2410.16257; Pepper-lll/LMforImageGeneration. Deviations of the
masked models: each image has a masked share of its own, at any time of the
schedule, where a batch shares one of ten; the noise of the sampler and its
guidance are not stated.
"""

from arvision.configs import common
from arvision.configs.elm import parts, tokenizer

_SIZES = {
  'B': dict(depth=12, heads=12, width=768),
  'L': dict(depth=24, heads=16, width=1024),
  'XL': dict(depth=36, heads=20, width=1280),
  'XXL': dict(depth=48, heads=24, width=1536),
  '2B': dict(depth=48, heads=28, width=1792),
}
_MASKED = '-mlm'
# Transformer, ids of a token, bits of an id.
_ROWS = {
  f'{size}-{ids}-{bits}': (size, ids, bits)
  for size, ids, bits in (
    ('B', 2, 10),
    ('L', 1, 16),
    ('L', 2, 10),
    ('L', 2, 12),
    ('L', 3, 8),
    ('XL', 2, 12),
    ('XXL', 2, 12),
    ('2B', 2, 12),
  )
}
SIZES = {
  **_ROWS,
  **{
    f'{size}{_MASKED}': _ROWS[size] for size in ('L-1-16', 'L-2-10', 'XL-2-12')
  },
}


def get_config(arg: str = 'L-2-10'):
  arg = arg or 'L-2-10'
  size, ids, bits = common.size(arg, SIZES)
  code = f'{ids * bits}'
  config = common.generator(
    tokenizer.get_config(code, ids), f'runs/elm-bae-{code}'
  )
  make = parts.elm_mlm if arg.endswith(_MASKED) else parts.elm
  make(
    config,
    grid=(16, 16),
    parts=ids,
    vocab_size=2**bits,
    classes=1000,
    top_k=1000 if arg.startswith('L-2-10') else 2 ** (bits - 1),
    **_SIZES[size],
  )
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  config.data.update(crop='center', batch_size=256)
  config.train = common.block(duration=common.block(epochs=400))
  config.optim = common.adamw(
    1e-4, common.block(type='training.schedule.Constant'), clip=1.0
  )
  config.ema = (0.9999,)
  config.ema_warmup = False
  return common.locked(config)
