"""Evaluates the likelihood of held-out images in bits."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from arvision.errors import DataError
from arvision.evals.base import Run
from arvision.evals.protocol import Protocol, size_name
from arvision.parallel import host
from arvision.ranges import Count
from arvision.structs import Array

# See `Run.nats`.
Nats = Callable[[Mapping[str, Any]], tuple[Array, Array]]


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
    assert run.nats is not None  # see `needs`
    yield from bits(run, run.nats, self.batch_size)


def bits(
  run: Run, nats: Nats, batch_size: int, method: str = ''
) -> Iterator[tuple[str, float]]:
  """Figures of the held-out images, see `Likelihood`.

  Args:
    run: gives data and names.
    nats: see `Run.nats`.
    batch_size: images per call.
    method: what `nats` computes, for the protocol; '' for the likelihood.
  """
  data = run.data
  if not data.held_out_examples:
    raise DataError(
      'the likelihood is that of held-out images, and there are none: set '
      'config.data.held_out_share'
    )
  run.say(f'likelihood of {data.held_out_examples} held-out images')
  found: list[np.ndarray] = []
  counts: list[np.ndarray] = []
  for batch in host.own_pass(data.held_out, batch_size):
    own, count, weight = host.gather((*nats(batch), batch['weight']))
    found.append(np.asarray(own[weight > 0], np.float64) / math.log(2))
    counts.append(np.asarray(count[weight > 0], np.float64))
  total, tokens = np.concatenate(found), np.concatenate(counts)
  given = 'given the class' if run.classes else ''
  protocol = Protocol(
    extractor='codes',
    reference=f'held-out-{run.name}-{size_name(data.shape)}',
    reference_digest=data.digest,
    split='held-out',
    images=len(total),
    order='',
    rounding='none',
    method=', '.join(filter(None, (given, method))),
  )
  run.note(protocol.name, protocol.facts())
  yield f'bits_per_token/{protocol.name}', total.sum() / tokens.sum()
  if (tokens == run.spec.length).all():
    mean = float(total.mean() / math.prod(data.shape))
    yield f'bits_per_dimension/{protocol.name}', mean
