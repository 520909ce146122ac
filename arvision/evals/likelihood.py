"""Evaluates the likelihood of held-out images in bits."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from arvision.errors import DataError
from arvision.evals.base import Run
from arvision.evals.protocol import Protocol, size_name
from arvision.parallel import host
from arvision.ranges import Count


@dataclasses.dataclass(frozen=True)
class Likelihood:
  """Bits that the codes of held-out images cost, given their classes.

  This is the length of a code of the tokens. It is no likelihood of the pixels:
  a tokenizer that keeps less detail costs fewer bits. So models are comparable
  if they have the same tokenizer.

  Attributes:
    batch_size: images per call.
    every: see `Evaluator`.
  """

  batch_size: Count = 100
  every: Mapping[str, float] | None = None
  needs: ClassVar[tuple[str, ...]] = ('nats',)

  def __call__(self, run: Run) -> Iterator[tuple[str, float]]:
    """Passes once over the held-out images.

    Yields:
      `bits_per_token`: mean over all codes.
      `bits_per_dimension`: bits of an image over its numbers, H W C; only if
        the model predicts all codes of an image.

    Raises:
      DataError: the data has no held-out split.
    """
    data = run.data
    if not data.held_out_examples:
      raise DataError(
        'the likelihood is that of held-out images, and there are none: set '
        'config.data.held_out_share'
      )
    run.say(f'likelihood of {data.held_out_examples} held-out images')
    assert run.nats is not None  # see `needs`
    bits: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    for batch in host.own_pass(data.held_out, self.batch_size):
      nats, count, weight = host.gather((*run.nats(batch), batch['weight']))
      bits.append(np.asarray(nats[weight > 0], np.float64) / math.log(2))
      counts.append(np.asarray(count[weight > 0], np.float64))
    total, tokens = np.concatenate(bits), np.concatenate(counts)
    protocol = Protocol(
      extractor='codes',
      reference=f'held-out-{run.name}-{size_name(data.shape)}',
      reference_digest=data.digest,
      split='held-out',
      images=len(total),
      order='',
      rounding='none',
      method='given the class' if run.classes else '',
    )
    run.note(protocol.name, protocol.facts())
    yield f'bits_per_token/{protocol.name}', total.sum() / tokens.sum()
    if (tokens == run.spec.length).all():
      mean = float(total.mean() / math.prod(data.shape))
      yield f'bits_per_dimension/{protocol.name}', mean
