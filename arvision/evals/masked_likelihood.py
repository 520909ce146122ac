"""Evaluates the likelihood of held-out images under masked models, in bits."""

import abc
import dataclasses
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from arvision.evals.base import Run
from arvision.evals.likelihood import bits
from arvision.process.absorbing import Nats, antithetic, bound, chain_rule
from arvision.random import Draw
from arvision.ranges import Count, Few, Seed
from arvision.structs import Array


@dataclasses.dataclass(frozen=True)
class _Masked(abc.ABC):
  """Base of both; figures are those of `likelihood.Likelihood`.

  Attributes:
    batch_size: images per call.
    seed: of orders, times and masks.
    every: see `Evaluator`.
  """

  batch_size: Count = 100
  seed: Seed = 0
  every: Mapping[str, float] | None = None
  needs: ClassVar[tuple[str, ...]] = ('masked_nats',)

  @property
  @abc.abstractmethod
  def method(self) -> str:
    """What is computed, for the protocol."""

  @abc.abstractmethod
  def nats(self, nats: Nats, tokens: int, images: Array) -> Array:
    """(b,) nats of all tokens.

    Args:
      nats: see `absorbing.Nats`.
      tokens: tokens of an image.
      images: (b,) numbers of the images, for random numbers.
    """

  def __call__(self, run: Run) -> Iterator[tuple[str, float]]:
    """Passes once over the held-out images, see `Likelihood`."""
    assert run.masked_nats is not None  # see `needs`
    tokens, seen = run.spec.length, 0

    def nats(batch):
      nonlocal seen
      count = len(batch['weight'])
      images = np.arange(seen, seen + count)
      seen += count
      found = self.nats(run.masked_nats(batch), tokens, images)
      return found, np.full(count, tokens)

    yield from bits(run, nats, self.batch_size, self.method)


@dataclasses.dataclass(frozen=True)
class ChainRule(_Masked):
  """Bits of held-out images by the chain rule: one code after another.

  A masked model has a likelihood for every order of codes.

  Attributes:
    order: 'raster', or 'random': another order for every image.
  """

  order: Literal['raster', 'random'] = 'raster'

  @property
  def method(self):
    return f'chain rule, {self.order} order'

  def nats(self, nats, tokens, images):
    order = np.tile(np.arange(tokens), (len(images), 1))
    if self.order == 'random':
      order = Draw.create(self.seed, images).permutation('evals/order', tokens)
    return chain_rule(nats, np.asarray(order), tokens)


@dataclasses.dataclass(frozen=True)
class MonteCarlo(_Masked):
  """A bound of the bits of held-out images (ELBO), by random masks.

  Source: arXiv 2410.18514, whose `mc_num` is the number of samples, 1,024.

  Attributes:
    samples: masks of every image; their times are spread evenly.
  """

  samples: Few = 128

  @property
  def method(self):
    return f'ELBO, {self.samples} samples'

  def nats(self, nats, tokens, images):
    draw = Draw.create(self.seed, images)
    first = draw.uniform('evals/time')
    total: jax.Array | float = 0.0
    for i in range(self.samples):
      uniform = draw.fold(i).uniform('evals/mask', (tokens,))
      total += bound(nats, antithetic(first, i, self.samples), uniform)
    return jnp.asarray(total) / self.samples
