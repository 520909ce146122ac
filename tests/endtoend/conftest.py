"""Runs that several tests open, trained once."""

import jax
import numpy as np
import pytest

from arvision.commands.main import main
from arvision.importers import files, table
from arvision.runs.released import table_of
from arvision.tasks import assemble
from tests.configs import ALL

# No more than a few steps: what they learn is of no interest here.
SHORT = (
  '--config.train.duration.steps=4',
  '--config.optim.schedule.warmup.steps=1',
  '--config.pictures.count=4',
  # Left to themselves they come after every step of so few.
  '--config.checkpoint.every.steps=2',
  '--config.evals.every.steps=4',
  '--config.pictures.every.steps=4',
)


@pytest.fixture(scope='session')
def digits_runs(tmp_path_factory):
  """A folder with a tokenizer, `tok`, and a VAR of two layers, `var`."""
  folder = tmp_path_factory.mktemp('digits')
  assert not main(
    [
      'train',
      '--config=var/digits_tokenizer',
      f'--workdir={folder}/tok',
      *SHORT,
    ]
  )
  assert not main(
    [
      'train',
      '--config=var/digits',
      f'--workdir={folder}/var',
      f'--config.frozen.tokenizer={folder}/tok',
      '--config.backbone.depth=2',
      *SHORT,
    ]
  )
  return folder


@pytest.fixture(scope='session')
def random_tokenizer(tmp_path_factory):
  """name -> folder of a tokenizer of that config with random weights."""

  def make(name):
    folder = tmp_path_factory.mktemp('random')
    config = ALL[name]()
    rng = np.random.default_rng(0)
    params = jax.tree.map(
      lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32),
      assemble.trained_shapes(config),
    )
    grids = assemble.make_tokenizer(config).spec.grids
    weights = table.to_weights(table_of(config), params, grids)
    files.write(folder / 'weights.safetensors', weights)
    source = f'--source={folder}/weights.safetensors'
    flags = [f'--config={name}', source, f'--workdir={folder}/run']
    assert not main(['import', *flags])
    return folder / 'run'

  return make
