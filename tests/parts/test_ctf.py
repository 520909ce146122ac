"""Clusters of codes, and the stage that samples codes given them (CTF)."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from arvision.configs.common import block
from arvision.errors import ConfigError
from arvision.quantizers.clusters import KMeans, RandomClusters
from arvision.random import Draw
from arvision.structs import Tokens
from arvision.tasks import assemble
from arvision.tasks.base import Averages
from tests.configs import ALL

CLUSTERS, CODES, BATCH = 8, 64, 3
KEY = jax.random.key(0)
IMAGE = np.random.default_rng(1).uniform(-1, 1, (BATCH, 8, 8, 1))
LABEL = np.array([3, 1, 4], np.int32)
DRAW = Draw.create(7, np.arange(BATCH))
DRAW_1 = Draw.create(7, np.array([1]))
OTHER_DRAW = Draw.create(8, np.arange(BATCH))


def numbers(tree, std=0.5):
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: rng.normal(0, std, x.shape).astype(np.float32), tree
  )


@functools.cache
def weights():
  """Random weights, and clusters of eight codes each."""
  shapes = assemble.trained_shapes(ALL['ctf/tiny_tokenizer']())
  params = numbers(shapes)
  params['cluster_fixed'] = np.float32(np.arange(CODES) % CLUSTERS)
  return params


def codec(cluster=None, **fields):
  config = ALL['ctf/tiny_tokenizer']()
  made = assemble.make_tokenizer(config).clone(**fields)
  params = weights()
  if cluster is not None:
    params = {**params, 'cluster_fixed': np.float32(cluster)}
  return made.bind({'params': params})


def plain():
  """The tokenizer of codes, with the same weights."""
  params = weights()
  own = {k: v for k, v in params.items() if not k.startswith(('fine', 'clus'))}
  config = ALL['llamagen/tiny_tokenizer']()
  return assemble.make_tokenizer(config).bind({'params': own})


@pytest.fixture(scope='module')
def found():
  """What the tokenizer of clusters and that of codes return, of one program."""
  label, null = {'label': LABEL}, jnp.zeros(BATCH, bool)

  def everything(image):
    made, other = codec(), plain()
    coarse, codes = made.encode(image).values, other.encode(image).values
    sampled = made.refine(coarse, DRAW, label)
    changed = coarse.at[:, 5].set((coarse[:, 5] + 1) % CLUSTERS)
    alone = codec(cluster=np.arange(CODES)[::-1], clusters=CODES)
    return {
      'coarse': coarse,
      'codes': codes,
      'means': made.embed(coarse),
      'table': other.quant.codes,
      'sampled': sampled,
      'single': made.refine(coarse[1:2], DRAW_1, {'label': LABEL[1:2]}),
      'other_seed': made.refine(coarse, OTHER_DRAW, label),
      'images': made.decode(Tokens(coarse), DRAW, label),
      'images_of_codes': other.decode(Tokens(sampled)),
      'logits': made._logits(coarse, label, null),
      'changed': made._logits(changed, label, null),
      'loss': made.fine_loss(image, label, DRAW),
      'unguided': made.refine(coarse, DRAW),
      'unguided_9': codec(guidance=9.0).refine(coarse, DRAW),
      'scale_0': codec(guidance=0.0).refine(coarse, DRAW, label),
      'scale_3': codec(guidance=3.0).refine(coarse, DRAW, label),
      'alone': alone.encode(image).values,
      'alone_refined': alone.refine(alone.encode(image).values, DRAW, label),
    }

  fast = {'xla_backend_optimization_level': 0}
  made = jax.jit(everything, compiler_options=fast)(jnp.float32(IMAGE))
  return jax.tree.map(np.asarray, made)


# ------------------------------------------------------------------- clusters


def test_groups_that_lie_apart_are_the_clusters():
  rng = np.random.default_rng(0)
  of = rng.permutation(np.arange(60) % 5)
  codes = 10 * np.eye(5)[of] + rng.normal(0, 0.1, (60, 5))
  found = np.asarray(KMeans(20)(KEY, jnp.float32(codes), 5))
  pairs = {(int(a), int(b)) for a, b in zip(of, found)}
  assert len(pairs) == 5 and {b for _, b in pairs} == set(range(5))


def test_k_means_end_where_every_code_is_nearest_to_the_mean_of_its_cluster():
  codes = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
  own = np.asarray(KMeans()(KEY, jnp.asarray(codes), 16))
  assert {*own} == {*range(16)}
  means = np.stack([codes[own == k].mean(0) for k in range(16)])
  far = ((codes[:, None] - means) ** 2).sum(-1)
  np.testing.assert_array_equal(far.argmin(1), own)
  # A control: random clusters are far from that, but of equal sizes.
  random = np.asarray(RandomClusters()(KEY, codes, 16))
  assert {*np.bincount(random)} == {12, 13}
  means = np.stack([codes[random == k].mean(0) for k in range(16)])
  spread = ((codes - means[random]) ** 2).sum(-1).mean()
  assert spread > 2 * far.min(1).mean()


def test_no_cluster_is_empty():
  """Of as many clusters as codes each has one, equal ones aside."""
  codes = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
  assert sorted(KMeans(3)(KEY, jnp.asarray(codes), 12)) == list(range(12))
  equal = jnp.zeros((6, 3))
  assert {int(k) for k in KMeans(3)(KEY, equal, 4)} == {0}


# ------------------------------------------------------------------ tokenizer


def test_tokens_are_the_clusters_of_codes(found):
  np.testing.assert_array_equal(found['coarse'], found['codes'] % CLUSTERS)
  spec = codec().spec
  assert (spec.size, spec.parts, spec.grids) == (CLUSTERS, 1, ((4, 4),))
  table = found['table']
  means = np.stack([table[k::CLUSTERS].mean(0) for k in range(CLUSTERS)])
  np.testing.assert_allclose(found['means'], means[found['coarse']], atol=1e-6)


def test_sampled_codes_are_members_and_depend_on_their_keys_alone(found):
  sampled = found['sampled']
  np.testing.assert_array_equal(sampled % CLUSTERS, found['coarse'])
  assert (sampled != found['other_seed']).any()
  np.testing.assert_array_equal(found['single'], sampled[1:2])
  np.testing.assert_allclose(
    found['images'], found['images_of_codes'], atol=1e-6
  )


def test_clusters_of_one_code_are_codes_under_other_names(found):
  np.testing.assert_array_equal(found['alone'], CODES - 1 - found['codes'])
  np.testing.assert_array_equal(found['alone_refined'], found['codes'])


def test_every_place_sees_all_clusters_in_one_pass(found):
  moved = np.abs(found['logits'] - found['changed']).max((0, 2))
  assert (moved > 1e-4).all()


def test_the_loss_is_that_of_the_members(found):
  loss, metrics, coarse = found['loss']
  np.testing.assert_array_equal(coarse, found['coarse'])
  logits, codes = np.float64(found['logits']), found['codes']
  for b, t in np.ndindex(codes.shape):
    members = logits[b, t, codes[b, t] % CLUSTERS :: CLUSTERS]
    wanted = np.log(np.exp(members - logits[b, t, codes[b, t]]).sum())
    np.testing.assert_allclose(loss[b, t], wanted, rtol=2e-5, atol=1e-5)
    best = members.argmax() == codes[b, t] // CLUSTERS
    assert metrics['token_accuracy'][b, t] == best


def test_guidance_moves_away_from_no_condition(found):
  """A scale of 0 is no label at all; without a label nothing is guided."""
  np.testing.assert_array_equal(found['scale_0'], found['unguided'])
  np.testing.assert_array_equal(found['unguided_9'], found['unguided'])
  assert (found['scale_3'] != found['sampled']).any()
  assert (found['scale_0'] != found['sampled']).any()


def test_settings_of_the_fine_stage_change_no_parameter():
  assert {*type(assemble.make_tokenizer(ALL['ctf/tiny']())).adjustable} == {
    'guidance',
    'logits_filter',
  }


@pytest.mark.parametrize(
  ('fields', 'said'),
  [
    ({'clusters': CODES + 1}, 'clusters=65: wanted at most 64'),
    (
      {'quantizer': block(type='quantizers.kl.KL', channels=8)},
      'has no table of codes',
    ),
  ],
)
def test_what_cannot_be_clustered_is_refused(fields, said):
  config = ALL['ctf/tiny_tokenizer']().copy_and_resolve_references().unlock()
  config.tokenizer.encoder.z_channels = 16
  for name, value in fields.items():
    config.tokenizer[name] = value
  with pytest.raises(Exception, match=said):
    assemble.trained_shapes(config)


# ------------------------------------------------------------------- training


@dataclasses.dataclass(frozen=True)
class Data:
  shape: tuple[int, int, int] = (8, 8, 1)
  num_classes: int = 10


def test_training_copies_the_tokenizer_and_moves_the_fine_stage_alone(found):
  config = ALL['ctf/tiny_tokenizer']()
  own = {'quant', 'enc', 'dec', 'quant_conv', 'post_quant_conv'}
  theirs = {k: v for k, v in weights().items() if k in own}
  task = assemble.make_task(
    config, Data(), optax.sgd(0.1), {'teacher': {'params': theirs}}, steps=4
  )
  task = dataclasses.replace(task, ema=Averages(()))
  state = nn.unbox(jax.jit(task.init)(KEY))
  before = state.params['tokenizer']
  for name, tree in theirs.items():
    jax.tree.map(np.testing.assert_array_equal, before[name], tree)
  cluster = np.asarray(before['cluster_fixed'])
  assert {*cluster} == {*range(CLUSTERS)}
  state, metrics = jax.jit(task.step)(
    state, task.frozen, {'image': IMAGE, 'label': LABEL}
  )
  # The head starts at zero, so the members of a cluster are equally likely.
  sizes, codes = np.bincount(cluster.astype(int)), found['codes']
  wanted = np.log(sizes[cluster[codes].astype(int)]).mean()
  np.testing.assert_allclose(metrics['loss'], wanted, rtol=1e-5)
  after = state.params['tokenizer']
  moved = {
    name
    for name, tree in before.items()
    if any(
      (x != y).any()
      for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(after[name]))
    )
  }
  assert moved == {
    'fine_head'
  }  # what lies before a head of zeros has no gradient


def test_a_teacher_of_other_sizes_is_refused():
  config = ALL['ctf/tiny_tokenizer']().copy_and_resolve_references().unlock()
  config.tokenizer.encoder.ch = 16
  own = {'quant', 'enc', 'dec', 'quant_conv', 'post_quant_conv'}
  theirs = {k: v for k, v in weights().items() if k in own}
  task = assemble.make_task(
    config, Data(), frozen={'teacher': {'params': theirs}}
  )
  with pytest.raises(ConfigError, match='teacher and config.tokenizer do not'):
    jax.eval_shape(task.init, KEY)
