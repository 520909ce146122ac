"""Bits of held-out images: the sum, and that of a model token by token."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.evals.base import Run
from arvision.evals.likelihood import Likelihood
from arvision.evals.masked_likelihood import ChainRule, MonteCarlo
from arvision.parallel.mesh import make_mesh
from arvision.runs.measure import measured
from arvision.runs.trained import placed
from arvision.structs import Tokens, TokenSpec
from arvision.tasks import assemble
from arvision.training.weights import Weights
from tests.configs import TINY
from tests.multidevice.families import numbers
from tests.parts.evals_toys import Arrays

IMAGES = np.zeros((20, 4, 4, 1), np.float32)


def run_of(nats):
  return Run(
    data=Arrays(IMAGES, np.arange(20) % 2),
    name='toy',
    spec=TokenSpec(2, 1, 1, ((2, 2),)),
    encode=lambda image: image,
    decode=lambda tokens: tokens,
    nats=nats,
    classes=2,
  )


def figures(run):
  return {k.split('/')[0]: v for k, v in Likelihood(batch_size=3)(run)}


def test_bits_are_nats_over_their_number():
  # Labels alternate, and every fourth of the images is held out: all are 0.
  nats = lambda batch: (
    math.log(2) * 8 * (1 + batch['label']),
    np.full(len(batch['label']), 4),
  )
  found = figures(run_of(nats))
  assert found['bits_per_token'] == pytest.approx(2.0)
  assert found['bits_per_dimension'] == pytest.approx(8 / 16)


def test_a_part_of_the_codes_has_no_bits_per_dimension():
  nats = lambda batch: (np.ones(len(batch['label'])), np.full(3, 2.0))
  assert [*figures(run_of(nats))] == ['bits_per_token']


def run_with_numbers(name):
  config = TINY[name]()
  params = numbers(assemble.trained_shapes(config))
  image = np.zeros((1, *config.data.size, config.data.channels), np.float32)
  init = assemble.make_tokenizer(config).init
  shapes = jax.eval_shape(init, jax.random.key(0), image)
  kept = {'tokenizer': numbers(nn.unbox(shapes))}
  mesh = make_mesh({'data': -1}, jax.local_devices())
  return placed(Weights(config, params, 0, 'raw'), kept, mesh)


def test_nats_are_those_of_every_token():
  run = run_with_numbers('llamagen/tiny:B')
  batch = next(iter(run.data.held_out(4)))
  nats, count = measured(run).nats(batch)
  codes = np.asarray(run.encode(batch['image']))
  codec = run.tokenizer.bind(run.variables)

  @jax.jit
  def apply(tokens):
    return run.model.apply(
      {'params': run.params},
      Tokens(jnp.asarray(tokens)),
      {'label': batch['label']},
      codec,
      method='logits',
    )

  total = np.zeros(4)
  for t in range(codes.shape[1]):
    # Later codes are unknown when code t is drawn.
    known = np.where(np.arange(codes.shape[1]) < t, codes, 0)
    logits = np.asarray(apply(known)[:, t], np.float64)
    normal = np.log(np.exp(logits).sum(-1))
    total += normal - logits[np.arange(4), codes[:, t]]
  np.testing.assert_allclose(nats, total, rtol=1e-4)
  np.testing.assert_array_equal(count, codes.shape[1])


def test_masked_models_have_no_likelihood():
  assert measured(run_with_numbers('maskgit/tiny')).nats is None


def test_masked_models_have_a_likelihood_for_every_order():
  """And a bound of it; SMDM, and any masked model of codes."""
  run = measured(run_with_numbers('smdm/tiny'))
  assert run.nats is None
  batch = next(iter(run.data.held_out(3)))
  nats = run.masked_nats(batch)
  tokens = run.spec.length
  masked = np.zeros((3, tokens), bool)
  masked[:, 4:] = True
  # What is masked is not seen, and codes that are not change the others.
  found = nats(masked)
  assert found.shape == (3, tokens) and np.isfinite(found).all()
  orders = [ChainRule(), ChainRule(order='random')]
  numbers = np.arange(3)
  one, other = (
    np.asarray(e.nats(nats, tokens, numbers), np.float64) for e in orders
  )
  total = np.zeros(3)
  for t in range(tokens):
    masked = np.broadcast_to(np.arange(tokens) >= t, (3, tokens))
    total += np.asarray(nats(masked))[:, t]
  np.testing.assert_allclose(one, total, rtol=1e-5)
  assert (one != other).all()
  bound = np.asarray(MonteCarlo(samples=64).nats(nats, tokens, numbers))
  np.testing.assert_allclose(bound.mean(), one.mean(), rtol=0.2)


def test_bits_of_masked_models_are_nats_over_their_number():
  run = dataclasses.replace(
    run_of(None), masked_nats=lambda batch: lambda masked: masked * math.log(2)
  )
  for evaluator in (ChainRule(), MonteCarlo(samples=512)):
    found = {k.split('/')[0]: v for k, v in evaluator(run)}
    # Every mask of the bound counts its tokens over its time.
    assert found['bits_per_token'] == pytest.approx(1.0, rel=0.1)
    assert found['bits_per_dimension'] == pytest.approx(0.25, rel=0.1)
