"""Steps of MaskBit's generator."""

import dataclasses
import types
from collections.abc import Iterator
from typing import Any

import numpy as np

from arvision.tasks import assemble
from arvision.tasks.base import Averages
from tests.parity.case import Case, System
from tests.parity.systems import maskbit, training

INPUTS = {
  'tokens',
  'label',
  'lr',
  'weight_decay',
  'ratio_uniform',
  'mask_uniform',
  'drop_uniform',
}


class Measured(training.Replayed):
  """The task, and the loss of masked parts alone."""

  def objective(self, params, state, frozen, rows, draw):
    args = params, state, frozen, rows, draw
    found = super().objective(*args)
    feed = dataclasses.replace(self.model.feed, unmasked_weight=0.0)
    other = dataclasses.replace(self, model=self.model.clone(feed=feed))
    masked = super(Measured, other).objective(*args).measured['loss']
    return found.replace(metrics={'masked_token_loss': masked})


@dataclasses.dataclass(frozen=True)
class Bits:
  """A tokenizer without images: it has no parameters."""

  tokenizer: Any

  def bind(self, variables: dict[str, Any]) -> Any:
    del variables
    return self.tokenizer.bind({})


def steps(case: Case) -> Iterator[tuple[str, Any]]:
  io, options = case.io, case.training
  options.ignore('B', 'steps')
  config, model, params = maskbit.loaded(case)
  tokenizer = assemble.make_tokenizer(config)
  spec, splits = tokenizer.spec, case.args['codebook_splits']
  feed = dataclasses.replace(
    model.feed,
    schedule=options['mode'],
    summed=options.get('sum_splits', False),
  )
  smoothing = options['label_smoothing']
  head = model.head.clone(label_smoothing=smoothing)
  model = model.clone(feed=feed, head=head)
  width = spec.channels // splits

  def moment(case, i):
    ids = io['tokens'][i][..., None] >> width * np.arange(splits)
    shape = (-1, *spec.shape)
    draws = {
      'null': io['drop_uniform'][i],
      'time': io['ratio_uniform'][i],
      'mask': io['mask_uniform'][i].reshape(shape),
    }
    return training.Moment((ids % 2**width).reshape(shape), draws=draws)

  return training.train(
    case,
    types.SimpleNamespace(loaded=lambda case: (config, model, params)),
    moment=moment,
    min_ndim=0,
    drop=options['label_dropout'],
    kind=Measured,
    tokenizer=Bits(tokenizer),
    ema=Averages((0.999,), warmup=True),
  )


TRAINING = {'modeling.bert.LFQBert': System(steps, INPUTS, training.limits)}
