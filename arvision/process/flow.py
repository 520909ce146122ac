"""The straight path between data and noise, and its levels.

    x_level = (1 - level) x + level noise,    velocity = noise - x

Level 0 is data and level 1 is noise; code that counts the other way is flipped
on import.

Source: arXiv 2210.02747 and arXiv 2209.03003 (flow matching, rectified flow).
"""

from typing import Any

import jax
import jax.numpy as jnp

from arvision.structs import Draw

LEVELS = ('logit_normal', 'uniform')


def mix(x: Any, noise: Any, level: Any) -> jax.Array:
  """(..., c) float32: x at a noise level.

  Args:
    x, noise: (..., c).
    level: (...) in [0, 1].
  """
  level = jnp.asarray(level, jnp.float32)[..., None]
  return (1 - level) * x + level * noise


def draw_levels(law: str, draw: Draw, shape: tuple[int, ...]) -> jax.Array:
  """(b, *shape) levels in [0, 1), drawn by the name 'level'.

  Args:
    law: 'uniform', or 'logit_normal' (sigmoid of a standard normal number).
    draw: of the examples.
    shape: of an example.

  Raises:
    ValueError: unknown law.
  """
  if law == 'logit_normal':
    return jax.nn.sigmoid(draw.normal('level', shape))
  if law == 'uniform':
    return draw.uniform('level', shape)
  raise ValueError(f"levels='{law}': wanted one of {LEVELS}")
