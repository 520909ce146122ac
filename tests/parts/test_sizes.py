"""Parameter counts of all published sizes, by shapes alone."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from arvision.structs import Draw, Tokens
from arvision.tasks import assemble
from tests.configs import ALL

# Published counts, in millions. XL, XXL and 3B are published with two or three
# digits; theirs are counted from the published layer sizes.
GENERATORS = {
  'var/imagenet256:d16': 310.28,
  'var/imagenet256:d20': 600.92,
  'var/imagenet256:d24': 1033.40,
  'var/imagenet256:d30': 2010.02,
  'llamagen/imagenet256:B': 110.9,
  'llamagen/imagenet256:L': 342.9,
  'llamagen/imagenet256:XL': 774.7,
  'llamagen/imagenet256:XXL': 1411.0,
  'llamagen/imagenet256:3B': 3096.7,
}
TOKENIZERS = {
  'var/tokenizer': 108.948355,
  'llamagen/tokenizer': 71.883,
}


def millions(shapes):
  return sum(x.size for x in jax.tree.leaves(nn.unbox(shapes))) / 1e6


def image_of(config):
  return jnp.zeros((1, *config.data.size, config.data.channels))


@pytest.mark.parametrize('name', GENERATORS)
def test_generators(name):
  config = ALL[name]()
  model = assemble.make_model(config)
  tokenizer = assemble.make_tokenizer(config)
  assemble.check_fit(config, model, tokenizer)

  def init(key):
    codec = tokenizer.bind(tokenizer.init(key, image_of(config)))
    tokens = Tokens(jnp.zeros((1, model.layout.tokens), jnp.int32))
    label = {'label': jnp.zeros((1,), jnp.int32)}
    draw = Draw.create(0, jnp.arange(1))
    return model.init(
      key, tokens, label, draw, codec, train=False, method='loss'
    )['params']

  got = millions(jax.eval_shape(init, jax.random.key(0)))
  assert got == pytest.approx(GENERATORS[name], abs=0.06)


@pytest.mark.parametrize('name', TOKENIZERS)
def test_tokenizers(name):
  config = ALL[name]()
  init = functools.partial(
    assemble.make_tokenizer(config).init, jax.random.key(0)
  )
  got = millions(jax.eval_shape(init, image_of(config)))
  assert got == pytest.approx(TOKENIZERS[name], abs=1e-3)


def test_every_published_size_is_counted():
  published = {n for n in ALL if n.startswith(('var/', 'llamagen/'))}
  assert published == {*GENERATORS, *TOKENIZERS}
