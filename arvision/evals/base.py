"""The interface of evaluators: parts that measure a run."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from arvision.build import build, check
from arvision.data.base import Data
from arvision.errors import ConfigError
from arvision.structs import Array, TokenSpec

Metrics = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained run, as evaluators see it.

  Attributes:
    data: its training data.
    name: short name of the data, for the names of metrics.
    spec: token spec of the tokenizer.
    encode: images (b, H, W, C) in [-1, 1] -> (b, t) int32 codes or (b, t, c)
      latents.
    decode: tokens -> images.
    radices, digits: of the codes of the tokenizer, see
      `tokenizers.base.Tokenizer`.
    sample_fn: images per call, or None -> a `generation.SampleFn`; None for a
      run that cannot sample.
    encode_sampled: images -> codes of the kind that `sample_fn` returns; None
      for continuous tokens.
    classes: number of classes of the condition; 0 for an unconditional model.
    nats: batch -> (b,) negative log likelihood of the codes of its images, and
      (b,) number of codes; None for a model without a likelihood.
    masked_nats: batch -> a function of masks (b, t) that gives (b, t) nats of every
      code, given those that are not masked; None for other models.
    classifier: recipe -> a trained classifier of the data; None for data with
      one class.
    preparation: how the images were resized and cropped, JSON values.
    say: called with lines about the progress.
    note: called with the protocol in the name of metrics, and its facts.
    show: called with the name of a picture and its rows, see `pictures.sheet`.
  """

  data: Data
  name: str
  spec: TokenSpec
  encode: Callable[[Array], Array]
  decode: Callable[[Array], Array]
  radices: tuple[int, ...] = ()
  digits: Callable[[Array], Array] = lambda values: values[..., None]
  sample_fn: Callable[[int | None], Any] | None = None
  encode_sampled: Callable[[Array], Array] | None = None
  classes: int = 0
  nats: Callable[[Mapping[str, Any]], tuple[Array, Array]] | None = None
  masked_nats: (
    Callable[[Mapping[str, Any]], Callable[[Array], Array]] | None
  ) = None
  classifier: Callable[[Any], Any] = lambda recipe: None
  preparation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  say: Callable[[str], None] = lambda text: None
  note: Callable[[str, Mapping[str, Any]], None] = lambda name, facts: None
  show: Callable[[str, Mapping[str, Array]], None] = lambda name, rows: None


class Evaluator(Protocol):
  """A part that measures a run: `config.evals.<name>`, a frozen dataclass.

  It must be deterministic: random numbers come from a seed among its fields or
  from the functions of the run.

  Attributes:
    needs: fields of `Run` that must not be None.
    every: interval between evaluations in training; None: in `arvision eval`
      only.
  """

  needs: ClassVar[tuple[str, ...]]
  every: Mapping[str, float] | None

  def __call__(self, run: Run) -> Iterator[tuple[str, float]]:
    """Yields (name, value) of every metric."""


# Evaluators of a config that names none.
_DEFAULTS = {
  'reconstruction': {'type': 'evals.reconstruction.Reconstruction'},
  'generation': {'type': 'evals.generation.Generation'},
}


def evaluators(config: Mapping[str, Any]) -> dict[str, Evaluator]:
  """The evaluators of a config, by name.

  Raises:
    ConfigError: a block that is not an evaluator.
  """
  stated = {k: v for k, v in config.get('evals', {}).items() if k != 'every'}
  found = {}
  for name, block in (stated or _DEFAULTS).items():
    check(block, Mapping, f'config.evals.{name}')
    found[name] = build(block, f'evals.{name}')
    if not hasattr(found[name], 'needs'):
      raise ConfigError(
        f'config.evals.{name}.type={block["type"]!r} is no evaluator: it lacks '
        "'needs', see evals.base.Evaluator"
      )
  return found


def possible(evaluator: Evaluator, run: Run) -> bool:
  """Whether a run has what an evaluator needs."""
  return all(getattr(run, name) is not None for name in evaluator.needs)


def pad(array: np.ndarray, size: int) -> np.ndarray:
  """Pads axis 0 to `size` with copies of the last entry."""
  missing = size - len(array)
  if missing <= 0:
    return array
  return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
