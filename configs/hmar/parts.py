"""Parts of HMAR, shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs import common
from arvision.configs.common import block
from arvision.configs.var import parts as var

NO_DECAY = var.NO_DECAY
# What the second stage trains.
MASKED = (
  'stack_last_masked',
  'norm_masked',
  'linear_masked',
  'input/masked',
)
# What of it starts as what the first stage trained.
COPIES = (
  ('stack_last_masked', 'stack_last'),
  ('norm_masked', 'norm'),
  ('linear_masked', 'linear'),
)


def next_scale(config: ConfigDict, *, last: int, **fields) -> None:
  """HMAR's first stage (arXiv 2506.04421): VAR whose scales see themselves alone.

  Args:
    config: to fill.
    last: layers that the second stage has a copy of.
    **fields: see `var.parts.var`.
  """
  var.var(config, **fields)
  config.release = block(type='importers.hmar.NextScale')
  config.layout.window = 0
  config.feed = block(type='feeds.residual.NormalWeights')
  config.backbone.body = block(
    type='backbones.bodies.Fork', last=last, masked=False
  )


def hmar(config: ConfigDict, *, passes, guidance: float, **fields) -> None:
  """The whole of HMAR, whose second stage trains the end for masked tokens.

  Args:
    config: to fill.
    passes: see `samplers.remask.Remask`.
    guidance: VAR's cfg of the first pass of a scale; that of the others is a
      millionth of it, as published.
    **fields: see `next_scale`.
  """
  next_scale(config, guidance=guidance, **fields)
  config.release = block(type='importers.hmar.Transformer')
  config.feed = block(type='feeds.residual.MaskedResidual', group=1)
  config.backbone.body.masked = True
  config.backbone.input.type = 'backbones.inputs.MaskedVectorInput'
  config.head.type = 'heads.categorical.Forked'
  config.sampler.update(
    type='samplers.remask.Remask',
    passes=tuple(map(tuple, passes)),
    refining=block(type='process.guidance.Constant', scale=1 + 1e-6 * guidance),
  )
  config.task.copies = COPIES


def second_stage(optim: ConfigDict) -> None:
  """Trains the end for masked tokens alone."""
  optim.trained = block(type='training.optim.Trained', only=MASKED)


def passes(scales, few=((1,), (1, 3), (1, 1, 2, 5))):
  """The published passes: the second and the third scale are refined."""
  sides = [height * width for height, width in common.grids(scales)]
  return (*few, *((n,) for n in sides[len(few) :]))
