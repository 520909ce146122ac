"""ELM: options of its tokenizer that no recorded case has, and one id per token."""

import functools

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.build import build
from arvision.configs import common
from arvision.configs.elm import parts
from arvision.importers import elm, files, table
from arvision.structs import TokenSpec
from arvision.tasks import assemble

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
    (dict(ch_mult=(1,), gen_mul=2.0), 10, 'generator.blocks.5.norm'),
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


def test_a_modulation_has_the_official_order():
  config = common.new()
  sizes = dict(grid=(2, 2), parts=3, vocab_size=4, classes=2)
  parts.elm(config, depth=2, width=8, heads=2, hidden=8, adaln=True, **sizes)
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
