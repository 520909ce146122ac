"""MAR's parts: what is dropped, what is padded, and steps that are grouped."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.build import build
from arvision.configs import common
from arvision.feeds.mask import Dropped
from arvision.heads.diffusion import Diffusion
from arvision.importers import table
from arvision.layouts import grid
from arvision.model import sample
from arvision.process import diffusion
from arvision.process.counts import ConstantSteps, Falling
from arvision.process.logits import LogitsFilter
from arvision.random import Draw, Picked
from arvision.runs.released import table_of
from arvision.samplers.random_order import RandomOrder
from arvision.structs import Query, Tokens
from arvision.tasks import assemble
from tests.configs import TINY

BATCH = 3


def some_draw(batch=BATCH):
  return Draw.create(0, jnp.arange(batch))


def scrambled(shapes, std=0.1):
  leaves, structure = jax.tree.flatten(nn.unbox(shapes))
  rng = np.random.default_rng(0)
  random = [rng.normal(0, std, x.shape).astype(np.float32) for x in leaves]
  return jax.tree.unflatten(structure, random)


@pytest.fixture(scope='module')
def mar():
  """A small model with random weights, its codec, and its config."""
  config = TINY['mar/tiny:B']()
  model, tokenizer = (
    make(config) for make in (assemble.make_model, assemble.make_tokenizer)
  )
  params = scrambled(assemble.trained_shapes(config))
  return model, tokenizer.bind({}), params, config


# Diffusion


def test_spaced_times_have_both_ends_and_do_not_repeat():
  for count in (2, 5, 50, 100, 250, 1000):
    times = diffusion.spaced(count)
    assert times[0] == 0 and times[-1] == 999
    assert (np.diff(times) > 0).all() and len(times) == count
  with pytest.raises(ValueError, match=r'config\.head\.counts'):
    diffusion.spaced(1001)


def test_a_spaced_schedule_passes_through_the_same_noise_levels():
  table = diffusion.sample_table(25)
  whole = diffusion.train_table().alphas_bar
  np.testing.assert_allclose(table.alphas_bar, whole[table.times], rtol=1e-9)


def test_sampling_may_start_below_the_last_time():
  table = diffusion.sample_table(10, highest=990)
  assert table.times[-1] == 990
  whole = diffusion.train_table().alphas_bar
  np.testing.assert_allclose(table.alphas_bar, whole[table.times], rtol=1e-9)
  # What an error in the noise is multiplied by.
  inverse = diffusion.train_table().numbers['data_inverse']
  assert inverse[999] == pytest.approx(20_291, abs=1)
  assert inverse[990] == pytest.approx(71.3, abs=0.1)


def test_a_step_back_with_the_true_noise_follows_the_posterior():
  table = diffusion.train_table()
  rng = np.random.default_rng(0)
  x, noise = (rng.normal(size=(4, 2)).astype(np.float32) for _ in range(2))
  at = diffusion.coefficients(table, np.array([10, 200, 500, 900]))
  noisy = diffusion.noised(at, x, noise)
  mean, log_variance = diffusion.predicted(at, noise, -np.ones_like(x), noisy)
  np.testing.assert_allclose(
    mean, diffusion.posterior_mean(at, x, noisy), atol=1e-3
  )
  np.testing.assert_allclose(
    log_variance, np.broadcast_to(at['log_smallest'], x.shape), rtol=1e-6
  )
  # What is said is true: no bits are lost.
  said = (noise, -np.ones_like(x))
  bits = diffusion.bound(at, said, x, noisy, np.zeros(4, bool))
  np.testing.assert_allclose(bits, 0, atol=1e-3)


# What is hidden


def test_how_many_are_hidden():
  feed = Dropped(group=4)
  uniform = np.random.default_rng(0).random(4000).astype(np.float32)
  count = np.asarray(feed.count(uniform, 256)).reshape(-1, 4)
  assert (count == count[:, :1]).all()
  assert count.min() == math.ceil(0.7 * 256) and count.max() <= 256
  # The mean of the cut normal law is 0.867.
  assert count.mean() / 256 == pytest.approx(0.867 + 0.5 / 256, abs=5e-3)


def test_rows_that_are_visible_always_fit():
  layout = grid.whole(4, 4, prefix=3)
  feed = Dropped(group=1)
  values = np.zeros((64, 16, 2), np.float32)
  slots, targets = feed.train(Tokens(values), layout, None, some_draw(64))
  visible = (~np.asarray(slots.masked)).sum(1)
  assert slots.max_unmasked == 3 + 16 - 12
  assert visible.max() <= slots.max_unmasked and visible.min() >= 3
  np.testing.assert_array_equal(targets.weight, slots.masked[:, 3:])


def test_padding_changes_nothing(mar):
  """The encoder is given as many rows as are visible, or more."""
  model, codec, params, config = mar
  layout = model.layout
  rng = np.random.default_rng(1)
  values = rng.normal(size=(BATCH, layout.tokens, codec.spec.parts))
  order = np.tile(np.arange(layout.tokens), (BATCH, 1))
  masked = rng.permuted(order, axis=1) < 13
  inputs = {'label': jnp.arange(BATCH)}

  @jax.jit
  def z(params, visible):
    step = layout.runs[0].step(0)
    slots = model.feed.slots(jnp.float32(values), step, layout, None, masked)
    slots = slots.replace(max_unmasked=len(visible))
    none = jnp.zeros(BATCH, bool)
    return model.apply({'params': params}, slots, inputs, none, method='hidden')

  exact = z(params, np.zeros(layout.prefix + 3))[0]
  for more in (1, 4, 13):
    padded = z(params, np.zeros(layout.prefix + 3 + more))[0]
    np.testing.assert_allclose(padded, exact, atol=2e-5)


# Sampling


@pytest.mark.parametrize('steps', [1, 5, 64, 256, 300])
@pytest.mark.parametrize('buckets', [1, 8])
def test_programs_hold_all_steps(steps, buckets):
  sampler = RandomOrder(steps=steps, buckets=buckets)
  counts = np.array(sampler.counts(256))
  programs = list(sampler.programs(256))
  assert len(programs) <= buckets
  assert [first for first, *_ in programs[1:]] == [
    end for _, end, *_ in programs[:-1]
  ]
  assert (programs[0][0], programs[-1][1]) == (0, steps)
  for first, end, known, drawn in programs:
    assert (256 - counts[first:end] <= known).all()
    assert (counts[first:end] - counts[first + 1 : end + 1] <= drawn).all()


def test_the_number_of_programs_changes_no_sample(mar):
  model, codec, params, config = mar
  inputs = {'label': jnp.arange(BATCH)}

  def tokens(buckets):
    sampler = dataclasses.replace(
      build(config.sampler, 'sampler'), steps=6, buckets=buckets
    )
    run = jax.jit(
      lambda p: sample(model, p, sampler, inputs, some_draw(), codec).values
    )
    return np.asarray(run(params))

  one = tokens(1)
  np.testing.assert_allclose(tokens(6), one, atol=1e-3 * np.abs(one).max())


def test_guidance_follows_what_is_known():
  schedule = build(
    common.block(type='process.guidance.Linear', end=3.0), 'guidance'
  )
  sampler = RandomOrder(steps=4, guidance=schedule)
  scales = [float(sampler.scale(n, 16)) for n in sampler.counts(16)[1:]]
  np.testing.assert_allclose(scales, [1.25, 1.625, 2.25, 2.875])


def test_picked_draws_are_those_of_the_place():
  draw = some_draw()
  all_ = draw.normal('noise', (16, 4))
  place = np.array([[3, 1], [0, 15], [7, 7]])
  got = Picked(draw, place, 16).normal('noise', (2, 4))
  np.testing.assert_array_equal(
    got, np.asarray(all_)[np.arange(3)[:, None], place]
  )


def test_annealed_steps_are_those_of_their_count():
  """One program for all counts draws what a program of each would."""
  head = Diffusion(channels=2, width=16, depth=1, counts=Falling(6, 2))
  z = np.random.default_rng(0).normal(size=(BATCH, 2, 1, 8)).astype(np.float32)
  query = Query(steps=4)
  init = jax.eval_shape(
    lambda: head.init(
      jax.random.key(0), z, z[..., 0, :2], some_draw(), query, method='loss'
    )
  )
  variables = scrambled(init, 0.3)

  def drawn(head, query):
    plain = lambda field, level=None: field
    return head.apply(
      variables, z, some_draw(), plain, LogitsFilter(), query, method='sample'
    )

  traced = jax.jit(lambda s: drawn(head, query.replace(step=s)))
  for s, count in enumerate((6, 4, 3, 2)):
    assert head.counts(s, 4) == count
    alone = drawn(head.clone(counts=ConstantSteps(count)), query)
    np.testing.assert_allclose(traced(s), alone, rtol=1e-4, atol=1e-4)


def test_ids_cannot_be_filtered_where_there_are_none():
  head = Diffusion(channels=2, width=16, depth=1)
  with pytest.raises(ValueError, match='latents have no ids'):
    head.apply(
      {}, None, None, None, LogitsFilter(top_k=3), None, method='sample'
    )


def test_another_layout_is_refused(mar):
  config = mar[3].copy_and_resolve_references()
  with config.unlocked():
    config.layout.type = 'layouts.grid.raster'
  with pytest.raises(ValueError, match=r'layouts\.grid\.whole'):
    assemble.trained_shapes(config)


@pytest.mark.parametrize('fields', [{'steps': 0}, {'buckets': 0}])
def test_samplers_take_steps(fields):
  with pytest.raises(ValueError, match='=0: wanted 1 to 10000'):
    RandomOrder(**fields)


@pytest.mark.parametrize('fields', [{'lowest': 1.0}, {'group': 0}])
def test_something_is_shown(fields):
  with pytest.raises(
    ValueError, match=rf'Dropped\.{[*fields][0]}=[01].*: wanted '
  ):
    Dropped(**fields)


def test_halves_of_different_sizes_go_out_and_in():

  config = TINY['mar/tiny:B']()
  with config.unlocked():
    mlp = config.backbone.block.mlp.copy_and_resolve_references()
    mlp.hidden = 20
    config.backbone.body.update(width=24, heads=3, mlp=mlp)
  form, shapes = table_of(config), assemble.trained_shapes(config)
  params = scrambled(shapes)
  weights = table.to_weights(form, params, ((1, 1),))
  assert weights['decoder_embed.weight'].shape == (24, 32)
  assert weights['decoder_blocks.0.mlp.fc1.weight'].shape == (20, 24)
  back = table.to_params(form, weights, shapes)
  jax.tree.map(np.testing.assert_array_equal, params, back)
