"""What the train loop knows of a task, and what tasks share."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import optax

from arvision.metrics import Mean, Metric, Term, total
from arvision.parallel.constrain import constrain
from arvision.random import Draw
from arvision.ranges import Below1, Count, Seed

Batch = dict[str, Any]
Metrics = dict[str, jax.Array]
Frozen = dict[str, Any]


@flax.struct.dataclass
class TrainState:
  """Everything that a training run needs to go on, as one pytree.

  Attributes:
    step: () int32 optimizer steps taken.
    params: trained parameters; several networks sit under several keys.
    opt_state: optax state(s), laid out as the task wants.
    ema: decay as text ('0.999') -> running average of `params`.
    extra: other arrays that steps change (usage counters, batch statistics).
  """

  step: jax.Array
  params: Any
  opt_state: Any
  ema: dict[str, Any]
  extra: dict[str, Any] = flax.struct.field(default_factory=dict)


class Task(Protocol):
  """A thing to train. `init` and `step` are pure and run under jit.

  Attributes:
    binds: names of the runs whose weights it uses, keys of `config.frozen`.
    frozen: name -> weights that no step changes: of these runs, and others
      (LPIPS). Every method gets them as an argument, on devices.
  """

  binds: tuple[str, ...]
  frozen: dict[str, Any]

  def init(self, key: jax.Array) -> TrainState:
    """A fresh state; parameters are boxed with their logical axes."""

  def step(
    self, state: TrainState, frozen: Frozen, batch: Batch
  ) -> tuple[TrainState, Metrics]:
    """One optimizer step. Metrics are float32 scalars, means of the batch."""

  def evaluate(
    self, params: Any, frozen: Frozen, batch: Batch
  ) -> dict[str, Metric]:
    """Metrics of one held-out batch, 'loss' among them; merged with others.

    `batch['weight']` (b,) is 0 for examples that pad the last batch.
    """

  def check(self, frozen: Frozen, batch: Batch) -> dict[str, jax.Array]:
    """What the model sees of a batch, as `pictures` gives images."""

  def pictures(self, params: Any, frozen: Frozen, batch: Batch) -> dict:
    """name -> (k, H, W, C) float32 in [-1, 1], a row of the workdir's PNG."""


class Selection(Protocol):
  """Some of the parameters of a task."""

  def still(self, params: Any) -> Any:
    """The same parameters; what is not selected has no gradient."""

  def wrap(
    self, tx: optax.GradientTransformation
  ) -> optax.GradientTransformation:
    """An optimizer of the selected parameters; the others stay."""


@flax.struct.dataclass
class Objective:
  """What a step minimises, of some examples, and what it measures beside.

  Attributes:
    terms: their sum is the loss.
    apart: terms that are minimised too and are no part of the loss that is
      reported, such as those of a discriminator.
    metrics: name -> metric.
    aux: arrays that are added up over the batch and are no metrics.
  """

  terms: dict[str, Term]
  apart: dict[str, Term] = flax.struct.field(default_factory=dict)
  metrics: dict[str, Metric] = flax.struct.field(default_factory=dict)
  aux: dict[str, jax.Array] = flax.struct.field(default_factory=dict)

  @property
  def minimised(self) -> dict[str, Term]:
    return {**self.terms, **self.apart}

  @property
  def measured(self) -> dict[str, Metric]:
    """The loss, its terms where there are several, and the metrics."""
    every = self.minimised
    several = {k: t.mean for k, t in every.items()} if len(every) > 1 else {}
    return {'loss': total(self.terms), **several, **self.metrics}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class GradientTask(abc.ABC):
  """Takes the optimizer steps of a task; a subclass states its objective.

  Attributes:
    tx: optimizer.
    image_shape: (H, W, C).
    ema: decays of the running averages.
    ema_warmup: whether they warm up, see `update_ema`.
    accumulate: pieces that a step is cut into.
    seed: of every draw.
    frozen: see `Task`.
    trained: which parameters are trained, see `training.optim.Trained`; None:
      all of them.
  """

  tx: optax.GradientTransformation
  image_shape: tuple[int, int, int]
  ema: tuple[Below1, ...] = (0.999,)
  ema_warmup: bool = False
  accumulate: Count = 1
  seed: Seed = 0
  frozen: Frozen = dataclasses.field(default_factory=dict)
  trained: Selection | None = None

  binds: ClassVar[tuple[str, ...]] = ()

  # ------------------------------------------------- what a subclass states

  @abc.abstractmethod
  def fresh(self, key: jax.Array) -> Any:
    """The parameters that training starts with."""

  @abc.abstractmethod
  def objective(
    self,
    params: Any,
    state: TrainState,
    frozen: Frozen,
    rows: Batch,
    draw: Draw,
  ) -> Objective:
    """What is minimised over some examples of a batch.

    Args:
      params: that it is differentiated by.
      state: before the step.
      frozen: weights that no step changes.
      rows: see `rows`; 'row' (b,) is where each example is in the global batch.
      draw: keys of these examples.
    """

  def rows(self, state: TrainState, frozen: Frozen, batch: Batch) -> Batch:
    """Arrays of a batch that `objective` reads; their leading axis is cut."""
    del state, frozen
    return batch

  def extra(self) -> dict[str, jax.Array]:
    """`TrainState.extra` at the start."""
    return {}

  def after(
    self, state: TrainState, aux: dict[str, jax.Array]
  ) -> tuple[TrainState, Metrics]:
    """The state after an optimizer step, changed by what the step counted."""
    del aux
    return state, {}

  # Of a task with several networks these three differ.

  @property
  def optimizer(self) -> optax.GradientTransformation:
    return self.tx

  def averaged(self, params: Any) -> Any:
    """The parameters that have running averages."""
    return params

  def norms(self, gradient: Any) -> Metrics:
    return {'gradient_norm': optax.tree.norm(gradient)}

  # ---------------------------------------------------------------- the step

  @property
  def _optimizer(self):
    if self.trained is None:
      return self.optimizer
    return self.trained.wrap(self.optimizer)

  def init(self, key: jax.Array) -> TrainState:
    params = self.fresh(key)
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      opt_state=self._optimizer.init(params),
      ema=start_ema(self.averaged(params), self.ema),
      extra=self.extra(),
    )

  def draw(self, state: TrainState, rows: jax.Array) -> Draw:
    """The draws of some rows (b,) of a step's batch."""
    return Draw.create(self.seed, rows, state.step)

  def step(
    self, state: TrainState, frozen: Frozen, batch: Batch
  ) -> tuple[TrainState, Metrics]:
    rows = self.rows(state, frozen, batch)
    size = jax.tree.leaves(rows)[0].shape[0]

    def objective(params, part):
      if self.trained is not None:
        params = self.trained.still(params)
      draw = self.draw(state, part['row'])
      return self.objective(params, state, frozen, part, draw)

    gradient, metrics, aux = accumulate(
      objective,
      state.params,
      {**rows, 'row': jnp.arange(size)},
      self.accumulate,
    )
    updates, opt_state = self._optimizer.update(
      gradient, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    warm = state.step if self.ema_warmup else None
    state = state.replace(
      step=state.step + 1,
      params=params,
      opt_state=opt_state,
      ema=update_ema(state.ema, self.averaged(params), warm),
    )
    state, more = self.after(state, aux)
    means = {k: v.compute() for k, v in metrics.items()}
    return state, {**means, **self.norms(gradient), **more}


def accumulate(
  objective: Callable[[Any, Batch], Objective],
  params: Any,
  rows: Batch,
  pieces: int,
) -> tuple[Any, dict[str, Metric], dict[str, jax.Array]]:
  """The gradient of an objective over a batch worked off in equal pieces.

  Every term is divided by its denominator of the whole batch.

  Args:
    objective: (params, rows) -> its terms.
    params: tree that is differentiated.
    rows: leading axis b, a multiple of `pieces`.
    pieces: static; how many pieces one step is cut into.

  Returns:
    gradient, metrics with 'loss' among them, and the sums of `aux`.
  """

  size = jax.tree.leaves(rows)[0].shape[0]

  def loss(params, part, divisors=None):
    found = objective(params, part)
    means = {k: term.mean for k, term in found.minimised.items()}
    if divisors is not None:
      means = {k: Mean(m.total, divisors[k]) for k, m in means.items()}
    value = sum(
      term.scale * means[k].compute() for k, term in found.minimised.items()
    )
    return size * value, (found.measured, found.aux)

  gradient = jax.grad(loss, has_aux=True)

  def mean(total):
    result, (metrics, aux) = total
    # Divided here and not in `loss`: with an operation between the sum over
    # devices and the norm, the compiler cuts a gradient as its parameter.
    return jax.tree.map(lambda g: g / size, result), metrics, aux

  if pieces == 1:
    return mean(gradient(params, rows))
  if size % pieces:
    raise ValueError(
      f'batch of {size} cannot be cut into {pieces} equal pieces; change '
      'config.data.batch_size or config.optim.accumulate'
    )

  def cut(x):
    x = x.reshape(pieces, size // pieces, *x.shape[1:])
    # Every device works on a share of every piece.
    return constrain(x, (None, 'act_batch', *(None,) * (x.ndim - 2)))

  parts = jax.tree.map(cut, rows)

  def added(f):
    """Σ f(piece) over all pieces, one after another."""
    shapes = jax.eval_shape(f, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    add = lambda carry, part: (jax.tree.map(jnp.add, carry, f(part)), None)
    return jax.lax.scan(add, zeros, parts)[0]

  def weights(part):
    # Of a pass without gradients the compiler keeps what the weights need.
    terms = objective(params, part).minimised
    return {k: term.mean.weight for k, term in terms.items()}

  divisors = added(weights)
  return mean(added(lambda part: gradient(params, part, divisors)))


def start_ema(params: Any, decays: tuple[float, ...]) -> dict[str, Any]:
  """One running average per decay, keyed by the decay as text."""
  return {str(d): jax.tree.map(jnp.array, params) for d in decays}


def update_ema(
  ema: dict[str, Any], params: Any, step: jax.Array | None = None
) -> dict[str, Any]:
  """avg <- (1 - d) params + d avg, in float32, where the two differ.

  Both products are rounded, as in the official trainers. What does not change has
  an average that does not change either.

  Args:
    ema: decay as text -> average.
    params: after a step.
    step: () int32 steps taken before it. With it decays warm up, from 0.1 to
      min(decay, (1 + step) / (10 + step)), so that an average follows a run that
      is short or has just begun. None: the decays themselves.

  Source: TensorFlow's ExponentialMovingAverage with `num_updates`; EMAModel of
    huggingface/diffusers and bytedance/1d-tokenizer.
  """

  def one(average, decay):
    new = 1 - decay
    if step is not None:
      new = jnp.maximum(new, 9 / (10 + step))
    moved = optax.incremental_update(params, average, new)
    return jax.tree.map(
      lambda p, old, new: jnp.where(p == old, old, new), params, average, moved
    )

  return {d: one(average, float(d)) for d, average in ema.items()}
