"""The Task protocol of the train loop, and the base class of tasks."""

import abc
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import optax

from arvision.errors import ConfigError
from arvision.metrics import Mean, Metric, Term, total
from arvision.parallel.constrain import constrain
from arvision.random import Draw
from arvision.ranges import Below1, Count, Natural, Seed

Batch = dict[str, Any]
Metrics = dict[str, jax.Array]
Frozen = dict[str, Any]


@flax.struct.dataclass
class TrainState:
  """State of a training run, as one pytree.

  Attributes:
    step: () int32 optimizer steps taken.
    params: trained parameters; a task with several networks has a key for each.
    opt_state: state of the optimizer.
    ema: decay as text ('0.999') -> running average of `params`.
    extra: other arrays that steps change (usage counters, batch statistics).
  """

  step: jax.Array
  params: Any
  opt_state: Any
  ema: dict[str, Any]
  extra: dict[str, Any] = flax.struct.field(default_factory=dict)


class Task(Protocol):
  """A training task. `init` and `step` are pure and run under jit.

  Attributes:
    binds: names of the runs whose weights it uses, keys of `config.frozen`.
    frozen: name -> frozen weights, of these runs and others (LPIPS). Methods
      get them as an argument, on devices.
  """

  binds: tuple[str, ...]
  frozen: dict[str, Any]

  def init(self, key: jax.Array) -> TrainState:
    """A fresh state; parameters are boxed with their logical axes."""

  def step(
    self, state: TrainState, frozen: Frozen, batch: Batch
  ) -> tuple[TrainState, Metrics]:
    """One optimizer step. Metrics are float32 scalars, means over the batch."""

  def evaluate(
    self, params: Any, frozen: Frozen, batch: Batch
  ) -> dict[str, Metric]:
    """Metrics of one held-out batch, 'loss' among them.

    The caller merges them over batches. `batch['weight']` (b,) is 0 for
    examples that pad the last batch.
    """

  def check(self, frozen: Frozen, batch: Batch) -> dict[str, jax.Array]:
    """Inputs of the model in a batch, as images; returns as `pictures` does."""

  def pictures(self, params: Any, frozen: Frozen, batch: Batch) -> dict:
    """name -> (k, H, W, C) float32 in [-1, 1], one row of a PNG each."""


class Selection(Protocol):
  """A selection of the parameters of a task."""

  def stop_gradients(self, params: Any) -> Any:
    """The same parameters, without gradients of those not selected."""

  def wrap(
    self, tx: optax.GradientTransformation
  ) -> optax.GradientTransformation:
    """An optimizer that changes only the selected parameters."""


@flax.struct.dataclass
class Objective:
  """Loss terms and metrics of some examples.

  Attributes:
    terms: loss terms; the loss is their sum.
    apart: loss terms that are minimised but not part of the reported loss, such
      as those of a discriminator.
    metrics: name -> metric.
    aux: other arrays, summed over the batch.
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


@dataclasses.dataclass(frozen=True)
class Averages:
  """The running averages of the parameters.

  Attributes:
    decays: one average for each.
    warmup: whether the decays warm up, see `update_ema`.
  """

  decays: tuple[Below1, ...] = (0.999,)
  warmup: bool = False


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class GradientTask(abc.ABC):
  """Base of tasks: takes optimizer steps; a subclass implements the objective.

  Attributes:
    tx: optimizer.
    image_shape: (H, W, C).
    ema: running averages.
    accumulate: microbatches per step.
    seed: seed of every draw.
    frozen: see `Task`.
    trained: selects the trained parameters, see `training.optim.Trained`; None:
      all of them.
    steps: number of steps of the whole run, for schedules of `Draw.progress`.
  """

  tx: optax.GradientTransformation
  image_shape: tuple[int, int, int]
  ema: Averages = Averages()
  accumulate: Count = 1
  seed: Seed = 0
  frozen: Frozen = dataclasses.field(default_factory=dict)
  trained: Selection | None = None
  steps: Natural = 0

  binds: ClassVar[tuple[str, ...]] = ()

  # ------------------------------------------- implemented by subclasses

  @abc.abstractmethod
  def fresh(self, key: jax.Array) -> Any:
    """The initial parameters, boxed with their logical axes."""

  @abc.abstractmethod
  def objective(
    self,
    params: Any,
    state: TrainState,
    frozen: Frozen,
    rows: Batch,
    draw: Draw,
  ) -> Objective:
    """Loss terms and metrics of some examples of a batch.

    Args:
      params: parameters; the loss is differentiated with respect to them.
      state: state before the step.
      frozen: frozen weights.
      rows: examples, see `rows`; 'row' (b,) int32 is the index of each example
        in the global batch.
      draw: keys of these examples.
    """

  def rows(self, state: TrainState, frozen: Frozen, batch: Batch) -> Batch:
    """Arrays of a batch that `objective` reads, leading axis b."""
    del state, frozen
    return batch

  def extra(self) -> dict[str, jax.Array]:
    """The initial `TrainState.extra`."""
    return {}

  def after(
    self, state: TrainState, aux: dict[str, jax.Array]
  ) -> tuple[TrainState, Metrics]:
    """Updates the state by the summed `aux` of a step; returns more metrics."""
    del aux
    return state, {}

  # Tasks with several networks override these three.

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
      ema=start_ema(self.averaged(params), self.ema.decays),
      extra=self.extra(),
    )

  def draw(self, state: TrainState, rows: jax.Array) -> Draw:
    """Keys of some examples of a step; rows (b,) int32 are their indices."""
    progress = state.step / max(self.steps, 1)
    return Draw.create(self.seed, rows, state.step).replace(progress=progress)

  def step(
    self, state: TrainState, frozen: Frozen, batch: Batch
  ) -> tuple[TrainState, Metrics]:
    rows = self.rows(state, frozen, batch)
    size = jax.tree.leaves(rows)[0].shape[0]

    def objective(params, part):
      if self.trained is not None:
        params = self.trained.stop_gradients(params)
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
    warm = state.step if self.ema.warmup else None
    state = state.replace(
      step=state.step + 1,
      params=params,
      opt_state=opt_state,
      ema=update_ema(state.ema, self.averaged(params), warm),
    )
    state, more = self.after(state, aux)
    means = {k: v.compute() for k, v in metrics.items()}
    return state, {**means, **self.norms(gradient), **more}


def inputs_of(batch: Batch, keys: Iterable[str], at: str) -> Batch:
  """The arrays of a batch that a condition reads.

  Args:
    batch, keys: arrays by name, and the names that are read.
    at: where the condition stands in the config.

  Raises:
    ConfigError: the batch lacks one of them.
  """
  for key in keys:
    if key not in batch:
      raise ConfigError(
        f"config.{at} reads '{key}', but the data has only "
        f'{", ".join(sorted(batch))}; change that or config.data'
      )
  return {key: batch[key] for key in keys}


def accumulate(
  objective: Callable[[Any, Batch], Objective],
  params: Any,
  rows: Batch,
  pieces: int,
) -> tuple[Any, dict[str, Metric], dict[str, jax.Array]]:
  """Gradient of an objective, accumulated over equal microbatches.

  Every term is divided by its denominator over the whole batch, so the result
  does not depend on the number of microbatches.

  Args:
    objective: (params, rows) -> loss terms and metrics.
    params: tree of parameters.
    rows: arrays of leading axis b, a multiple of `pieces`.
    pieces: static number of microbatches.

  Returns:
    gradient, metrics with 'loss' among them, and the sums of `aux`.

  Raises:
    ValueError: b is not a multiple of `pieces`.
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
    # devices and the norm, the compiler shards a gradient like its parameter.
    return jax.tree.map(lambda g: g / size, result), metrics, aux

  if pieces == 1:
    return mean(gradient(params, rows))
  if size % pieces:
    raise ValueError(
      f'batch of {size} cannot be split into {pieces} equal pieces; change '
      'config.data.batch_size or config.optim.accumulate'
    )

  def cut(x):
    x = x.reshape(pieces, size // pieces, *x.shape[1:])
    # Every device computes a share of every microbatch.
    return constrain(x, (None, 'act_batch', *(None,) * (x.ndim - 2)))

  parts = jax.tree.map(cut, rows)

  def added(f):
    """Σ f(microbatch), computed one after another."""
    shapes = jax.eval_shape(f, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    add = lambda carry, part: (jax.tree.map(jnp.add, carry, f(part)), None)
    return jax.lax.scan(add, zeros, parts)[0]

  def weights(part):
    # The compiler drops the rest of the forward pass.
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
  """Updates running averages: avg <- (1 - d) params + d avg, in float32.

  Both products are rounded, as in the official trainers. Where parameter and
  average are equal, the average stays exactly as it is.

  Args:
    ema: decay as text -> average.
    params: parameters after a step.
    step: () int32 steps taken before it, for a warm-up of the decays: 0 for the
      first step, then min(decay, (1 + step) / (10 + step)), so that the average
      of a short or young run follows its parameters. None: no warm-up.

  Source: EMAModel of huggingface/diffusers, bytedance/1d-tokenizer and
    markweberdev/maskbit.
  """

  def one(average, decay):
    new = 1 - decay
    if step is not None:
      new = jnp.where(step == 0, 1, jnp.maximum(new, 9 / (10 + step)))
    moved = optax.incremental_update(params, average, new)
    return jax.tree.map(
      lambda p, old, new: jnp.where(p == old, old, new), params, average, moved
    )

  return {d: one(average, float(d)) for d, average in ema.items()}
