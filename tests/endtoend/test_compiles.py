"""One program per phase: no second batch compiles anything."""

import dataclasses

import jax
import numpy as np
import pytest

from arvision.runs.trained import load_run
from arvision.tokenizers.residual import ResidualPyramid


class Compiles:
  """Counts compilations by the events that JAX reports."""

  def __init__(self):
    self.count = 0
    jax.monitoring.register_event_duration_secs_listener(self._seen)

  def _seen(self, event, seconds, **_):
    self.count += event.endswith('backend_compile_duration')


COMPILES = Compiles()


@pytest.fixture(scope='module')
def run(digits_runs):
  return load_run(digits_runs / 'var')


def test_sampling_compiles_once(run):
  draw = run.sample_fn(seed=1)
  labels = np.arange(4)
  first = draw(labels, np.arange(4))
  before = COMPILES.count
  assert before > 0
  second = draw(labels[::-1].copy(), np.arange(4, 8))
  assert COMPILES.count == before
  assert first[1].shape == second[1].shape
  assert (first[1] != second[1]).any()


def test_the_same_seed_gives_the_same_pixels(run):
  labels, index = np.arange(4), np.arange(4)
  images, tokens = run.sample_fn(seed=1)(labels, index)
  again, same = run.sample_fn(seed=1)(labels, index)
  np.testing.assert_array_equal(images, again)
  np.testing.assert_array_equal(tokens, same)
  assert (run.sample_fn(seed=2)(labels, index)[1] != tokens).any()


def test_encoded_images_decode_again(run):
  batch = next(iter(run.data.held_out(4)))
  tokens = run.encode(batch['image'])
  assert tokens.shape == (4, run.tokenizer.spec.length)
  image = run.decode(tokens)
  assert image.shape == batch['image'].shape
  assert float(abs(image).max()) <= 1


class Sampling(ResidualPyramid):
  """A decoder that samples."""

  def decode(self, tokens, draw=None, inputs=None):
    image = super().decode(tokens)
    return image + draw.normal('tokenizer/pixels', image.shape[1:])


def test_a_decoder_samples_by_seed_and_number(run):
  fields = {f.name: getattr(run.tokenizer, f.name) for f in RESIDUAL}
  other = dataclasses.replace(run, tokenizer=Sampling(**fields))
  images, tokens = run.sample_fn(seed=1)(np.arange(4))
  noisy, same = other.sample_fn(seed=1)(np.arange(4))
  np.testing.assert_array_equal(same, tokens)
  assert (noisy != images).any((1, 2, 3)).all()
  late = other.decode(tokens[2:], np.arange(2, 4), seed=1)
  np.testing.assert_allclose(late, noisy[2:], atol=1e-5)
  assert (other.decode(tokens[2:], seed=1) != noisy[2:]).any()
  assert (other.decode(tokens, seed=2) != noisy).any()


RESIDUAL = [
  f
  for f in dataclasses.fields(ResidualPyramid)
  if f.name not in ('parent', 'name')
]
