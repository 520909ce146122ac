"""MaskBit's parts: tokens of several ids, each of which may be masked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.configs.maskbit import tiny
from arvision.errors import ConfigError
from arvision.feeds.mask import RandomMask, RandomParts
from arvision.heads.categorical import Categorical
from arvision.importers import maskbit
from arvision.layouts import grid
from arvision.metrics import Mean, Term
from arvision.model import like
from arvision.quantizers.lfq import LFQ
from arvision.random import Draw, Replay
from arvision.samplers.masked import Masked
from arvision.samplers.random_order import RandomOrder
from arvision.structs import Query, Tokens
from arvision.tasks import assemble, fit

LAYOUT = grid.whole(1, 3)


def fed(ids, values, mask, time=(0.0, 0.5), **fields):
  draw = Replay({'time': np.float32(time), 'mask': np.float32(mask)}, size=2)
  feed = RandomParts(**fields)
  codec = LFQ(channels=4, ids=ids)
  return feed.train(Tokens(values), LAYOUT, codec, draw)


def test_a_masked_part_is_zeros_instead_of_its_bits():
  values = np.array([[[1, 2], [3, 0], [0, 3]]] * 2, np.int32)
  mask = np.array([[[0.5, 0.9]] * 3, [[0.6, 0.7], [0.7, 0.6], [0.6, 0.6]]])
  slots, targets = fed(2, values, mask, unmasked_weight=0.25)
  assert slots.masked is None
  # At time 0 all is masked; at 0.5 the arccos schedule masks 2/3.
  np.testing.assert_array_equal(slots.values[0], np.zeros((4, 4)))
  np.testing.assert_array_equal(
    slots.values[1],
    [[0, 0, 0, 0], [0, 0, -1, 1], [1, 1, 0, 0], [0, 0, 0, 0]],
  )
  np.testing.assert_array_equal(targets.weight[0], np.ones((3, 2)))
  np.testing.assert_array_equal(
    targets.weight[1], [[1, 0.25], [0.25, 1], [1, 1]]
  )
  np.testing.assert_array_equal(targets.values, values)


def test_the_loss_of_a_token_may_be_the_sum_of_its_parts():
  values = np.zeros((2, 3, 2), np.int32)
  mask = np.random.RandomState(0).uniform(size=values.shape)
  for summed, factor in ((False, 1), (True, 2)):
    _, targets = fed(2, values, mask, summed=summed)
    loss = np.random.RandomState(1).uniform(size=values.shape)
    term = Term(loss, targets.weight, targets.denominator)
    wanted = factor * np.average(loss, weights=targets.weight)
    np.testing.assert_allclose(term.mean.compute(), wanted, rtol=1e-6)


def test_one_part_is_a_whole_token():
  values = np.array([[6, 3, 9]] * 2, np.int32)
  mask = [[0.5, 0.9, 0.2], [0.6, 0.7, 0.1]]
  slots, targets = fed(1, values, mask, schedule='cosine', time=(1.0, 0.5))
  # The cosine masks cos(pi / 4) = 0.707 at 0.5, and next to nothing at 1.
  bits = np.array([[-1, 1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
  np.testing.assert_array_equal(slots.values[0, 1:], bits)
  np.testing.assert_array_equal(slots.values[1, 1:], np.zeros((3, 4)))
  assert targets.weight.shape == (2, 3)


def test_parts_of_a_head_are_heads_of_their_own():
  z = np.random.RandomState(0).normal(size=(2, 3, 1, 8)).astype(np.float32)
  targets = np.random.RandomState(1).randint(0, 4, (2, 3, 2)).astype(np.int32)
  draw, query = Draw.create(0, jnp.arange(2)), Query()
  args = z, targets, draw, query
  head = Categorical(vocab_size=4, parts=2, label_smoothing=0.1)
  params = head.init(jax.random.key(0), *args, method='loss')
  loss, metrics = head.apply(params, *args, method='loss')
  assert loss.shape == metrics['token_accuracy'].shape == targets.shape
  for i in range(2):
    own = jax.tree.map(lambda x: x[..., i, :], params)  # noqa: B023
    one = Categorical(vocab_size=4, label_smoothing=0.1)
    alone, _ = one.apply(own, z, targets[..., i], draw, query, method='loss')
    np.testing.assert_allclose(loss[..., i], alone, rtol=1e-6)


@pytest.mark.parametrize('shape', [(2, 1), (1, 3), (2, 3), (2, 3, 2)])
def test_weights_of_tokens_are_those_of_their_parts(shape):
  weight = np.random.RandomState(0).uniform(size=shape)
  full = weight.reshape(*shape, *[1] * (3 - len(shape)))
  loss = jnp.ones((2, 3, 2))
  got = Mean.of(loss, like(weight, loss)).weight
  np.testing.assert_allclose(got, np.broadcast_to(full, (2, 3, 2)).sum(), 1e-6)


@pytest.mark.parametrize(('bits', 'parts'), [(8, 1), (8, 2), (12, 3), (18, 2)])
def test_an_exported_generator_has_the_numbers_of_its_bits(bits, parts):
  weights = {
    'input_proj.weight': np.zeros((2, bits)),
    'prediction_layer.weight': np.zeros((parts * 2 ** (bits // parts), 2)),
  }
  found = maskbit.Generator().buffers(weights, ())['bits_to_indices']
  assert found.tolist() == [2**i for i in range(bits // parts)]


def test_parts_that_do_not_fit_are_refused():
  config = tiny.get_config()
  model = assemble.make_model(config)
  tokenizer = assemble.make_tokenizer(config)
  spec = tokenizer.spec
  assert spec.parts == 2 and spec.size == 8
  fit.check_sampler(model, Masked(), spec.parts)
  for feed, sampler in ((RandomMask(), Masked()), (model.feed, RandomOrder())):
    with pytest.raises(ConfigError, match='wanted feeds.mask.RandomParts'):
      fit.check_sampler(model.clone(feed=feed), sampler, spec.parts)
  with config.unlocked():
    config.head.parts = 3
  with pytest.raises(ConfigError, match='parts=3 .* 2 parts per token'):
    fit.check_tokenizer(config, assemble.make_model(config), tokenizer)
  with config.unlocked():
    del config.head.parts
  with pytest.raises(ConfigError, match='parts=1 .* 2 parts per token'):
    fit.check_tokenizer(config, assemble.make_model(config), tokenizer)
