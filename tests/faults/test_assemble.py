"""Configs whose parts do not fit one another or the data."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from arvision.commands.common import load_config
from arvision.errors import ConfigError
from arvision.process.logits import LogitsFilter
from arvision.process.solvers import DPMSolver
from arvision.runs.train import train
from arvision.runs.trained import TrainedRun
from arvision.samplers.entity import EntityAR
from arvision.samplers.refine import Refine
from arvision.tasks import assemble, fit


@pytest.mark.parametrize(
  'name, overrides, said',
  [
    (
      'var/digits',
      ['condition.classes=7'],
      'set config.condition.classes=10, or 0',
    ),
    ('var/digits', ['layout.scales=(1, 2, 4)'], 'change config.layout'),
    ('llamagen/digits', ['layout.width=5'], 'change config.layout'),
    ('var/digits', ['head.vocab_size=64'], 'but the tokenizer has 128 ids'),
    (
      'llamagen/digits_tokenizer',
      ['data.size=(16, 16)'],
      'change config.data.size, or patch in config.tokenizer.encoder and .decoder',
    ),
    ('var/digits_tokenizer', ['data.size=(9, 9)'], 'change config.data.size'),
    ('llamagen/digits_tokenizer', ['data.channels=3'], 'config.data.channels'),
    (
      'var/digits_tokenizer',
      ['tokenizer.scales=(1, 2, 3)'],
      'config.tokenizer',
    ),
    (
      'llamagen/digits_t2i',
      ['data.text.channels=5'],
      'config.condition.channels=32',
    ),
    (
      'maskgit/digits',
      ['sampler.type=samplers.entity.EntityAR'],
      'config.feed (RandomMask) and config.sampler (EntityAR) do not fit',
    ),
    (
      'var/digits',
      ['sampler.type=samplers.masked.Masked'],
      'config.feed (Residual) and config.sampler (Masked) do not fit',
    ),
  ],
)
def test_what_does_not_fit(name, overrides, said):
  config = load_config(name, overrides)
  data = assemble.make_data(config)
  with pytest.raises(ConfigError, match='config') as error:
    assemble.make_task(config, data)
  assert said in str(error.value)


@pytest.mark.parametrize(
  'name, sampler, said',
  [
    (
      'xar/digits',
      EntityAR(),
      'config.feed (Noise) and config.sampler (EntityAR)',
    ),
    (
      'var/digits',
      Refine(),
      'config.feed (Residual) and config.sampler (Refine)',
    ),
    (
      'maskgit/digits',
      Refine(),
      'config.feed (RandomMask) and config.sampler (Refine)',
    ),
  ],
)
def test_a_sampler_that_does_not_fit_the_feed(name, sampler, said):
  model = assemble.make_model(load_config(name))
  with pytest.raises(ConfigError) as error:
    fit.check_sampler(model, sampler)
  assert said in str(error.value)


def test_a_head_that_the_sampler_cannot_use():
  refined = assemble.make_model(load_config('xar/digits'))
  drawn = assemble.make_model(load_config('llamagen/digits'))
  with pytest.raises(ConfigError, match='Categorical.* wanted a head with a f'):
    fit.check_sampler(refined.clone(head=drawn.head), Refine())
  with pytest.raises(
    ConfigError, match='Velocity.* wanted a head that samples'
  ):
    fit.check_sampler(drawn.clone(head=refined.head), EntityAR())


def test_a_solver_of_velocities_wants_a_path_that_has_them():
  model = assemble.make_model(load_config('acdit/tiny'))
  with pytest.raises(ConfigError, match=r'config\.feed\.path \(Diffusion\)'):
    fit.check_sampler(model, Refine())
  fit.check_sampler(model, Refine(solver=DPMSolver()))
  # A run is asked again: the solver may be changed after training.
  config = load_config('acdit/tiny', ['sampler.solver.type=process.flow.Euler'])
  run = TrainedRun(
    config, 1, 'raw', assemble.make_tokenizer(config), {}, None, model
  )
  with pytest.raises(ConfigError, match='wanted a solver of process.solvers'):
    run.sampler()


def test_nothing_is_chosen_where_entities_are_refined():
  with pytest.raises(ConfigError, match='config.sampler.logits_filter'):
    Refine(logits_filter=LogitsFilter(temperature=0.5))


def test_classes_that_are_left_to_the_data():
  config = load_config('var/folder')
  with pytest.raises(ConfigError, match='arvision train fills in'):
    assemble.make_model(config)
  digits = assemble.make_data(load_config('var/digits'))
  done = assemble.complete(config, digits)
  assert done.condition.classes == 10
  assert config.condition.classes is None


def test_a_generator_without_a_trained_tokenizer(tmp_path):
  config = load_config('var/digits', [f'frozen.tokenizer={tmp_path}/none'])
  with pytest.raises(ConfigError, match='none'):
    train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_a_task_that_does_not_sample_needs_no_sampler_and_no_condition():
  config = load_config('maskgit/digits').copy_and_resolve_references().unlock()
  del config.sampler, config.condition
  config.layout.prefix = 0
  data = assemble.make_data(config)
  task = assemble.make_task(config, data)

  def run(key, batch):
    image = np.zeros((1, *data.shape), np.float32)
    frozen = {'tokenizer': task.tokenizer.init(key, image)}
    state, metrics = task.step(nn.unbox(task.init(key)), frozen, batch)
    pictures = task.pictures(state.params, frozen, batch)
    return metrics, task.evaluate(state.params, frozen, batch), pictures

  batch = {'image': np.zeros((4, *data.shape), np.float32)}
  metrics, held_out, pictures = jax.eval_shape(run, jax.random.key(0), batch)
  assert {'loss', 'token_accuracy'} == held_out.keys() < metrics.keys()
  assert pictures == {}
