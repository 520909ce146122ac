"""HMAR on ImageNet 256 × 256, as published: d16, d20, d24, d30.

    arvision train --config=configs/hmar/imagenet256.py:d16_nsp \\
      --workdir=runs/hmar-d16-nsp
    arvision train --config=configs/hmar/imagenet256.py:d16 \\
      --workdir=runs/hmar-d16 --init_from=runs/hmar-d16-nsp --init_partial

Class labels, 10 scales, 680 tokens; the tokenizer is VAR's
(configs/var/tokenizer.py). `d16_nsp` is the first stage, next-scale prediction;
`d16` the second, which trains the end for masked tokens over the frozen rest,
and samples with both: 14 passes, 4 of them over masked tokens.

`arvision import --config=hmar/imagenet256:d16` takes the released file, or the
files of both stages, `--source` twice; `:d16_nsp` that of the first stage.

Published figures (not obtained here): FID 3.01 / 2.50 / 2.10 / 1.95 with 50 000
samples, cfg 1.7 / 1.9 / 2.1 / 1.6, top-k 1000 / 950 / 900 / 650, top-p 0.99 and
the ADM evaluator.

Deviations: bfloat16 where the published runs used float16 with a loss scale; every
example has a masked share and masked places of its own, config.feed.group makes
consecutive ones share them; in evaluation too, the share is random and not 0.5.

Source: arXiv 2506.04421; NVlabs/HMAR.
"""

from arvision.configs import common
from arvision.configs.hmar import parts
from arvision.configs.var import imagenet256, tokenizer

# Sampling as published.
_SAMPLING = {
  'd16': dict(guidance=1.7, top_k=1000),
  'd20': dict(guidance=1.9, top_k=950),
  'd24': dict(guidance=2.1, top_k=900),
  'd30': dict(guidance=1.6, top_k=650),
}
SIZES = {
  name + stage: dict(name=name, first=bool(stage))
  for stage in ('', '_nsp')
  for name in _SAMPLING
}
SECOND_STAGE_EPOCHS = 100


def get_config(arg: str = 'd16'):
  chosen = common.size(arg or 'd16', SIZES)
  name, first = chosen['name'], chosen['first']
  size = dict(imagenet256.SIZES[name])
  if not first:
    size['epochs'] = SECOND_STAGE_EPOCHS
  config = imagenet256.recipe(
    tokenizer.get_config(), 'runs/var-tokenizer', **size
  ).unlock()
  scales, depth = config.tokenizer.scales, size['depth']
  build, more = parts.hmar, {'passes': parts.passes(scales)}
  if first:
    build, more = parts.next_scale, {}
  speed = {k: config.backbone[k] for k in ('dtype', 'remat')}
  build(
    config,
    scales=scales,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=1000,
    depth=depth,
    width=64 * depth,
    heads=depth,
    last=8,
    gate=size['gate'],
    top_p=0.99,
    **_SAMPLING[name],
    **more,
  )
  config.backbone.update(speed)
  if not first:
    parts.second_stage(config.optim)
  return common.locked(config)
