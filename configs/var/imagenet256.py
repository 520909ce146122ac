"""VAR on ImageNet 256 × 256, as published: d16, d20, d24, d30.

    arvision train --config=configs/var/imagenet256.py:d16 \\
      --workdir=runs/var-d16

Class labels, 10 scales, 680 tokens; the tokenizer is `vae_ch160v4096z32`
(see `tokenizer.py` beside this file for training one).

Cost, as published: 2.5 days on 16 A100 (d16).

Published figures (not obtained here): FID 3.55 / 2.95 / 2.33 / 1.97 with 50 000
samples, cfg 1.5, top-k 900, top-p 0.96 and the ADM evaluator.

Deviations: bfloat16 where the published runs used float16 with a loss scale.

Source: arXiv 2404.02905; FoundationVision/VAR.
"""

from arvision.configs import common
from arvision.configs.var import parts, tokenizer

_SMALL = dict(batch=768, rate=1e-4, final=0.1, gate=1e-3)
_LARGE = dict(epochs=350, rate=8e-5, final=0.01)
SIZES = {
  'd16': dict(depth=16, epochs=200, **_SMALL),
  'd20': dict(depth=20, epochs=250, **_SMALL),
  'd24': dict(depth=24, batch=768, gate=1e-4, **_LARGE),
  'd30': dict(depth=30, batch=1024, gate=1e-5, decay_end=0.08, **_LARGE),
}


def recipe(
  tokenizer,
  workdir: str,
  *,
  depth: int,
  batch: int,
  epochs: int,
  rate: float,
  final: float,
  gate: float,
  decay_end: float = 0.05,
  fill=parts.var,
  **options,
):
  """The config of a published size.

  Args:
    tokenizer: config.
    workdir: where it was trained.
    depth: layers and heads; the width is 64 times as much.
    batch: global.
    epochs: length of the run.
    rate: learning rate per 256 examples.
    final: learning rate at the end, as a share of the largest.
    gate: factor of adaLN's gates at the start.
    decay_end: weight decay at the end.
    fill: `parts.var`, or one with its arguments.
    **options: more of its arguments.
  """
  config = common.generator(tokenizer, workdir)
  fill(
    config,
    scales=config.tokenizer.scales,
    vocab_size=config.tokenizer.quantizer.vocab_size,
    classes=1000,
    depth=depth,
    width=64 * depth,
    heads=depth,
    gate=gate,
    guidance=1.5,
    top_k=900,
    top_p=0.96,
    **options,
  )
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  config.data.batch_size = batch
  config.train = common.block(duration=common.block(epochs=epochs))
  config.optim = common.adamw(
    rate * batch / 256,
    common.block(
      type='training.schedule.WarmupLin0',
      warmup=common.block(epochs=epochs // 50),
      start=0.005,
      flat=0.05,
      final=final,
    ),
    exempt=parts.NO_DECAY,
  )
  config.optim.weight_decay_end = decay_end
  config.ema = ()
  config.evals.fid = common.fid()
  return common.locked(config)


def get_config(arg: str = 'd16'):
  size = common.size(arg or 'd16', SIZES)
  return recipe(tokenizer.get_config(), 'runs/var-tokenizer', **size)
