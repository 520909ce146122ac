"""VAR and LlamaGen against their official numbers."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from arvision.build import build
from arvision.configs import common
from arvision.model import sample
from arvision.structs import Draw, Tokens
from arvision.tasks import assemble
from arvision.training.optim import DecayRule, Optimizer, clip_by_global_norm
from tests.parity import recipe, tables, test_tokenizers


class Teacher:
  """A codec that hands out the recorded teacher-forcing input."""

  def __init__(self, rows):
    self.rows = rows

  def canvas(self, batch):
    return jnp.zeros((batch, 1, 1, self.rows.shape[-1]))

  def merge(self, canvas, values, s):
    return canvas

  def view(self, canvas, s):
    before = sum((i + 1) ** 2 for i in range(s))
    return self.rows[:, before - 1 : before - 1 + (s + 1) ** 2]


def var_config(args):
  config = ConfigDict()
  common.var(
    config,
    scales=tuple(args['patch_nums']),
    vocab_size=args['vocab'],
    classes=args['num_classes'],
    depth=args['depth'],
    width=args['embed_dim'],
    heads=args['num_heads'],
    shared_adaln=args['shared_aln'],
    drop_path=0.0,
  )
  return config


def llamagen_config(args, rows):
  """Without label dropping the official table has no row for null."""
  config = ConfigDict()
  side = round(args['block_size'] ** 0.5)
  common.llamagen(
    config,
    grid=(side, side),
    vocab_size=args['vocab_size'],
    classes=rows - 1,
    depth=args['n_layer'],
    width=args['dim'],
    heads=args['n_head'],
    hidden=args['ffn_hidden'],
    dropout=0.0,
  )
  return config


@functools.cache
def loaded(case):
  """(meta, arrays, config, model, params) with the official weights."""
  meta, io = recipe.load(case)
  args, weights = meta['constructor'], recipe.weights(meta)
  if 'patch_nums' in args:
    config = var_config(args)
    params = tables.var(weights, args['depth'], args['num_heads'])
  else:
    rows = len(weights['cls_embedding.embedding_table.weight'])
    config = llamagen_config(args, rows)
    params = tables.llamagen(weights, args['n_layer'], args['n_head'])
  model = assemble.make_model(config)
  t = model.layout.tokens
  codec = Teacher(np.zeros((1, t - 1, args.get('Cvae', 1)), np.float32))

  def init(key):
    tokens = Tokens(jnp.zeros((1, t), jnp.int32))
    label = {'label': jnp.zeros((1,), jnp.int32)}
    draw = Draw.create(0, jnp.arange(1))
    return model.init(key, tokens, label, draw, codec, method='loss')

  own = nn.unbox(jax.eval_shape(init, jax.random.key(0))['params'])
  shape = lambda x: x.shape
  assert jax.tree.map(shape, own) == jax.tree.map(shape, params)
  return meta, io, config, model, params


def logits(model, params, codes, label, null, teacher=None):
  @jax.jit
  def run(params, codes, label, null, teacher):
    return model.apply(
      {'params': params},
      Tokens(codes),
      {'label': label},
      None if teacher is None else Teacher(teacher),
      null,
      method='logits',
    )

  return run(params, codes, label, null, teacher)


@pytest.mark.parametrize('case', ['var', 'var_shared_aln'])
def test_var_forward(case):
  meta, io, _, model, params = loaded(case)
  limit = meta['suggested']['strict_rel_to_max']
  run = functools.partial(
    logits,
    model,
    params,
    io['gen_idx'],
    io['label'],
    teacher=io['teacher_input'],
  )
  batch = len(io['label'])
  recipe.close('logits', run(null=np.zeros(batch, bool)), io['logits'], limit)
  null = run(null=np.ones(batch, bool))
  recipe.close('logits_uncond', null, io['logits_uncond'], limit)


@pytest.mark.parametrize('case', ['var', 'var_shared_aln'])
def test_var_generation(case):
  meta, io, config, model, params = loaded(case)
  codec = test_tokenizers.var()[0]
  config.sampler.guidance.end = 1 + meta['generation']['cfg']
  config.sampler.choice.temperature = 0.0
  sampler = build(config.sampler, 'sampler')

  @jax.jit
  def run(params, variables, label):
    bound = codec.module.bind({'params': variables})
    draw = Draw.create(0, jnp.arange(len(io['label'])))
    tokens = sample(model, params, sampler, {'label': label}, draw, bound)
    return tokens.values, bound.decode(tokens)

  codes, image = run(params, codec.params, io['label'])
  np.testing.assert_array_equal(codes, io['gen_idx'])
  limit = meta['suggested']['strict_rel_to_max_generation']
  wanted = recipe.nhwc(io['gen_image'])
  recipe.close('gen_image', (image + 1) / 2, wanted, limit)


def test_llamagen_forward():
  meta, io, _, model, params = loaded('llamagen_gpt_c2i')
  null = np.zeros(len(io['cond']), bool)
  got = logits(model, params, io['idx'], io['cond'], null)
  limit = meta['suggested']['strict_rel_to_max']
  recipe.close('logits', got, io['logits'], limit)
  loss = optax.softmax_cross_entropy_with_integer_labels(got, io['idx'])
  recipe.close('loss', loss.mean(), io['loss'], limit)


def test_llamagen_generation():
  meta, io, config, model, params = loaded('llamagen_gpt_c2i')
  config.sampler.guidance.scale = meta['generation']['cfg_scale']
  config.sampler.choice.temperature = 0.0
  sampler = build(config.sampler, 'sampler')

  @jax.jit
  def run(params, label):
    draw = Draw.create(0, jnp.arange(len(io['cond'])))
    return sample(model, params, sampler, {'label': label}, draw).values

  np.testing.assert_array_equal(run(params, io['cond']), io['gen_idx'])


@pytest.mark.parametrize('case', ['train_var', 'train_llamagen'])
def test_five_steps_of_training(case):
  """Losses, gradient norms and the first numbers of all parameters."""
  meta, io, _, model, params = loaded(case)
  published = meta['optimizer']
  exempt = common.VAR_NO_DECAY if case == 'train_var' else ()
  tx = optax.chain(
    clip_by_global_norm(published['clip']),
    optax.scale_by_adam(*published['betas'], published['eps']),
    optax.add_decayed_weights(
      published['weight_decay'], DecayRule(exempt=exempt)
    ),
  )
  assert Optimizer(1.0).b2 == published['betas'][1]
  draw = Draw.create(0, jnp.arange(io['idx'].shape[1]))

  @jax.jit
  def step(params, state, codes, label, rate, teacher):
    def loss(params):
      total, (weight, _) = model.apply(
        {'params': params},
        Tokens(codes),
        {'label': label},
        draw,
        None if teacher is None else Teacher(teacher),
        train=False,
        method='loss',
      )
      return total / weight

    value, gradient = jax.value_and_grad(loss)(params)
    updates, state = tx.update(gradient, state, params)
    params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
    return params, state, value, optax.tree.norm(gradient)

  params = jax.tree.map(jnp.asarray, params)
  state = tx.init(params)
  for i, rate in enumerate(io['lr']):
    teacher = io['teacher_input'][i] if 'teacher_input' in io else None
    params, state, loss, norm = step(
      params, state, io['idx'][i], io['label'][i], np.float32(rate), teacher
    )
    limits = meta['suggested']
    assert loss == pytest.approx(io['loss'][i], rel=limits['loss_rel'])
    wanted = pytest.approx(io['grad_norm'][i], rel=limits['grad_norm_rel'])
    assert norm == wanted
  _same_fingerprints(case, meta, io, params)


def _same_fingerprints(case, meta, io, params):
  """Sums of squares of every official parameter after the last step."""
  args = meta['constructor']
  table = tables.var if case == 'train_var' else tables.llamagen
  depth = args.get('depth') or args['n_layer']
  heads = args.get('num_heads') or args['n_head']
  # The table applied to arrays of the official shapes that hold their own
  # key's number tells where each official entry went.
  marks = {
    key: np.full(entry['shape'], i, np.float32)
    for i, (key, entry) in enumerate(meta['weights'].items())
    if 'std' in entry
  }
  numbers = {key: i for i, key in enumerate(meta['weights'])}
  where = jax.tree.leaves(table(marks, depth, heads))
  leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(params)]
  for i, key in enumerate(meta['fingerprint_keys']):
    values = np.concatenate(
      [x[m == numbers[key]] for x, m in zip(leaves, where)]
    )
    square = np.sum(values**2)
    limit = meta['suggested']['sumsq_rel']
    assert square == pytest.approx(io['final_sumsq'][i], rel=limit), key
    rms = np.sqrt(square / values.size)
    noise = max(1e-6, 20 * float(io['noise_final_sum'][i]))
    error = abs(values.sum() - io['final_sum'][i])
    assert error <= noise * values.size * rms, key
