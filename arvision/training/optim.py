"""Optimizers with the arithmetic of torch."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from arvision.build import Checked, suggest
from arvision.errors import ConfigError
from arvision.layers.param import FIXED
from arvision.layers.stack import LAYERS
from arvision.ranges import AtLeast0, Below1, Count, Natural, Positive
from arvision.training.schedule import Clock, Constant


@dataclasses.dataclass(frozen=True)
class DecayRule(Checked):
  """Selects the parameters with weight decay.

  The axis of stacked layers does not count. A bias counts as a vector: here it
  has the axes of the output of its layer, such as (heads, head size), where
  published code has a flat vector. Arrays of `layers.param.fixed` never decay.

  Attributes:
    min_ndim: parameters with fewer axes are exempt.
    exempt: parts of paths ('condition/start'); a parameter whose path contains
      one of them is exempt.
  """

  min_ndim: Natural = 2
  exempt: tuple[str, ...] = ()

  def __call__(self, params: Any) -> Any:
    """A tree like `params` with True where decay applies."""
    return jax.tree_util.tree_map_with_path(self._decays, params)

  def _decays(self, path, leaf):
    keys = _path(path)
    ndim = jnp.ndim(leaf) - (LAYERS in keys)
    if keys and (keys[-1] == 'bias' or keys[-1].endswith('_bias')):
      ndim = min(ndim, 1)
    where = '/'.join(map(str, keys))
    if where.endswith(FIXED):
      return False
    return ndim >= self.min_ndim and not any(e in where for e in self.exempt)


@dataclasses.dataclass(frozen=True)
class Trained(Checked):
  """Selects the trained parameters.

  A name is that of a parameter, or of a module for all parameters in it, at any
  depth: 'head', 'backbone/stack'.

  Attributes:
    only: names to train; () for all.
    without: names to leave untrained.
    layers: (first, end) of the stacked layers to train; None for all.
  """

  only: tuple[str, ...] = ()
  without: tuple[str, ...] = ()
  layers: tuple[Natural, Natural] | None = None

  def __bool__(self) -> bool:
    return self != Trained()

  def mask(self, params: Any) -> Any:
    """A tree like `params` of True, False, or a (l, 1, ...) bool layer mask.

    Raises:
      ConfigError: no parameter has a name, or the stack has no such layers.
    """
    paths = [_path(p) for p, _ in jax.tree_util.tree_leaves_with_path(params)]
    for key in ('only', 'without'):
      for name in getattr(self, key):
        if not any(_within(path, name) for path in paths):
          raise ConfigError(
            f"config.optim.trained.{key}='{name}': no parameter has that name."
            + suggest(name, {part for path in paths for part in path})
          )
    return jax.tree_util.tree_map_with_path(self._of, params)

  def _of(self, path, leaf):
    names = _path(path)
    named = lambda some: any(_within(names, name) for name in some)
    if named(self.without) or (self.only and not named(self.only)):
      return False
    if self.layers is None or LAYERS not in names:
      return True
    (first, end), count = self.layers, jnp.shape(leaf)[0]
    if not first < end <= count:
      raise ConfigError(
        f'config.optim.trained.layers={self.layers}: wanted layers from 0 to '
        f'{count}, at least one of them'
      )
    number = np.arange(count).reshape(-1, *[1] * (jnp.ndim(leaf) - 1))
    return (first <= number) & (number < end)

  def stop_gradients(self, params: Any) -> Any:
    """The same parameters, without gradients of the untrained ones."""

    def one(mask, leaf):
      if mask is True:
        return leaf
      fixed = jax.lax.stop_gradient(leaf)
      return fixed if mask is False else jnp.where(mask, leaf, fixed)

    return jax.tree.map(one, self.mask(params), params)

  def wrap(
    self, tx: optax.GradientTransformation
  ) -> optax.GradientTransformation:
    """An optimizer of the trained parameters, with state for them alone."""
    some = lambda tree: jax.tree.map(
      lambda mask: mask is not False, self.mask(tree)
    )
    masked = optax.masked(tx, some)

    def update(updates, state, params=None):
      updates, state = masked.update(updates, state, params)
      zero = lambda mask, u: u if mask is True else jnp.where(mask, u, 0)
      return jax.tree.map(zero, self.mask(updates), updates), state

    return optax.GradientTransformation(masked.init, update)


def _path(path):
  return [k.key for k in path if isinstance(k, jax.tree_util.DictKey)]


def _within(names, name):
  return f'/{name}/' in f'/{"/".join(map(str, names))}/'


@dataclasses.dataclass(frozen=True)
class Optimizer(Checked):
  """AdamW, Lion or Adam, with gradient clipping and a learning-rate schedule.

  AdamW is torch's: p <- p (1 - lr wd) - lr m̂ / (√v̂ + eps), with wd scaled by
  the learning rate and eps outside of the root. Lion decays likewise.

  Attributes:
    learning_rate: peak learning rate.
    kind: 'adamw', 'lion' or 'adam' (without weight decay).
    b1, b2: decays of the averages of the gradient and of its square.
    eps: epsilon of Adam.
    weight_decay: weight decay, in units of the learning rate.
    weight_decay_end: final weight decay of half a cosine; None = constant.
    decay: selects the parameters with weight decay.
    trained: selects the trained parameters; the task applies it.
    clip: largest global norm of the gradient; 0 = no clipping.
    accumulate: microbatches per step; the task applies it.
    schedule: schedule of the learning rate.
  """

  learning_rate: AtLeast0
  kind: Literal['adamw', 'lion', 'adam'] = 'adamw'
  b1: Below1 = 0.9
  b2: Below1 = 0.95
  eps: Positive = 1e-8
  weight_decay: AtLeast0 = 0.0
  weight_decay_end: AtLeast0 | None = None
  decay: DecayRule = DecayRule()
  trained: Trained = Trained()
  clip: AtLeast0 = 0.0
  accumulate: Count = 1
  schedule: Constant = Constant()

  def __post_init__(self):
    super().__post_init__()
    if self.kind == 'adam' and (self.weight_decay or self.weight_decay_end):
      raise ConfigError(
        f"config.optim.kind='adam' has no weight decay, but config.optim."
        f"weight_decay={self.weight_decay}; set it to 0, or kind='adamw'"
      )

  def rates(self, clock: Clock) -> dict[str, Callable]:
    """name -> schedule, of the learning rate and the weight decay, for logs."""
    rate = self.schedule.make(self.learning_rate, clock)
    return {'learning_rate': rate, 'weight_decay': self._decay(clock)}

  def make(self, clock: Clock) -> optax.GradientTransformation:
    """The optax transformation.

    Args:
      clock: length of the run, for the schedules.

    Raises:
      ConfigError: durations do not fit the run.
    """
    rates = self.rates(clock)
    if self.kind == 'lion':
      scale = optax.scale_by_lion(self.b1, self.b2)
    else:
      scale = optax.scale_by_adam(self.b1, self.b2, self.eps)
    parts = [clip_by_global_norm(self.clip)] if self.clip else []
    parts.append(scale)
    if self.weight_decay or self.weight_decay_end:
      constant = self.weight_decay_end is None
      decay = self.weight_decay if constant else rates['weight_decay']
      parts.append(optax.add_decayed_weights(decay, self.decay))
    parts.append(optax.scale_by_learning_rate(rates['learning_rate']))
    return optax.chain(*parts)

  def _decay(self, clock):
    start, end = self.weight_decay, self.weight_decay_end
    if end is None:
      return optax.constant_schedule(start)
    # Source: FoundationVision/VAR; over the whole run, warm-up included.
    wave = optax.cosine_decay_schedule(1.0, max(clock.total - 1, 1))
    return lambda step: end + (start - end) * wave(step)


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
  """Clips gradients as torch's `clip_grad_norm_`.

  The result is gradient * min(1, limit / (norm + 1e-6)).

  Differs: `optax.clip_by_global_norm` has no 1e-6. This changes the seventh
  digit of every parameter of a run with clipping.

  Args:
    limit: largest L2 norm over all gradients together.
  """

  def update(updates, state, params=None):
    del params
    scale = jnp.minimum(1.0, limit / (optax.tree.norm(updates) + 1e-6))
    return jax.tree.map(lambda g: g * scale.astype(g.dtype), updates), state

  return optax.GradientTransformation(lambda _: optax.EmptyState(), update)
