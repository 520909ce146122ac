"""The Inception network of FID, and the distances in its features."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from arvision.evals import inception
from arvision.evals.frechet import Moments, frechet_distance
from arvision.importers import inception as importer
from tests.parity.case import Case, System, nchw, nhwc

INPUTS = {'image_uint8', 'fid_act1', 'fid_act2', 'is_probs'}
# Outputs of the first three blocks.
_BLOCKS = ('64', '192', '768')


def outputs(case: Case) -> Iterator[tuple[str, Any]]:
  """Blocks and logits of the network, then what is computed of features."""
  args, io = case.args, case.io
  args.ignore('requires_grad')
  args.only(use_fid_inception=True)
  blocks = args.get('output_blocks', [3])
  x = prepared(case)
  yield 'resized_slice', nchw(x)[0, :, ::37, ::37]

  @jax.jit
  def run(params, x):
    return inception.Network().apply(
      {'params': params}, x, mutable=['intermediates']
    )

  params = importer.convert('the case', case.file(), inception.shapes())
  taps, inner = run(params, x)
  for i in sorted({*blocks} - {3}):
    y = nchw(inner['intermediates'][_BLOCKS[i]][0])
    yield f'block{i}_mean', y.mean((2, 3))
    yield f'block{i}_slice', y[0, :32, ::9, ::9]
  if 3 in blocks:
    yield 'pool3', taps.pool
    yield 'logits_fc', taps.logits
    yield 'logits_fc_without_bias', taps.unbiased
  yield from distances(io)


def prepared(case: Case) -> Any:
  """The input of the network."""
  variant = inception.VARIANTS['pytorch-fid']
  if not case.args.get('normalize_input', True):
    variant = dataclasses.replace(variant, centre=0.0, unit=255.0)
  image = nhwc(case.io['image_uint8'])
  if case.args.get('resize_input', True):
    return inception.prepare(variant, image)
  return np.float32((image - variant.centre) / variant.unit)


def distances(io: dict[str, np.ndarray]) -> Iterator[tuple[str, Any]]:
  sets = [io['fid_act1'], io['fid_act2']]
  moments = [Moments.of(x) for x in sets]
  for i, found in enumerate(moments, 1):
    yield f'fid_mu{i}', found.mean
    yield f'fid_sigma{i}', found.covariance
  yield 'fid', frechet_distance(*moments)
  half = sets[0].shape[1] // 2
  few = [Moments.of(x[: half + 2 * i]) for i, x in enumerate(sets)]
  yield 'fid_singular', frechet_distance(*few)
  probs = io['is_probs']
  gain = (probs * np.log(probs / probs.mean(0))).sum(1)
  yield 'inception_score_of_probs', np.exp(gain.mean())


def limits(case: Case, name: str) -> np.ndarray:
  """The largest differences allowed; the distances have a limit of their own."""
  share = case.limit(name)
  if name in ('fid', 'fid_singular'):
    share = case.meta['suggested'].get('fid_rtol', share)
  return share * np.abs(case.io[name]).max()


SYSTEMS = {'pytorch_fid.inception.InceptionV3': System(outputs, INPUTS, limits)}
