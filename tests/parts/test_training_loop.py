"""The train loop, with a toy task and toy data."""

import json
import re
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from arvision.errors import ConfigError
from arvision.metrics import Mean, Term
from arvision.parallel import host
from arvision.parallel.mesh import make_mesh
from arvision.tasks.base import Objective, accumulate
from arvision.training.evaluate import HeldOut
from arvision.training.hooks import Window
from arvision.training.optim import Trained
from arvision.training.start import compile_lowered
from arvision.training.weights import load_params
from tests.parts import training_toys as toys


def log(workdir):
  lines = (workdir / 'log.jsonl').read_text().splitlines()
  lines = [json.loads(line) for line in lines]
  for line in lines:
    line.pop('images_per_second', None)
  return lines


def same(a, b):
  a, b = toys.arrays(a), toys.arrays(b)
  assert a.keys() == b.keys() and len(a) > 10
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run of 12 steps without a stop."""
  folder = tmp_path_factory.mktemp('whole')
  result = toys.run(toys.config(), folder)
  assert (result.step, result.total, result.signal) == (12, 12, None)
  return folder


def test_a_run_leaves_what_it_promises(whole):
  files = {str(p.relative_to(whole)) for p in whole.rglob('*')}
  assert {
    'config.json',
    'environment.json',
    'parameters.txt',
    'checkpoints/12',
    'checkpoints/10',
    'pictures/first_batch.png',
    'pictures/negatives_0000006.png',
    'pictures/negatives_0000012.png',
  } <= files
  assert any(f.startswith('tensorboard/events') for f in files)
  assert 'checkpoints/5' not in files
  table = (whole / 'parameters.txt').read_text()
  assert 'hidden/kernel' in table and '(16, 8)' in table
  environment = json.loads((whole / 'environment.json').read_text())
  assert environment['versions']['jax'] == jax.__version__
  assert environment['devices'].endswith('x cpu')


def test_the_log_has_means_rates_and_held_out_figures(whole):
  lines = log(whole)
  assert [line['step'] for line in lines] == [3, 6, 6, 9, 12, 12]
  assert lines[0]['examples'] == 48 and lines[0]['epoch'] == 0.5
  # The third step is the first after 2 steps of warm-up, at the peak.
  assert lines[0]['learning_rate'] == pytest.approx(0.05)
  assert lines[-2]['learning_rate'] == 0
  assert lines[-2]['loss'] < lines[0]['loss']
  assert {'held_out/loss', 'held_out/ema_0.9/accuracy'} <= lines[-1].keys()


def test_held_out_figures_are_means_over_real_examples(whole):
  # 20 examples in batches of 16: the last batch is padded with 12 rows.
  _, params, _ = load_params(whole, 'raw')
  data = toys.Data()
  task = toys.Task(tx=None)
  hits, n = 0.0, 0
  for batch in data.held_out(16):
    keep = batch['weight'] > 0
    image, label = batch['image'][keep], batch['label'][keep]
    hits += float(task._loss(params, image, label)[1].sum())
    n += len(label)
  assert n == 20
  assert log(whole)[-1]['held_out/accuracy'] == pytest.approx(hits / n)


@pytest.mark.parametrize('stops', [(7,), (3, 4, 10)])
def test_a_resumed_run_is_the_same_to_the_bit(whole, tmp_path, stops):
  for stop in stops:
    assert toys.run(toys.config(), tmp_path, stop_at=stop).step == stop
  toys.run(toys.config(), tmp_path)
  same(whole, tmp_path)
  assert log(tmp_path) == log(whole)


def test_what_was_logged_after_the_checkpoint_is_cut(whole, tmp_path):
  toys.run(toys.config(), tmp_path, stop_at=6)
  with (tmp_path / 'log.jsonl').open('a') as file:
    file.write('{"step": 9, "loss": 0}\n{"step": 6, "lo')
  toys.run(toys.config(), tmp_path)
  assert log(tmp_path) == log(whole)


def test_a_run_that_is_over_does_nothing(whole, capsys):
  before = sorted(p.name for p in whole.rglob('*.png'))
  assert toys.run(toys.config(), whole).step == 12
  assert 'nothing to do' in capsys.readouterr().out
  assert sorted(p.name for p in whole.rglob('*.png')) == before


def test_resume_from_goes_on_elsewhere(whole, tmp_path):
  first, second = tmp_path / 'first', tmp_path / 'second'
  toys.run(toys.config(), first, stop_at=7)
  toys.run(toys.config(), second, resume_from=first)
  same(whole, second)
  assert [p.name for p in (first / 'checkpoints').glob('12')] == []


def test_init_from_takes_the_weights_alone(whole, tmp_path):
  config = toys.config(optim__learning_rate=0.0)
  toys.run(config, tmp_path, init_from=whole, stop_at=1)
  old, new = toys.arrays(whole), toys.arrays(tmp_path)
  for name in old:
    if name.startswith('params'):
      np.testing.assert_array_equal(new[name], old[name])
      average = new[name.replace('params', 'ema/0.9')]
      np.testing.assert_allclose(average, old[name], rtol=1e-6)
  assert new['step'] == 1


def test_init_from_other_shapes_is_refused(whole, tmp_path):
  with pytest.raises(ConfigError, match=r'hidden/kernel: \(16, 8\) there'):
    toys.run(toys.config(toy__width=6), tmp_path, init_from=whole)


def test_pieces_of_a_batch_add_up_to_it(whole, tmp_path):
  toys.run(toys.config(optim__accumulate=4), tmp_path)
  a, b = toys.arrays(whole), toys.arrays(tmp_path)
  for name in a:
    np.testing.assert_allclose(a[name], b[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('pieces', [1, 2])
def test_a_batch_without_any_weight_has_no_gradient(pieces):
  """Captions without features may fill a whole batch, which no host can see."""

  def objective(params, part):
    return Objective({'x': Term((params * part['x'] - 1) ** 2, part['weight'])})

  x = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
  nothing = {'x': x, 'weight': np.zeros(4, np.float32)}
  gradient, metrics, _ = accumulate(objective, jnp.float32(2), nothing, pieces)
  assert gradient == 0 and metrics['loss'].compute() == 0
  some = {'x': x, 'weight': np.array([0, 0.5, 0, 1], np.float32)}
  gradient, metrics, _ = accumulate(objective, jnp.float32(2), some, pieces)
  # (0.5 * 2 * 2 * (4 - 1) + 2 * 4 * (8 - 1)) / 1.5
  np.testing.assert_allclose(gradient, 62 / 1.5, rtol=1e-6)
  loss = metrics['loss'].compute()
  np.testing.assert_allclose(loss, (4.5 + 49) / 1.5, rtol=1e-6)


@pytest.mark.parametrize('pieces', [1, 2, 4])
def test_every_term_is_divided_by_its_weights_of_the_whole_batch(pieces):
  def objective(params, part):
    far = (params * part['x'] - 1) ** 2
    return Objective(
      {
        'far': Term(far, part['weight'], scale=3.0),
        'size': Term(params * part['x'], 1.0, part['counted']),
      },
      apart={'other': Term(params + 0 * far)},
      metrics={'x': Mean.of(part['x'], part['weight'])},
      aux={'sum': jnp.sum(part['x'])},
    )

  x = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
  weight = np.array([0, 0.5, 0, 1], np.float32)
  rows = {'x': x, 'weight': weight, 'counted': np.float32([1, 0, 0, 1])}
  gradient, metrics, aux = accumulate(objective, jnp.float32(2), rows, pieces)
  # Means of means would depend on the pieces: the first has the weight 0.5.
  np.testing.assert_allclose(gradient, 3 * 62 / 1.5 + 10 / 2 + 1, rtol=1e-6)
  found = {k: float(v.compute()) for k, v in metrics.items()}
  wanted = {'far': 53.5 / 1.5, 'size': 10.0, 'other': 2.0, 'x': 5 / 1.5}
  wanted['loss'] = 3 * wanted['far'] + wanted['size']
  assert found == pytest.approx(wanted)
  assert aux == {'sum': 10}


def test_means_of_a_window_go_on_where_they_were_saved():
  window, other = Window(), Window()
  window.add({'loss': 1.0})
  other.set_state(json.loads(json.dumps(window.get_state())))
  for w in (window, other):
    w.add({'loss': 2.0, 'new': 5.0})
  assert window.means() == other.means() == {'loss': 1.5, 'new': 5.0}
  other.set_state({'sums': {'loss': 3.0}, 'count': 2})  # of version 0.1
  assert other.means() == {'loss': 1.5}


def test_a_held_out_split_without_any_weight_has_no_figures():
  task = toys.Task(tx=optax.identity())
  data = toys.Data()
  passes = types.SimpleNamespace(
    held_out_examples=20,
    held_out=lambda *given: (
      {**batch, 'weight': 0 * batch['weight']}
      for batch in data.held_out(*given)
    ),
  )
  placement = host.Placement(make_mesh({'data': 1}, jax.devices()[:1]))
  held_out = HeldOut(task, {}, passes, placement, 16, 2)
  assert held_out.evaluate(task.init(jax.random.key(0))) == {}


def test_steps_of_a_run_share_one_program(tmp_path):
  compiled = []

  def listen(name, seconds, **_):
    if name == '/jax/core/compile/backend_compile_duration':
      compiled.append(seconds)

  def compilations(stop):
    compiled.clear()
    toys.run(toys.config(), tmp_path, stop_at=stop)
    return len(compiled)

  toys.run(toys.config(), tmp_path, stop_at=1)
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    few, many = compilations(2), compilations(5)
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  # Both write one checkpoint; the second run has a line of the log, too.
  assert 0 < few <= many <= few + 1


def test_what_layers_keep_in_bfloat16_is_not_converted_as_a_whole():
  def loss(x, kernels):
    layer = lambda x, w: (jax.nn.gelu(jnp.einsum('ab,bc->ac', x, w)), None)
    return jax.lax.scan(layer, x, kernels)[0].sum()

  x, kernels = jnp.ones((3, 4), jnp.bfloat16), jnp.ones((5, 4, 4), jnp.bfloat16)
  text = compile_lowered(jax.jit(jax.grad(loss)).lower(x, kernels)).as_text()
  main = text[text.index('\nENTRY') :]
  assert 'bf16[5,3,4]' in main
  assert not re.search(r'f32\[5,3,4\]\S* (convert|fusion)\(', main)


def test_a_run_trains_what_its_optimizer_selects():
  task = toys.Task(tx=optax.adam(0.1), trained=Trained(without=('hidden',)))
  state = nn.unbox(task.init(jax.random.key(0)))
  batch = next(toys.Data().train(16, 0))
  batch = {key: batch[key] for key in ('image', 'label')}
  after, metrics = jax.jit(task.step)(state, {}, batch)
  for name, same in (('hidden', True), ('out', False)):
    kernels = (s.params[name]['kernel'] for s in (state, after))
    assert np.array_equal(*kernels) == same
  assert metrics['gradient_norm'] > 0
