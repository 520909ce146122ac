"""A run that is killed with -9, again and again, ends as one that is not.

`python -m benchmarks.soak` is the long form.
"""

import signal

import pytest

from benchmarks import soak

STEPS = 60


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('runs')


@pytest.fixture(scope='module')
def tokenizer(folder):
  """The tokenizer that the generator reads."""
  whole = soak.Training('tokenizer', folder / 'tokenizer-whole', STEPS)
  whole.finish()
  return whole


@pytest.mark.parametrize(
  'name', ['var', pytest.param('tokenizer', marks=pytest.mark.slow)]
)
def test_a_killed_run_ends_as_if_it_had_not_been(folder, tokenizer, name):
  if name == 'tokenizer':
    whole = tokenizer
  else:
    whole = soak.Training(name, folder / f'{name}-whole', STEPS)
    whole.finish()
  killed = soak.Training(name, folder / f'{name}-killed', STEPS)
  soak.stop_often(killed, [signal.SIGKILL] * 2, seed=1)
  assert killed.newest < STEPS
  killed.finish()
  assert soak.difference(whole, killed) == ''
  assert soak.digest(whole) == soak.digest(killed)
  measured = [x['step'] for x in whole.log() if 'psnr_db/' in ' '.join(x)]
  assert measured == [STEPS // 2, STEPS]
