"""Both stages of HMAR, and what comes out and in again."""

import flax.traverse_util
import jax
import numpy as np
import pytest

from arvision.commands.main import main
from arvision.runs.trained import load_run
from arvision.training.weights import load_params
from tests.endtoend.conftest import SHORT

SMALL = ('--config.backbone.depth=2', '--config.backbone.body.last=1')


def weights(folder):
  params = load_params(folder, 'raw')[1]
  return flax.traverse_util.flatten_dict(params, sep='/')


@pytest.mark.slow
def test_the_second_stage_trains_its_end_alone(random_tokenizer, tmp_path):
  tokenizer = random_tokenizer('var/digits_tokenizer')
  frozen = f'--config.frozen.tokenizer={tokenizer}'
  first, second = tmp_path / 'first', tmp_path / 'second'
  flags = ['train', frozen, *SMALL, *SHORT]
  assert not main([*flags, '--config=hmar/digits:nsp', f'--workdir={first}'])
  start = [f'--init_from={first}', '--init_partial']
  assert not main(
    [*flags, '--config=hmar/digits', f'--workdir={second}', *start]
  )
  before, after = weights(first), weights(second)
  for name, x in before.items():
    np.testing.assert_array_equal(x, after[name])
  new = after.keys() - before.keys()
  for name in new - {'backbone/input/masked'}:
    old = before[name.replace('_masked/', '/')]
    # It moved, and not far from where the first stage ended.
    assert 0 < np.abs(after[name] - old).max() < 0.1
  file, third = tmp_path / 'hmar.safetensors', tmp_path / 'third'
  out = [f'--output={file}', '--ema=raw']
  assert not main(['export', f'--workdir={second}', *out])
  flags = [frozen, *SMALL, f'--source={file}', f'--workdir={third}']
  assert not main(['import', '--config=hmar/digits', *flags])
  labels, index = np.arange(3), np.arange(3)
  images = [
    load_run(folder, 'raw').sample_fn(seed=5)(labels, index)
    for folder in (second, third)
  ]
  jax.tree.map(np.testing.assert_array_equal, *images)
