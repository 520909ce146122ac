"""BAR: the head over bits, random orders in sampling, aligned tokenizers."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.build import build
from arvision.heads.masked_bits import MaskedBits
from arvision.model import sample
from arvision.process.logits import LogitsFilter
from arvision.random import Draw
from arvision.samplers.base import Known
from arvision.structs import Query
from arvision.tasks import assemble
from tests.configs import ALL
from tests.laws.test_distribution import p_value
from tests.laws.test_generators import case, jit, scrambled

SAMPLES = 20_000


def bits(**fields):
  """A head of three bits with random parameters."""
  head = MaskedBits(
    channels=3, levels=2, width=16, depth=1, hidden=16, **fields
  )
  z = jnp.asarray(np.random.default_rng(1).normal(size=(1, 1, 1, 8)), 'float32')
  query = Query(values=jnp.zeros((1, 1, 3), int), level=jnp.ones((1, 1)))
  params = head.init(jax.random.key(0), z, query, method='field')['params']
  return head.bind({'params': scrambled(nn.unbox(params), 0.5)}), z


def chain_rule(head, z, order):
  """(8,) probabilities, a bit after the other."""

  @jax.jit
  def chances(shown, level):
    query = Query(values=shown[None, None], level=jnp.full((1, 1), level))
    return jax.nn.softmax(head.field(z, query))[0, 0]

  found = []
  for token in itertools.product((0, 1), repeat=3):
    shown, p = np.full(3, 2), 1.0
    for i, part in enumerate(order):
      p *= chances(shown, 1 - i / 3)[part, token[part]]
      shown[part] = token[part]
    found.append(float(p))
  return np.array(found)


def test_a_bit_per_step_in_a_fixed_order_is_the_chain_rule():
  order = (2, 0, 1)
  head, z = bits(allocation=(1, 1, 1), order=order)

  @jax.jit
  def counts(z):
    draw = Draw.create(0, jnp.arange(SAMPLES))
    many = jnp.repeat(z, SAMPLES, 0)
    guide = lambda logits: logits
    tokens = head.sample(many, draw, guide, LogitsFilter(), Query())
    return jnp.bincount(tokens[:, 0] @ np.array([4, 2, 1]), length=8)

  seen = np.asarray(counts(z))
  assert p_value(seen, chain_rule(head, z, order)) > 1e-3
  # The control: another order is another distribution.
  assert p_value(seen, chain_rule(head, z, (0, 1, 2))) < 1e-6


def test_wrong_steps_are_refused():
  with pytest.raises(
    ValueError, match=r'head\.allocation=\(1, 1\) adds up to 2'
  ):
    bits(allocation=(1, 1))
  with pytest.raises(ValueError, match=r'head\.order=\(0, 1\): wanted the'):
    bits(allocation=(3,), order=(0, 1))


def test_the_loss_is_over_the_weights_of_all_bits():
  head, z = bits(allocation=(3,))
  draw, tokens = Draw.create(0, jnp.arange(1)), jnp.array([[[1, 0, 1]]])
  term, metrics = head.loss(z, tokens, draw, Query())
  share, masked = head.masking((1, 1), draw)
  count = int(masked.sum())
  assert count == max(round(3 * float(share[0, 0])), 1)
  np.testing.assert_allclose(term.weight, count + 0.1 * (3 - count), rtol=1e-6)
  assert 0 <= metrics['masked_part_accuracy'] <= 1


def test_known_tokens_stay_in_random_orders():
  law = case('bar/tiny:L')
  config = law.config.copy_and_resolve_references().unlock()
  config.sampler.type = 'samplers.shuffled.Shuffled'
  sampler = build(config.sampler, 'sampler')
  tokens = law.some_tokens(3)
  keep = np.random.default_rng(4).random(tokens.shape[:2]) < 0.5

  @jit
  def run(params, frozen, known):
    draw, codec = Draw.create(0, jnp.arange(2)), law.codec(frozen)
    args = law.inputs, draw, codec, known
    return sample(law.model, params, sampler, *args).values

  found = np.asarray(run(law.params, law.frozen, Known(tokens, keep)))
  np.testing.assert_array_equal(found[keep], tokens[keep])
  assert (found[~keep] != tokens[~keep]).any()


def test_the_encoder_of_an_alignment_has_no_gradient():
  net = assemble.make_tokenizer(ALL['bar/tiny_tokenizer']())
  image = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 1)))

  @jit
  def gradient(image):
    params = nn.unbox(net.init(jax.random.key(0), image)['params'])

    def loss(params):
      out = net.apply({'params': params}, image, train=True)
      return out.losses['align']

    return jax.grad(loss)(params)

  found = gradient(image)
  largest = lambda tree: max(np.abs(x).max() for x in jax.tree.leaves(tree))
  assert largest(found['align'].pop('encoder')) == 0
  assert largest(found['align']) > 0 and largest(found['enc']) > 0
