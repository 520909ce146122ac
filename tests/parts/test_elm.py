"""ELM: options that no recorded case has, one id per token, masked models."""

import functools

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from arvision.build import build
from arvision.configs import common
from arvision.configs.elm import parts
from arvision.importers import elm, files, table
from arvision.random import Draw
from arvision.structs import TokenSpec
from arvision.tasks import assemble

TRANSFORMER = dict(grid=(2, 2), classes=2, depth=2, width=8, heads=2, hidden=8)
SIZES = dict(grid=(2, 2), bits=4, channels=8, ch=8, image_channels=1)


def shapes_of(**options):
  module = build(parts.bae(**{**SIZES, **options}), 'tokenizer')
  side = 2 ** len(options['ch_mult'])
  image = jnp.zeros((1, side, side, 1))
  init = functools.partial(module.init, jax.random.key(0))
  return nn.unbox(jax.eval_shape(init, image)['params'])


@pytest.mark.parametrize(
  ('options', 'count', 'key'),
  [
    # conv_in, 2 blocks, down, 2 blocks, 3 in the middle, norm, conv_out
    (dict(ch_mult=(1, 2), attention_levels=()), 11, 'generator.blocks.6.conv'),
    # one norm more, so that all have one number more
    (
      dict(ch_mult=(1, 2), attention_levels=(), norm_first=True),
      11,
      'generator.blocks.7.conv',
    ),
    # attention after every block of both levels
    (dict(ch_mult=(1, 1), attention_levels=(0, 1)), 15, 'encoder.blocks.4.q'),
    (dict(ch_mult=(1, 2), res_blocks=1), 10, 'encoder.blocks.2.conv'),
    # twice as many residual blocks in the decoder
    (dict(ch_mult=(1,), gen_mul=2.0), 10, 'generator.blocks.11.norm'),
  ],
)
def test_modules_have_the_numbers_of_the_official_list(
  options, count, key, tmp_path
):
  shapes = shapes_of(**options)
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: rng.normal(size=x.shape), shapes)
  params = jax.tree.map(np.float32, params)
  form = elm.Tokenizer()
  weights = table.to_weights(form, params, ((2, 2),))
  numbers = {k.split('.')[2] for k in weights if k.startswith('encoder.')}
  assert numbers == {str(i) for i in range(count)}
  assert f'{key}.weight' in weights
  # Every residual block of the official files has a shortcut.
  blocks = {k.rpartition('conv2.')[0] for k in weights if 'conv2.' in k}
  assert all(f'{b}conv_out.weight' in weights for b in blocks)
  path = tmp_path / 'bae.pth'
  files.write(path, weights, form.wrapping)
  content = files.read(path)
  assert all(k.startswith('ae.') for k in content)
  _, found = files.find_weights(content, [*weights])
  back = table.to_params(form, found, shapes)
  jax.tree.map(np.testing.assert_array_equal, params, back)


def test_tokens_of_one_id_have_no_number_in_their_keys():
  config = common.new()
  parts.elm(config, parts=1, vocab_size=6, **TRANSFORMER)
  model = assemble.make_model(config)
  tokens = TokenSpec(6, 1, 1, model.layout.grids).blank()
  shapes = assemble.model_shapes(model, tokens=tokens)
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: np.float32(rng.normal(size=x.shape)), shapes)
  form = elm.Transformer()
  weights = table.to_weights(form, params, ())
  assert weights['tok_embedder.weight'].shape == (6, 8)
  assert weights['output.weight'].shape == (6, 8)
  assert not any(k.startswith('proj.') for k in weights)
  back = table.to_params(form, weights, shapes)
  jax.tree.map(np.testing.assert_array_equal, params, back)


def test_masked_models_end_with_the_table_of_their_input():
  config = common.new()
  parts.elm_mlm(config, parts=2, vocab_size=5, **TRANSFORMER)
  model = assemble.make_model(config)
  layout, feed = model.layout, model.feed
  tokens = TokenSpec(5, 1, 1, layout.grids).blank(3)
  params = nn.unbox(assemble.model_shapes(model, tokens=tokens))
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: np.float32(rng.normal(size=x.shape)), params)
  label = {'label': jnp.zeros(3, jnp.int32)}
  draw = Draw.create(0, jnp.arange(3))
  slots, targets = feed.train(tokens, layout, None, draw)
  # Both ids of a place are masked together, and they alone are paid for.
  masked = np.asarray(slots.masked)[:, layout.prefix :].reshape(3, 4, 2)
  assert (masked[..., 0] == masked[..., 1]).all() and masked.any(1).all()
  np.testing.assert_array_equal(targets.weight, masked.reshape(3, 8))
  np.testing.assert_array_equal(layout.coords[2::2], layout.coords[3::2])

  def logits(params):
    z, query = model.apply(
      {'params': params}, slots, label, jnp.zeros(3, bool), method='hidden'
    )
    return model.apply({'params': params}, z, query, method='field')

  def read(params):
    seen = model.apply(
      {'params': params},
      slots,
      label,
      jnp.zeros(3, bool),
      method='hidden',
      capture_intermediates=True,
      mutable=['intermediates'],
    )[1]['intermediates']['backbone']['norm']['__call__'][0]
    return np.asarray(seen)[:, layout.prefix :]

  own = params['backbone']['output']
  x = read(params) @ own['transform']['kernel'] + own['transform']['bias']
  x = x * scipy.stats.norm.cdf(x)
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
  x = x * own['norm']['scale'] + own['norm']['bias']
  codes = params['backbone']['input']['codes']['table']
  wanted = (x @ codes.T + own['bias'])[..., :5]
  np.testing.assert_allclose(logits(params), wanted, rtol=1e-3, atol=1e-3)
  # The gradient of the table is that of the input alone: ids that no slot
  # carries have none.
  gradient = jax.grad(lambda p: logits(p).sum())(params)
  rows = np.abs(gradient['backbone']['input']['codes']['table']).sum(1) > 0
  seen = {5} | ({0} if not masked.all() else set())
  assert {*np.flatnonzero(rows).tolist()} == seen


def test_ids_of_a_token_may_be_tokens_of_their_own():
  options = dict(ch_mult=(1, 2), attention_levels=(), ids=2)
  block = parts.bae(**{**SIZES, **options})
  plain = build(block, 'tokenizer')
  block.type = 'tokenizers.autoencoder.Unrolled'
  line = build(block, 'tokenizer')
  assert line.spec == TokenSpec(4, 1, 2, ((2, 4),))
  image = jax.random.uniform(jax.random.key(1), (2, 4, 4, 1), minval=-1)

  @jax.jit
  def both(image):
    variables = plain.init(jax.random.key(0), image)
    a, b = (m.bind(variables) for m in (plain, line))
    x, y = a.encode(image), b.encode(image)
    vectors = a.embed(x.values), b.embed(y.values)
    return x.values, y.values, a.decode(x), b.decode(y), vectors

  x, y, first, second, (a, b) = both(image)
  np.testing.assert_array_equal(x.reshape(2, 8), y)
  np.testing.assert_array_equal(first, second)
  np.testing.assert_array_equal(a, b.reshape(2, 4, 4))
  np.testing.assert_array_equal(plain.digits(x), line.digits(y))


def test_a_modulation_has_the_official_order():
  config = common.new()
  parts.elm(config, parts=3, vocab_size=4, adaln=True, **TRANSFORMER)
  model = assemble.make_model(config)
  tokens = TokenSpec(4, 3, 1, model.layout.grids).blank()
  shapes = assemble.model_shapes(model, tokens=tokens)
  flat = table.paths(shapes)
  params = {k: np.zeros(s, np.float32) for k, s in flat.items()}
  # gates, scales and shifts of attention and MLP; scale and shift of the last
  params['backbone/stack/layers/block/adaln/linear/bias'] += np.arange(6)[
    :, None
  ]
  params['backbone/norm/adaln/bias'] += np.arange(2)[:, None]
  form = elm.Transformer()
  params = flax.traverse_util.unflatten_dict(params, sep='/')
  weights = table.to_weights(form, params, ())
  of = lambda key: weights[f'{key}.bias'].reshape(-1, 8)[:, 0].tolist()
  assert of('layers.1.adaLN_modulation.1') == [4, 2, 0, 5, 3, 1]
  assert of('final_adaLN.1') == [1, 0]
  assert weights['tok_embedder.2.weight'].shape == (4, 8)
  back = table.to_params(form, weights, shapes)
  jax.tree.map(np.testing.assert_array_equal, params, back)
