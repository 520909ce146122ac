"""Parameters with logical axis names."""

from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

Init = Callable[..., jax.Array]


def param(
  module: nn.Module,
  name: str,
  init: Init,
  names: tuple[str | None, ...],
  shape: tuple[int, ...],
) -> jax.Array:
  """A float32 parameter of a module whose axes have logical names.

  `arvision.parallel.rules` maps the names to axes of a mesh.

  Args:
    module: the module, inside its compact method or setup.
    name: of the parameter.
    init: (key, shape, dtype) -> array.
    names: one per axis, None for an axis that is never sharded.
    shape: of the array.
  """
  boxed: Any = nn.with_logical_partitioning(init, names)
  return cast(jax.Array, module.param(name, boxed, shape))


# Suffix of the names of parameters that are never trained.
FIXED = '_fixed'


def fixed(
  module: nn.Module,
  name: str,
  init: Init,
  names: tuple[str | None, ...],
  shape: tuple[int, ...],
) -> jax.Array:
  """A parameter that is stored with the others but never trained.

  It gets no gradient and no weight decay. Its path ends in '<name>_fixed'; see
  `param` for the arguments.
  """
  return jax.lax.stop_gradient(param(module, name + FIXED, init, names, shape))


def normal(std: float | None) -> Init:
  """Normal initialiser of a standard deviation; zeros for 0, Xavier's uniform
  initialiser for None.
  """
  if std is None:
    return nn.initializers.xavier_uniform()
  return nn.initializers.normal(std) if std else nn.initializers.zeros


def gated(std: float, gate: float, rest: float, gates: int) -> Init:
  """Normal initialiser of adaLN: `gates` leading chunks of d columns are
  multiplied by `gate`, the other columns by `rest`.
  """

  def init(key, shape, dtype=jnp.float32):
    kernel = jax.random.normal(key, shape, dtype) * std
    parts = kernel.reshape(shape[0], -1, shape[0])
    parts = parts.at[:, :gates].multiply(gate).at[:, gates:].multiply(rest)
    return parts.reshape(shape)

  return init


zeros = nn.initializers.zeros
