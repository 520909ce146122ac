"""Inception score of logits, by blocks or by shuffled splits."""

import numpy as np

from arvision.errors import ConfigError
from arvision.evals.threads import each


def inception_score(
  logits: np.ndarray, block: int = 5000, order: int | None = None
) -> float:
  """Mean over blocks of exp(mean KL(p(y|x) || mean p(y|x) of the block)).

  The score depends on the order of the images: a block of images that are
  sorted by class holds few classes, and its score is too low.

  Source: the evaluator of Dhariwal and Nichol, "Diffusion models beat GANs on
    image synthesis", 2021: blocks of 5,000 in the order of the file.
  Differs: float64.

  Args:
    logits: (n, k), n ≥ 1; log probabilities will do.
    block: images of a block; the last one may have fewer, and counts as much.
    order: seed of a permutation of the images; None: the order that is given.

  Returns:
    a number in [1, k].
  """
  if block < 1:
    raise ConfigError(f'blocks of {block} images: wanted 1 or more')
  if order is not None:
    logits = _shuffled(logits, order)
  count = len(logits)
  ends = [*range(block, count, block), count]
  return float(np.mean(_scores(logits, ends)))


def split_score(
  logits: np.ndarray, splits: int = 10, seed: int | None = 2020
) -> tuple[float, float]:
  """Inception score of equal splits of shuffled images.

  Source: torch-fidelity, whose permutation and bounds these are.

  Args:
    logits: (n, k), n ≥ splits.
    splits: number of splits; image n·i // splits is the first of split i.
    seed: of the permutation; None: the order that is given.

  Returns:
    mean and standard deviation (divided by `splits`) over the splits.
  """
  if not 1 <= splits <= len(logits):
    raise ConfigError(
      f'{splits} splits of {len(logits)} images: wanted 1 to {len(logits)}'
    )
  if seed is not None:
    logits = _shuffled(logits, seed)
  ends = [(i + 1) * len(logits) // splits for i in range(splits)]
  scores = _scores(logits, ends)
  return float(np.mean(scores)), float(np.std(scores))


def _shuffled(logits, seed):
  # The generator of torch-fidelity; numpy never changes its numbers.
  return logits[np.random.RandomState(seed).permutation(len(logits))]


def _scores(logits, ends):
  parts = zip([0, *ends], ends)
  score = lambda part: np.exp(information(logits[slice(*part)]).mean())
  return each(score, parts)


def information(logits: np.ndarray) -> np.ndarray:
  """(n,) KL divergences of p(y|x) from their mean p(y), in nats, float64.

  Args:
    logits: (n, k), n ≥ 1.
  """
  p, log_p = probabilities(logits)
  mean = p.mean(0)
  log_mean = np.log(mean, out=np.zeros_like(mean), where=mean > 0)
  return np.einsum('nk,nk->n', p, log_p) - p @ log_mean


def probabilities(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Softmax and log softmax in float64, the latter finite.

  Args:
    logits: (n, k), n ≥ 1.
  """
  if logits.ndim != 2 or not len(logits):
    raise ValueError(f'logits of shape {logits.shape}, wanted (n, k), n ≥ 1')
  log_p = np.array(logits, np.float64)
  log_p -= log_p.max(1, keepdims=True)
  p = np.exp(log_p)
  total = p.sum(1, keepdims=True)
  p /= total
  log_p -= np.log(total)
  # A probability of 0 adds 0, even if its logit is -inf.
  np.maximum(log_p, -1e300, out=log_p)
  return p, log_p
