"""Paths of flow and diffusion, and the solvers that follow their fields."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.layers.level import as_time
from arvision.process import path
from arvision.process.flow import Euler
from arvision.process.solvers import DDIM, Ancestral, DPMSolver
from arvision.random import Draw

PATHS = [path.Flow(), path.Diffusion()]
SOLVERS = [DDIM(), DDIM(eta=0.5), Ancestral(), DPMSolver()]
MEAN, STD = 1.5, 0.5


def some(shape=(2, 5, 3)):
  rng = np.random.default_rng(0)
  x, noise = rng.normal(size=(2, *shape)).astype(np.float32)
  return x, noise, rng.random(shape[:-1]).astype(np.float32)


@pytest.mark.parametrize('way', PATHS)
def test_a_field_gives_back_data_and_noise(way):
  x, noise, level = some()
  noised = way(x, noise, level)
  for got, wanted in zip(way.split(*noised[:2], level), (x, noise)):
    np.testing.assert_allclose(got, wanted, atol=2e-3)
  np.testing.assert_array_equal(noised.time, as_time(jnp.asarray(level)))
  np.testing.assert_array_equal(way(x, noise, 0.0).values, x)


def test_times_of_diffusion_are_thousandths_of_levels():
  scale, std = path.Diffusion().coefficients(np.array([0, 0.5e-3, 0.9999, 1]))
  bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[[0, -1, -1]]
  np.testing.assert_allclose(scale**2, [1, *bar], rtol=1e-5)
  np.testing.assert_allclose(std**2, [0, *(1 - bar)], rtol=1e-5)
  times = np.arange(1000)
  levels = jnp.float32(path.level_of(times))
  np.testing.assert_array_equal(as_time(levels), times)


def ideal(way, x, level):
  """The field of normal data: what the network would learn."""
  scale, std = way.coefficients(level)
  away = (x - scale * MEAN) / ((scale * STD) ** 2 + std**2)
  return way.target(MEAN + scale * STD**2 * away, std * away)


def solved(solver, way, count, draw, shape=(4000, 1)):
  levels = jnp.asarray(solver.levels(count))
  x = draw.normal('start', shape)

  def advance(i, state):
    x, memory = state
    level, to = levels[i], levels[i + 1]
    step = way, x, ideal(way, x, level), level, to, draw.fold(i), memory
    return solver.step(*step)

  state = x, solver.start(x)
  return jax.jit(
    lambda state: jax.lax.fori_loop(0, len(levels) - 1, advance, state)
  )(state)[0]


@pytest.mark.parametrize('way', PATHS)
@pytest.mark.parametrize('solver', SOLVERS)
def test_solvers_end_in_the_data(solver, way):
  x = solved(solver, way, 200, Draw.create(0, jnp.arange(2)))
  np.testing.assert_allclose(x.mean(), MEAN, atol=0.03)
  np.testing.assert_allclose(x.std(), STD, atol=0.03)


def test_the_multistep_method_is_of_second_order():
  """Half the step, a quarter of the error; DDIM's is halved."""
  draw, way = Draw.create(0, jnp.arange(1)), path.Flow()

  def error(solver, count):
    # A grid that is even in lambda; the last level is not data.
    levels = 1 / (1 + np.exp(np.linspace(-3, 3, count + 1)))
    x, memory = draw.normal('start', (500, 1)), None
    scale, std = way.coefficients(levels[0])
    spread = lambda a, s: jnp.sqrt((a * STD) ** 2 + s**2)
    begin = scale * MEAN + spread(scale, std) * x
    at, memory = begin, solver.start(begin)
    for level, to in zip(levels, levels[1:]):
      f = ideal(way, at, level)
      at, memory = solver.step(way, at, f, level, to, draw, memory)
    scale, std = way.coefficients(levels[-1])
    return np.abs(at - (scale * MEAN + spread(scale, std) * x)).max()

  first = error(DDIM(), 16) / error(DDIM(), 32)
  second = error(DPMSolver(), 16) / error(DPMSolver(), 32)
  assert 1.7 < first < 2.3 and 3.4 < second < 4.6, (first, second)


def test_ddim_of_a_flow_is_eulers_method():
  x, field, _ = some()
  draw = Draw.create(0, jnp.arange(2))
  step = path.Flow(), x, field, 0.7, 0.4, draw, ()
  np.testing.assert_allclose(
    DDIM().step(*step)[0], Euler().step(*step)[0], atol=1e-6
  )


def test_ancestral_sampling_has_the_variance_of_the_true_reverse_step():
  way, (level, to) = path.Diffusion(), path.level_of(np.float32([800, 600]))
  draw = Draw.create(0, jnp.arange(1))
  x = jnp.zeros((1, 20000, 1))
  got, _ = Ancestral().step(way, x, x, level, to, draw, ())
  (scale, std), (scale_to, std_to) = map(way.coefficients, (level, to))
  beta = 1 - (scale / scale_to) ** 2
  wanted = beta * std_to**2 / std**2
  np.testing.assert_allclose(np.var(got), wanted, rtol=0.03)


def test_times_of_the_official_samplers():
  times = lambda solver, n: as_time(jnp.asarray(solver.levels(n)[:-1])).tolist()
  assert times(DDIM(), 5) == [999, 749, 499, 249, 0]
  assert times(DDIM(), 1) == [999]
  # np.linspace(0, 999, 26), rounded, without the 0.
  found = times(DPMSolver(), 25)
  assert found[:4] == [999, 959, 919, 879] and found[-2:] == [80, 40]
  for solver, count in ((DDIM(), 1001), (DPMSolver(), 1000), (DDIM(), 0)):
    with pytest.raises(ValueError, match='diffusion steps: wanted 1 to'):
      solver.levels(count)
