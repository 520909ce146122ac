"""The scores of the ADM evaluator, from recorded features."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from arvision.evals import manifold
from arvision.evals.frechet import Moments, frechet_distance
from arvision.evals.inception_score import inception_score
from tests.parity.case import Case, System


def scores(case: Case) -> Iterator[tuple[str, Any]]:
  io = case.io
  real, fake = io['ref'], io['sample']
  moments = {'ref': Moments.of(real), 'sample': Moments.of(fake)}
  for name, found in moments.items():
    yield f'mu_{name}', found.mean
    yield f'sigma_{name}', found.covariance
  yield 'fid', frechet_distance(*moments.values())
  # One column for every number of neighbours.
  numbers = np.ravel(case.config['neighbours']).tolist()
  radii = {
    name: np.stack([manifold.radii(x, k) for k in numbers], 1)
    for name, x in (('ref', real), ('sample', fake))
  }
  for name, found in radii.items():
    yield f'radii_{name}', found
  shares = [manifold.manifold(real, fake, k) for k in numbers]
  yield 'precision', np.array([s.precision for s in shares])
  yield 'recall', np.array([s.recall for s in shares])
  near = [manifold.nearest(real, r, fake) for r in radii['ref'].T]
  inside = np.stack([n.inside for n in near], 1)
  yield 'sample_in_ref_manifold', inside.astype(np.int32)
  # Of the first number alone, as the evaluator has it.
  yield 'realism', near[0].realism
  yield 'nearest_ref', near[0].index
  if 'probs' in io:
    logits = np.log(io['probs'])
    for name in io:
      if name.startswith('inception_score'):
        yield name, inception_score(logits, _split_size(case, name))


def _split_size(case, name):
  """Images of a split, in words or by the number of splits."""
  text = case.meta.get('produced_by', {}).get(name, '')
  stated = re.search(r'split_size (\d+)', text)
  if stated:
    return int(stated[1])
  splits = re.search(r'_(\d+)_splits', name)
  return -(-len(case.io['probs']) // int(splits[1])) if splits else 5000


def _limits(case, name):
  return case.meta['suggested']['rtol'] * np.abs(case.io[name])


FUNCTIONS = {
  'evaluations/evaluator.py': System(
    scores, {'ref', 'sample', 'probs'}, _limits
  ),
}
