"""Scaling laws: fits of held-out loss over model size, tokens and compute."""

import dataclasses
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from arvision.errors import ConfigError
from arvision.runs.folder import Folder
from arvision.tasks import assemble
from arvision.training.schedule import run_clock
from arvision.training.workdir import load_config

AXES = ('parameters', 'tokens', 'compute')
# Parameters that a wider model hardly has more use for: tables of embeddings.
_TABLES = ('position', 'table')
_RESAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Point:
  """A trained model.

  Attributes:
    name: of its folder.
    parameters: parameters of the backbone, without tables of embeddings.
    tokens: tokens seen in training, repetitions counted.
    loss: held-out loss at the end, in nats per token for codes.
  """

  name: str
  parameters: int
  tokens: int
  loss: float

  @property
  def compute(self) -> float:
    """FLOPs of training by the rule 6 × parameters × tokens."""
    return 6.0 * self.parameters * self.tokens


@dataclasses.dataclass(frozen=True)
class Fit:
  """The power law L = (β X)^α.

  Source: Kaplan et al., "Scaling laws for neural language models", 2020; the
    form and the correlation coefficient are those of VAR (arXiv 2404.02905).

  Attributes:
    axis: X, one of `AXES`.
    alpha, beta: of the law.
    correlation: Pearson's coefficient of log X and log L.
    alpha_range, beta_range: 95 % bootstrap intervals; None for fewer than
      `FEWEST` points.
  """

  axis: str
  alpha: float
  beta: float
  correlation: float
  alpha_range: tuple[float, float] | None = None
  beta_range: tuple[float, float] | None = None

  def __call__(self, x: float) -> float:
    """The loss at X."""
    return math.exp(self.alpha * math.log(self.beta * x))


# Points of a fit, and of its bootstrap: fewer have too few resamples.
LEAST, FEWEST = 3, 4


def fit(points: Sequence[Point], axis: str, seed: int = 0) -> Fit:
  """Least squares of log L over log X.

  Args:
    points: models of different sizes.
    axis: one of `AXES`.
    seed: of the bootstrap, which resamples points.

  Raises:
    ConfigError: fewer than 3 points, no two different values of X, or a loss
      that has no logarithm.
  """
  x, y = _logarithms(points, axis)
  alpha, beta = _line(x, y)
  correlation = float(np.corrcoef(x, y)[0, 1]) if np.ptp(y) else 0.0
  ranges: dict[str, Any] = {}
  if len(points) >= FEWEST:
    found = np.array([_line(a, b) for a, b in _resampled(x, y, seed)])
    low, high = np.percentile(found, [2.5, 97.5], axis=0)
    ranges = {
      'alpha_range': (float(low[0]), float(high[0])),
      'beta_range': (float(low[1]), float(high[1])),
    }
  return Fit(axis, alpha, beta, correlation, **ranges)


def predict(
  points: Sequence[Point], axis: str, x: float, seed: int = 0
) -> tuple[float, tuple[float, float] | None]:
  """The loss at X, with a 95 % interval by the bootstrap of `fit`."""
  a, b = _logarithms(points, axis)
  law = Fit(axis, *_line(a, b), 0.0)
  if len(points) < FEWEST:
    return law(x), None
  found = [Fit(axis, *_line(p, q), 0.0)(x) for p, q in _resampled(a, b, seed)]
  low, high = np.percentile(found, [2.5, 97.5])
  return law(x), (float(low), float(high))


def _logarithms(points, axis):
  if len(points) < LEAST:
    raise ConfigError(
      f'a scaling law needs at least {LEAST} models, got {len(points)}'
    )
  for point in points:
    if not (math.isfinite(point.loss) and point.loss > 0):
      raise ConfigError(
        f"'{point.name}' has the held-out loss {point.loss}: a power law needs "
        'positive losses'
      )
    if not getattr(point, axis) > 0:
      raise ConfigError(f"'{point.name}' has no {axis}")
  x = np.log([float(getattr(p, axis)) for p in points])
  if not np.ptp(x):
    raise ConfigError(f'all models have the same {axis}: nothing to fit')
  return x, np.log([p.loss for p in points])


def _line(x, y):
  """α, β of y = α (x + log β)."""
  alpha, constant = np.polyfit(x, y, 1)
  if not alpha:
    return 0.0, 1.0
  return float(alpha), float(np.exp(np.clip(constant / alpha, -700, 700)))


def _resampled(x, y, seed):
  """Resamples with at least two different values of x."""
  rng = np.random.default_rng(seed)
  count = 0
  while count < _RESAMPLES:
    rows = rng.integers(0, len(x), len(x))
    if np.ptp(x[rows]):
      count += 1
      yield x[rows], y[rows]


def axes(points: Sequence[Point]) -> list[str]:
  """The axes along which the models differ.

  Raises:
    ConfigError: there is none.
  """
  found = [a for a in AXES if len({getattr(p, a) for p in points}) > 1]
  if not found:
    raise ConfigError(
      'all models have the same size and tokens: nothing to fit'
    )
  return found


def collect(folder: pathlib.Path, allow: Iterable[str] | None = ()) -> Point:
  """The point of a run of a generator, by the last held-out loss of its log.

  Args:
    folder: its workdir.
    allow: see `workdir.load_config`.

  Raises:
    ConfigError: it is not a generator, its log has no held-out loss, or it
      names a class that is not allowed.
  """
  config = load_config(folder, allow)
  run = Folder(folder)
  if 'backbone' not in config:
    raise ConfigError(f"--workdir='{folder}' holds no generator")
  losses = [(line, _loss(line)) for line in run.log]
  measured = [(line, loss) for line, loss in losses if loss is not None]
  if not measured:
    raise ConfigError(
      f"--workdir='{folder}' has no held-out loss in its log: set "
      'config.evals.every'
    )
  last, loss = measured[-1]
  seen = int(last['examples']) * assemble.make_tokenizer(config).spec.length
  return Point(folder.name, size(config), seen, loss)


def _loss(line: Mapping[str, float]) -> float | None:
  """Held-out loss of the slowest average of a log line, or of the raw weights."""
  averages = [k for k in line if k.startswith('held_out/ema_')]
  averages = [k for k in averages if k.endswith('/loss')]
  if averages:
    return line[max(averages, key=lambda k: float(k.split('/')[1][4:]))]
  return line.get('held_out/loss')


def size(config: Any) -> int:
  """Parameters of the backbone of a config, without tables of embeddings."""
  shapes = assemble.trained_shapes(config)['backbone']
  leaves = jax.tree_util.tree_leaves_with_path(shapes)
  return sum(
    int(np.prod(leaf.shape))
    for path, leaf in leaves
    if not any(t in jax.tree_util.keystr(path) for t in _TABLES)
  )


def planned(name: str, config: Any) -> Point:
  """The point of a run before it is trained; its loss is NaN."""
  data = assemble.make_data(config)
  clock = run_clock(config, data.examples)
  tokens = clock.seen(clock.total) * assemble.make_tokenizer(config).spec.length
  return Point(name, size(config), tokens, math.nan)


@dataclasses.dataclass(frozen=True)
class Prediction:
  """The loss of a model by a law, and what was measured.

  Attributes:
    name: of the model.
    axis: of the law.
    x: of the model, on this axis.
    loss: by the law.
    interval: 95 % bootstrap interval; None for too few points.
    measured: held-out loss after training; None before.
  """

  name: str
  axis: str
  x: float
  loss: float
  interval: tuple[float, float] | None = None
  measured: float | None = None

  @property
  def error(self) -> float | None:
    """(predicted - measured) / measured; None before training."""
    if self.measured is None:
      return None
    return (self.loss - self.measured) / self.measured

  def to_json(self) -> dict[str, Any]:
    return {**dataclasses.asdict(self), 'error': self.error}


def predictions(
  points: Sequence[Point], wanted: Point, seed: int = 0
) -> list[Prediction]:
  """The loss of a further model by the law of every axis of `axes`."""
  result = []
  for axis in axes(points):
    x = float(getattr(wanted, axis))
    loss, interval = predict(points, axis, x, seed)
    result.append(Prediction(wanted.name, axis, x, loss, interval))
  return result


def chart(
  laws: Mapping[str, tuple[Sequence[Point], Fit]],
  ahead: Mapping[str, Sequence[Prediction]] | None = None,
) -> str:
  """SVG of models and their laws along one axis.

  Args:
    laws: name -> models, and the law that was fitted to them.
    ahead: name -> predictions; measured losses are drawn hollow.
  """
  from arvision.evals import plots  # imports matplotlib

  (axis,) = {law.axis for _, law in laws.values()}
  labels = {
    name: f'{name}: r = {law.correlation:.4f}'
    for name, (_, law) in laws.items()
  }
  later = {
    labels[name]: [(p.x, p.measured) for p in found if p.measured]
    for name, found in (ahead or {}).items()
  }
  figure = plots.power_laws(
    {
      labels[name]: [(float(getattr(p, axis)), p.loss) for p in points]
      for name, (points, _) in laws.items()
    },
    {labels[name]: law for name, (_, law) in laws.items()},
    axis,
    'held-out loss',
    later,
  )
  return plots.svg(figure)
