"""One masked transformer over one KL tokenizer, with three kinds of heads.

    arvision train --config=configs/mar/digits_tokenizer.py \\
      --workdir=runs/mar/digits_tokenizer
    arvision train --config=configs/ablations/heads.py:flow \\
      --workdir=runs/ablations/heads_flow

`diffusion` is MAR; `flow` is its MLP, trained by flow matching instead of
diffusion; `categorical` draws the latents in levels, channel by channel
(TokenBridge). The transformer, the schedule and the tokenizer's weights are the
same, and so are the steps of diffusion and flow; guidance and temperature of
`categorical` are those of `tokenbridge/digits`. `launch/ablations.py` compares
them.
"""

from arvision.configs import common
from arvision.configs.mar import digits as mar
from arvision.configs.tokenbridge import digits as tokenbridge

SIZES = ('categorical', 'diffusion', 'flow')


def get_config(arg: str = 'diffusion'):
  kind = arg or 'diffusion'
  family = common.size(
    kind, {'categorical': tokenbridge, 'diffusion': mar, 'flow': mar}
  )
  config = family.get_config().unlock()
  del config.release
  config.update({key: mar.get_config()[key] for key in ('optim', 'train')})
  if kind == 'flow':
    del config.head.highest
    flow(config)
  return common.locked(config)


def flow(config) -> None:
  """Turns the head of a MAR into its MLP trained by flow matching."""
  config.head.type = 'heads.flow.TokenFlow'


def get_sweep():
  """Every variant over the same tokenizer, for `arvision sweep`."""
  needs = {'frozen.tokenizer': 'mar/digits_tokenizer'}
  return [{'variant': size, 'needs': needs} for size in SIZES]
