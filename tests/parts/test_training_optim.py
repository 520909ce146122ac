"""The optimizer against arithmetic written out in numpy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from arvision.errors import ConfigError
from arvision.tasks import assemble
from arvision.tasks.base import start_ema, update_ema
from arvision.training import optim, schedule
from arvision.training.schedule import Clock
from tests.configs import ALL

CLOCK = Clock(5, 1, 100)


def adamw(gradients, p, rates, wd, b1, b2, eps, clip):
  """torch.optim.AdamW after torch.nn.utils.clip_grad_norm_, in float64."""
  p = {k: np.float64(v) for k, v in p.items()}
  m = {k: np.zeros_like(v) for k, v in p.items()}
  v = {k: np.zeros_like(x) for k, x in p.items()}
  for t, (grads, lr) in enumerate(zip(gradients, rates), 1):
    norm = np.sqrt(sum((np.float64(g) ** 2).sum() for g in grads.values()))
    scale = min(1.0, clip / (norm + 1e-6))
    for k, g in grads.items():
      g = np.float64(g) * scale
      m[k] = b1 * m[k] + (1 - b1) * g
      v[k] = b2 * v[k] + (1 - b2) * g * g
      p[k] *= 1 - lr * (wd if p[k].ndim > 1 else 0)
      p[k] -= lr * m[k] / (1 - b1**t) / (np.sqrt(v[k] / (1 - b2**t)) + eps)
  return p


def run(tx, p, gradients):
  state = tx.init(p)
  for g in gradients:
    updates, state = jax.jit(tx.update)(g, state, p)
    p = optax.apply_updates(p, updates)
  return p


def draws(seed, scale=1.0):
  rng = np.random.default_rng(seed)
  return {
    'w': np.float32(scale * rng.standard_normal((3, 4))),
    'b': np.float32(scale * rng.standard_normal(4)),
  }


@pytest.mark.parametrize('clip', [0.5, 1e3])
def test_adamw_is_that_of_torch(clip):
  warmup = schedule.WarmupCosine(warmup={'steps': 2}, start=0.1)
  made = optim.Optimizer(
    1e-2, weight_decay=0.3, b1=0.8, b2=0.9, clip=clip, schedule=warmup
  )
  # The third gradient is tiny: there, eps and the 1e-6 of clipping count.
  gradients = [draws(i, 1e-7 if i == 3 else 1.0) for i in range(1, 6)]
  rate = made.rates(CLOCK)['learning_rate']
  rates = [float(rate(i)) for i in range(5)]
  wanted = adamw(gradients, draws(0), rates, 0.3, 0.8, 0.9, 1e-8, clip)
  found = run(made.make(CLOCK), draws(0), gradients)
  for k in wanted:
    np.testing.assert_allclose(found[k], wanted[k], rtol=3e-6, atol=1e-8)


def test_clipping_has_the_epsilon_of_torch():
  gradient = {'w': jnp.array([3e-6, 4e-6])}  # norm 5e-6
  tx = optim.clip_by_global_norm(1e-6)
  found, _ = tx.update(gradient, tx.init(gradient))
  np.testing.assert_allclose(found['w'], [0.5e-6, 2e-6 / 3], rtol=1e-5)


def test_lion_moves_by_the_sign_and_decays():
  made = optim.Optimizer(0.1, kind='lion', b2=0.99, weight_decay=0.5)
  p = {'w': jnp.ones((2, 2)), 'b': jnp.ones(2)}
  g = {'w': jnp.array([[3.0, -2.0], [1e-3, -5.0]]), 'b': jnp.array([1.0, -1])}
  found = run(made.make(CLOCK), p, [g])
  wanted = 1 - 0.1 * (np.sign(g['w']) + 0.5)
  np.testing.assert_allclose(found['w'], wanted, rtol=1e-6)
  np.testing.assert_allclose(found['b'], [0.9, 1.1], rtol=1e-6)


class Stacked(nn.Module):
  """Dense layers, one of them in a scan, with the names of the library."""

  @nn.compact
  def __call__(self, x):
    x = nn.Dense(4, name='first')(x)

    class Layer(nn.Module):
      @nn.compact
      def __call__(self, x, _):
        x = nn.Dense(4, name='block')(nn.LayerNorm(name='norm')(x))
        bias = self.param('q_bias', nn.initializers.zeros, (2, 2))
        return x + bias.reshape(-1), None

    scan = nn.scan(
      Layer, variable_axes={'params': 0}, split_rngs={'params': True}, length=3
    )
    return scan(name='layers')(x, None)[0]


def mask(params, **fields):
  tree = optim.DecayRule(**fields)(params)
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  text = lambda p: jax.tree_util.keystr(p, simple=True, separator='/')
  return {text(path) for path, decays in leaves if decays}


def test_decay_does_not_count_the_axis_of_layers():
  params = Stacked().init(jax.random.key(0), jnp.ones((1, 4)))['params']
  assert params['layers']['block']['bias'].shape == (3, 4)
  assert params['layers']['norm']['scale'].shape == (3, 4)
  assert mask(params) == {'first/kernel', 'layers/block/kernel'}
  assert mask(params, exempt=('block',)) == {'first/kernel'}
  assert 'layers/norm/scale' in mask(params, min_ndim=1)


def test_decay_sees_through_the_boxes_of_init():
  init = nn.with_logical_partitioning(nn.initializers.ones, ('embed', 'mlp'))
  net = nn.Dense(4, kernel_init=init)
  boxed = net.init(jax.random.key(0), jnp.ones((1, 4)))['params']
  made = optim.Optimizer(0.1, weight_decay=0.1)
  state = made.make(CLOCK).init(boxed)
  plain = nn.unbox(boxed)
  updates, _ = made.make(CLOCK).update(
    jax.tree.map(jnp.zeros_like, plain), nn.unbox(state), plain
  )
  np.testing.assert_allclose(updates['kernel'], -0.01, rtol=1e-5)
  np.testing.assert_allclose(updates['bias'], 0.0)


@pytest.mark.parametrize(
  ('fields', 'said'),
  [
    ({'kind': 'sgd'}, "'adamw' or 'lion' or 'adam'"),
    ({'kind': 'adam', 'weight_decay': 0.1}, 'has no weight decay'),
    ({'clip': -1.0}, 'Optimizer.clip=-1.0: wanted 0 or more'),
    ({'accumulate': 0}, 'Optimizer.accumulate=0: wanted 1'),
  ],
)
def test_a_wrong_optimizer_is_refused(fields, said):
  with pytest.raises(ConfigError, match=said):
    optim.Optimizer(**{'learning_rate': 0.1, **fields})


def test_averages_warm_up_as_numpy_says():
  params = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
  ema = start_ema({'w': params[0]}, (0.3, 0.9999))
  wanted = {'0.3': np.float64(params[0]), '0.9999': np.float64(params[0])}
  for t in range(5):
    ema = update_ema(ema, {'w': params[t + 1]}, jnp.int32(t))
    for decay in wanted:
      d = min(float(decay), (1 + t) / (10 + t)) if t else 0
      wanted[decay] = d * wanted[decay] + (1 - d) * params[t + 1]
  for decay, average in wanted.items():
    np.testing.assert_allclose(ema[decay]['w'], average, rtol=1e-5)
  assert not np.allclose(wanted['0.3'], wanted['0.9999'])


def test_published_averages_do_not_warm_up():
  """Nor do those of runs from before there was such a key."""
  for name, warm in {
    'var/digits_tokenizer': True,
    'titok/tokenizer': True,
    'mar/imagenet256': False,
    'xar/imagenet256': False,
    'llamagen/tokenizer': False,
  }.items():
    makers = [make for full, make in ALL.items() if full.startswith(name)]
    assert makers and all(make().ema_warmup == warm for make in makers), name
  config = ALL['var/digits_tokenizer']()
  data = assemble.make_data(config)
  assert assemble.make_task(config, data).ema.warmup
  with config.unlocked():
    del config.ema_warmup
  assert not assemble.make_task(config, data).ema.warmup


def test_a_warm_up_ends_at_the_decay():
  params, start = {'w': np.float32([3.0])}, {'w': np.float32([1.0])}
  ema = start_ema(start, (0.99,))
  late = update_ema(ema, params, jnp.int32(10_000))
  np.testing.assert_array_equal(
    late['0.99']['w'], update_ema(ema, params)['0.99']['w']
  )


@pytest.fixture(scope='module')
def averaged():
  """Numbers that grow by half in 20,000 steps: averages, and the exact ones."""
  start = np.random.default_rng(0).normal(size=500).astype(np.float32)
  growth = np.linspace(1, 1.5, 20_000, dtype=np.float32)

  @jax.jit
  def run(ema):
    def step(ema, factor):
      params = {'moving': factor * start, 'still': start}
      return update_ema(ema, params), None

    return jax.lax.scan(step, ema, growth)[0]

  ema = run(start_ema({'moving': start, 'still': start}, (0.99, 0.9999)))
  exact = {}
  for decay in ema:
    average, d = np.float64(start), float(decay)
    for factor in growth:
      average = d * average + (1 - d) * np.float64(factor * start)
    exact[decay] = average
  return start, ema, exact


def test_what_does_not_change_has_an_average_that_does_not(averaged):
  start, ema, _ = averaged
  for average in ema.values():
    np.testing.assert_array_equal(average['still'], start)


@pytest.mark.parametrize('decay, share', [('0.99', 1e-5), ('0.9999', 5e-4)])
def test_an_average_is_near_the_exact_one(averaged, decay, share):
  """The closer to 1 a decay is, the more its two rounded products cost."""
  _, ema, exact = averaged
  np.testing.assert_allclose(ema[decay]['moving'], exact[decay], rtol=share)


def step_of(trained, params, clip=1.0):
  """The parameters after a step, and the leaves that have moments."""
  made = optim.Optimizer(0.1, weight_decay=0.1, clip=clip).make(CLOCK)
  tx = trained.wrap(made)
  state = tx.init(params)
  wanted = lambda p: sum(jnp.sum((x - 3) ** 2) for x in jax.tree.leaves(p))
  gradient = jax.grad(lambda p: wanted(trained.stop_gradients(p)))(params)
  updates, state = tx.update(gradient, state, params)
  moments = optax.tree.get(state, 'mu')
  paths = jax.tree_util.tree_leaves_with_path(moments)
  text = lambda p: jax.tree_util.keystr(p, simple=True, separator='/')
  after = optax.apply_updates(params, updates)
  return after, {text(p) for p, _ in paths}, gradient


def moved(before, after):
  """Names of the arrays that differ."""
  both = jax.tree.map(lambda a, b: np.asarray(a != b), before, after)
  leaves = jax.tree_util.tree_leaves_with_path(both)
  text = lambda p: jax.tree_util.keystr(p, simple=True, separator='/')
  return {text(path): x for path, x in leaves if x.any()}


def test_only_what_is_selected_is_trained():
  params = Stacked().init(jax.random.key(0), jnp.ones((1, 4)))['params']
  after, moments, gradient = step_of(optim.Trained(only=('layers',)), params)
  assert {*moved(params, after)} == moments
  assert {name.split('/')[0] for name in moments} == {'layers'}
  assert not any(x.any() for x in jax.tree.leaves(gradient['first']))
  without = optim.Trained(without=('block', 'first', 'norm'))
  assert {*moved(params, step_of(without, params)[0])} == {'layers/q_bias'}
  # A name is of a whole module: 'loc' is no part of 'block'.
  with pytest.raises(ConfigError, match="without='loc': no parameter has that"):
    step_of(optim.Trained(without=('loc',)), params)


def test_some_of_the_stacked_layers_are_trained():
  params = Stacked().init(jax.random.key(0), jnp.ones((1, 4)))['params']
  trained = optim.Trained(only=('layers',), layers=(1, 2))
  after, _, gradient = step_of(trained, params)
  for x in moved(params, after).values():
    assert x[1].any() and not x[[0, 2]].any()
  # What stays counts in no norm: clipping sees the gradient of layer 1 alone.
  only = [x[1:2] for x in jax.tree.leaves(gradient['layers'])]
  np.testing.assert_allclose(optax.tree.norm(gradient), optax.tree.norm(only))
  with pytest.raises(ConfigError, match='wanted layers from 0 to 3'):
    step_of(optim.Trained(layers=(2, 4)), params)
