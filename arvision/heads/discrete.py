"""Discrete diffusion: a distribution over clean ids, given noised ones."""

import jax
import jax.numpy as jnp

from arvision.errors import ConfigError
from arvision.heads.categorical import Categorical
from arvision.process.transitions import LEAST, MaskAndReplace
from arvision.random import Draw
from arvision.ranges import AtLeast0
from arvision.structs import Query


class DiscreteDiffusion(Categorical, kw_only=True):
  """Logits of the clean ids x_0; the loss is the variational bound.

  At time 1 the loss is -log p(x_0 | x_1), at later ones the divergence of
  p(x_(n-1) | x_n) from the posterior that knows x_0. A share of the divergence of
  p(x_0 | x_n) from x_0, the cross entropy, is added.

  Source: arXiv 2111.14822; microsoft/VQ-Diffusion, diffusion_transformer.py.

  Attributes:
    process: the transition matrices, those of the feed.
    auxiliary: weight of the cross entropy.
    early: how much more it weighs near the data: its weight is
      auxiliary (1 + early (1 - (n - 1) / steps)).
    masked_weight: weight of the divergences of masked tokens.
    unmasked_weight: of those of other tokens.
  """

  process: MaskAndReplace
  auxiliary: AtLeast0 = 1e-3
  early: AtLeast0 = 1.0
  masked_weight: AtLeast0 = 1.0
  unmasked_weight: AtLeast0 = 1.0

  def setup(self):
    if self.process.vocab_size != self.vocab_size:
      raise ConfigError(
        f'config.head.process.vocab_size={self.process.vocab_size}: wanted that '
        f'of config.head.vocab_size={self.vocab_size}'
      )
    super().setup()

  def loss(
    self, z: jax.Array, targets: jax.Array, draw: Draw, query: Query
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Bound and cross entropy in nats.

    The bound alone, and the times, are sown as 'bound' (b, t) and 'time' (b,)
    for tasks that sample times by importance.

    Args:
      z: (b, t, r, d).
      targets: (b, t) int32 x_0.
      draw: not used.
      query: with the noised ids, which of them are masked, and their level.

    Returns:
      (b, t) float32 losses, and metrics of every token.
    """
    process = self.process
    assert query.level is not None and query.given is not None
    time = process.time(query.level[:, 0])
    masked = jnp.asarray(query.masked)
    x = jnp.where(masked, process.mask, query.given)
    logits = self.field(z, query)
    log_x0 = log_probabilities(logits)
    known = process.one_hot(targets)
    found = process.posterior(log_x0, x, time)
    wanted = process.posterior(known[..., :-1], x, time)
    weight = jnp.where(masked, self.masked_weight, self.unmasked_weight)
    at = lambda p: jnp.take_along_axis(p, targets[..., None], -1)[..., 0]
    first, last = (time == 1)[:, None], -at(found)
    divergence = jnp.sum(jnp.exp(wanted) * (wanted - found), -1)
    bound = jnp.where(first, last, weight * divergence)
    entropy = jnp.where(first, last, weight * -at(log_x0))
    self.sow('intermediates', 'bound', bound)
    self.sow('intermediates', 'time', time)
    share = 1 + self.early * (1 - (time - 1) / process.steps)[:, None]
    right = (jnp.argmax(logits, -1) == targets).astype(jnp.float32)
    loss = bound + self.auxiliary * share * entropy
    return loss, {'token_accuracy': right}


def log_probabilities(logits: jax.Array) -> jax.Array:
  """Log probabilities (..., v) of logits, at least -70."""
  log_p = jax.nn.log_softmax(logits.astype(jnp.float32), -1)
  return jnp.maximum(log_p, LEAST)
