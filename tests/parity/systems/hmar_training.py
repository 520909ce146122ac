"""The steps of both training stages of HMAR."""

from collections.abc import Iterator
from typing import Any

import flax.traverse_util
import jax.numpy as jnp

from arvision.configs.hmar import parts
from arvision.importers import hmar as table
from arvision.importers.table import paths
from arvision.training.optim import Trained
from tests.parity.case import Case, System, imported
from tests.parity.systems import hmar, training

INPUTS = {*training.INPUTS, 'ns_input', 'mask_input', 'mask_index'}


class FirstStage:
  """Config, model and parameters of the first stage."""

  @staticmethod
  def loaded(case: Case) -> tuple[Any, Any, Any]:
    config = hmar.config_of(case.args, False)
    model, shapes = hmar.model_of(config, case)
    return config, model, imported(case, table.NextScale(), shapes)


class SecondStage:
  """The same of the second, whose file lacks the end that it does not train."""

  @staticmethod
  def loaded(case: Case) -> tuple[Any, Any, Any]:
    config = hmar.config_of(case.args, True)
    model, shapes = hmar.model_of(config, case)
    form = table.Masked()
    flat = flax.traverse_util.flatten_dict(shapes, sep='/')
    own = {row.path: flat[row.path] for row in form.rows(paths(shapes))}
    nested = flax.traverse_util.unflatten_dict(own, sep='/')
    params = imported(case, form, nested)
    found = flax.traverse_util.flatten_dict(params, sep='/')
    rest = {k: jnp.zeros(s.shape) for k, s in flat.items()}
    whole = flax.traverse_util.unflatten_dict({**rest, **found}, sep='/')
    return config, model, whole


def first_stage(case: Case) -> Iterator[tuple[str, Any]]:
  _check(case, 'lognorm')
  io = case.io
  return training.train(
    case,
    FirstStage,
    table.NextScale(),
    lambda case, i: training.Moment(io['idx'][i], io['ns_input'][i]),
    exempt=parts.NO_DECAY,
  )


def second_stage(case: Case) -> Iterator[tuple[str, Any]]:
  _check(case, 'mask_unweighted')
  io, shares = case.io, case.training['p_mask']

  def moment(case, i):
    batch, tokens = io['idx'][i].shape
    draws = hmar.mask_draws(shares[i], io['mask_index'][i], batch, tokens)
    given, own = io['ns_input'][i], io['mask_input'][i]
    return training.Moment(io['idx'][i], given, draws, own=own)

  return training.train(
    case,
    SecondStage,
    table.Masked(),
    moment,
    exempt=parts.NO_DECAY,
    trained=Trained(only=parts.MASKED),
  )


def _check(case, loss):
  """Refuses losses that are weighted otherwise than the published ones."""
  case.training.says('loss', loss)
  case.training.ignore('B', 'steps', 'p_mask')


TRAINING = {
  'models.nsp.NextScalePrediction': System(
    first_stage, INPUTS, training.limits
  ),
  'models.mp.MaskedPrediction': System(second_stage, INPUTS, training.limits),
}
