"""Infinity's bits, its pyramid and its self-correction."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.configs.infinity import parts, t2i
from arvision.errors import ConfigError
from arvision.feeds.residual import Residual
from arvision.heads.categorical import Categorical
from arvision.layers.position import InterpolatedRotary, Rotary, rotations
from arvision.layers.text import PooledCaption
from arvision.layouts.scales import scales
from arvision.model import sample
from arvision.process.guidance import Constant
from arvision.process.logits import LogitsFilter
from arvision.quantizers.bsq import BSQ
from arvision.quantizers.lookup import Lookup, entropy_loss, normalized
from arvision.random import Draw, Replay
from arvision.samplers.entity import EntityAR
from arvision.structs import Query, Slots, Tokens
from arvision.tasks import fit
from arvision.tokenizers.bitwise import BitwisePyramid
from tests.configs import TINY
from tests.laws.test_generators import Case

SCALES, BITS = (1, (2, 3)), 4
TRAINING = Draw.create(3, jnp.arange(2)).replace(progress=0.5)


class Identity(nn.Module):
  """Images are latents, and latents images."""

  z_channels: int = BITS

  def __call__(self, x, train=False):
    return x


BITWISE = functools.partial(BSQ, channels=BITS)


def codec(quantizer=BITWISE, scales=SCALES, **fields):
  module = BitwisePyramid(
    encoder=Identity,
    decoder=Identity,
    quantizer=quantizer,
    scales=scales,
    **fields,
  )
  height, width = module.latent_grid
  shape = (2, height, width, BITS)
  image = jnp.float32(np.random.default_rng(0).normal(size=shape))
  return module.bind(module.init(jax.random.key(0), image)), image


def test_codes_are_corners_of_the_unit_sphere():
  net = BSQ(channels=BITS)
  z = jnp.array([[0.3, -2.0, 0.0, 5.0]])
  assert net.quantize(z).tolist() == [[1, 0, 0, 1]]
  vectors = net.embed(net.quantize(z))
  np.testing.assert_array_equal(vectors, [[0.5, -0.5, -0.5, 0.5]])
  out = net(z)
  np.testing.assert_allclose(out.vectors, vectors, atol=1e-7)
  wanted = 0.25 * jnp.mean((normalized(z) - vectors) ** 2)
  np.testing.assert_allclose(out.losses['commitment'], wanted, rtol=1e-6)
  # Straight through the projection onto the sphere.
  slope = jax.jacobian(lambda z: net(z).vectors)(z)
  np.testing.assert_allclose(slope, jax.jacobian(normalized)(z), atol=1e-6)


def test_the_entropy_of_bits_is_that_of_all_codes():
  """Where bits are independent over the batch, too."""
  net = BSQ(channels=BITS, entropy=1.0, inverse_temperature=3.0)
  codes = net.embed(jnp.arange(2**BITS)[:, None] >> np.arange(BITS) & 1)
  z = codes * jnp.array([0.1, 0.5, 1.0, 2.0])
  far = -2 * z @ codes.T  # but for numbers that are the same for all codes
  wanted = entropy_loss(far, 2 / 3)
  np.testing.assert_allclose(net.spread(z)['entropy'], wanted, atol=3e-4)
  even, same = codes, jnp.tile(codes[:1], (16, 1))
  net = BSQ(channels=BITS)
  assert net.spread(even)['entropy'] < -0.25 < net.spread(same)['entropy']
  assert BSQ(channels=BITS, entropy=0.0).spread(z) == {}


@pytest.mark.parametrize('patch', [1, 2])
def test_merge_and_view_are_the_steps_of_the_quantiser(patch):
  bound, image = codec(patch=patch)

  @jax.jit
  def steps(image):
    values, sums, _ = bound.quantize(image)
    canvas, totals, views = bound.canvas(2), [], []
    for s, own in enumerate(values):
      canvas = bound.merge(canvas, own, s)
      totals.append(canvas)
      views.append(bound.view(canvas, s))
    latent = bound.to_latent(Tokens(jnp.concatenate(values, 1)))
    alone = bound.view(bound.merge(bound.canvas(2), values[-1], s), s)
    return values, sums, totals, views, latent, alone, bound.embed(values[-1])

  values, sums, totals, views, latent, alone, last = steps(image)
  for own, view, grid in zip(values, views, bound.grids):
    assert own.shape == view.shape == (2, np.prod(grid), BITS * patch**2)
  close = functools.partial(np.testing.assert_allclose, atol=1e-6)
  close(jnp.stack(totals), jnp.stack(sums))
  close(latent, totals[-1])
  close(last, alone)  # a token's bits are its places


def test_every_scale_is_straight_through():
  bound, image = codec(scales=(1, 2))

  weight = jnp.float32(np.random.default_rng(1).normal(size=image.shape))
  first = lambda x: normalized(jnp.mean(x, (1, 2), keepdims=True))

  @jax.jit
  def run(image):
    def total(image):
      vectors, _ = bound.quantized(image)
      return jnp.sum(vectors * weight), vectors

    _, sums, _ = bound.quantize(image)
    rest = lambda x: normalized(x - sums[0])
    wanted = jax.grad(lambda x: jnp.sum((first(x) + rest(x)) * weight))(image)
    return *jax.grad(total, has_aux=True)(image), sums, wanted

  gradient, vectors, sums, wanted = run(image)
  np.testing.assert_allclose(vectors, sums[-1], atol=1e-6)
  np.testing.assert_allclose(gradient, wanted, atol=1e-5)


@pytest.mark.parametrize('patch', [1, 2])
def test_targets_correct_the_flips_of_smaller_scales(patch):
  plain, image = codec(patch=patch)
  bound, _ = codec(patch=patch, flips=1.0, flipped_scales=1)
  stored = bound.store(image)
  assert stored.shape == (2, image.shape[1] * image.shape[2], BITS)
  tokens = bound.visit(stored, TRAINING)
  clean = plain.encode(image)
  shown, values = np.asarray(tokens.shown), np.asarray(tokens.values)
  np.testing.assert_array_equal(values[:, :1], clean.values[:, :1])
  flipped = shown != values
  assert flipped[:, :1].any() and not flipped[:, 1:].any()
  # The targets of a scale are the bits of what the shown smaller ones lack.
  canvas = plain.merge(plain.canvas(2), tokens.shown[:, :1], 0)
  last, _ = codec(patch=patch, scales=SCALES[1:])
  rest = last.encode(image - canvas)
  np.testing.assert_array_equal(values[:, 1:], rest.values)


def test_flips_are_of_training_alone():
  plain, image = codec()
  bound, _ = codec(flips=0.3)
  clean = plain.encode(image).values
  for draw in (TRAINING.replace(progress=None), TRAINING):
    tokens = plain.visit(plain.store(image), draw)
    np.testing.assert_array_equal(tokens.given, clean)
  tokens = bound.visit(bound.store(image), TRAINING.replace(progress=None))
  np.testing.assert_array_equal(tokens.given, clean)


def test_no_flips_are_the_plain_pyramid():
  plain, image = codec()
  bound, _ = codec(flips=0.3, flipped_scales=0)
  tokens = bound.visit(bound.store(image), TRAINING)
  np.testing.assert_array_equal(tokens.values, plain.encode(image).values)
  np.testing.assert_array_equal(tokens.values, tokens.shown)


def test_a_share_of_the_bits_is_flipped():
  bound, image = codec(scales=(24,), flips=0.3)
  many = jnp.tile(bound.store(image[:1]), (20, 1, 1))
  draw = Draw.create(0, jnp.arange(20)).replace(progress=0.0)
  tokens = bound.visit(many, draw)
  share = (tokens.values != tokens.shown).mean((1, 2))
  assert share.max() < 0.32 and 0.1 < share.mean() < 0.2
  assert len(np.unique(np.round(share, 2))) > 8


def test_flips_that_cannot_be_are_refused_by_key():
  bound, image = codec(flips=0.3)
  with pytest.raises(ValueError, match=r'tokenizer\.flips=0\.3: flips need'):
    bound.visit(bound.encode(image).values, TRAINING)
  lookup = functools.partial(Lookup, vocab_size=8, channels=BITS, std=1.0)
  with pytest.raises(ValueError, match='ids of 8 values'):
    codec(lookup, flips=0.3)


def test_bits_of_a_token_are_independent():
  head = Categorical(2, parts=3, std=1.0)
  z = jax.random.normal(jax.random.key(1), (2, 5, 1, 8))
  head = head.bind(head.init(jax.random.key(0), z, Query(), method='field'))
  logits = head.field(z, Query())
  assert logits.shape == (2, 5, 3, 2)
  targets = jnp.argmax(logits, -1)
  loss, metrics = head.loss(z, targets, TRAINING, Query())
  one, two = np.moveaxis(np.float64(logits), -1, 0)
  wanted = np.log1p(np.exp(-np.abs(one - two)))  # of the likelier bit
  np.testing.assert_allclose(loss, wanted, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(metrics['token_accuracy'], 1)
  greedy = LogitsFilter(temperature=0.0)
  found = head.sample(z, TRAINING, lambda x: x, greedy, Query())
  np.testing.assert_array_equal(found, targets)


def test_tokens_weigh_by_the_area_of_their_scale():
  bound, image = codec()
  tokens = bound.encode(image)
  layout = scales(SCALES)
  for power, wanted in ((0.0, 1.0), (0.5, 6**-0.5), (1.0, 1 / 6)):
    _, targets = Residual(power).train(tokens, layout, bound, TRAINING)
    np.testing.assert_allclose(targets.weight, [[1.0] + 6 * [wanted]])


@pytest.mark.parametrize(
  ('anchor', 'wanted'),
  [
    ('rounded', [0, 2, 4, 5]),  # 0, 1.75, 3.5, 5.25: halves to even numbers
    ('corner', [0, 1.75, 3.5, 5.25]),
    ('index', [0, 1, 2, 3]),
    ('centre', [0.375, 2.125, 3.875, 5.625]),
  ],
)
def test_coordinates_are_in_units_of_a_grid(anchor, wanted):
  layout = scales(((1, 1), (1, 4)), anchor=anchor, units=(3, 7))
  np.testing.assert_array_equal(layout.coords[1:, 1], wanted)


def test_steps_have_temperatures_of_their_own():
  sampler = EntityAR(temperatures=(1.0, 0.0), greedy_steps=(0,))
  assert [sampler.filter_of(s, 2).temperature for s in (0, 1)] == [0.0, 0.0]
  sampler = EntityAR(temperatures=(1.0, 0.5))
  assert [sampler.filter_of(s, 2).temperature for s in (0, 1)] == [1.0, 0.5]
  with pytest.raises(ValueError, match='temperatures has 2 entries for 3'):
    sampler.filter_of(0, 3)


def test_captions_may_be_padded_on_either_side():
  net = PooledCaption(length=4, channels=6, width=8, heads=2, std=0.5)
  text = jax.random.normal(jax.random.key(0), (1, 2, 6))
  none, rows = jnp.zeros((1, 2, 6)), jnp.array([[True, True, False, False]])
  right = {'text': jnp.concatenate([text, none], 1), 'text_valid': rows}
  left = {'text': jnp.concatenate([none, text], 1), 'text_valid': ~rows}
  no = jnp.zeros(1, bool)
  params = net.init(jax.random.key(1), right, null=no)
  for null in (no, ~no):
    a, b = (net.apply(params, x, null=null) for x in (right, left))
    close = functools.partial(np.testing.assert_allclose, atol=1e-6)
    close(a.modulation, b.modulation)
    close(a.memory[:, :2], b.memory[:, 2:])
  empty = {**right, 'text_valid': jnp.zeros((1, 4), bool)}
  cond = net.apply(params, empty, null=no)
  assert np.isfinite(cond.modulation).all() and cond.memory_valid.all()


def test_layers_that_are_not_there_are_not_guided():
  """What guidance behind layers computes: tests/parity/test_options.py."""
  law = Case(TINY['infinity/tiny']())
  sampler = EntityAR(
    Constant(2.0),
    LogitsFilter(temperature=0.0),
    site='layers',
    guided_layers=(-1,),
  )
  codec, draw = law.codec(law.frozen), Draw.create(0, jnp.arange(2))

  fit.check_sampler(law.model, sampler)
  for wrong in ({'guided_layers': ()}, {'site': 'nowhere'}):
    with pytest.raises(ConfigError, match=r'config\.sampler\.site'):
      fit.check_sampler(law.model, dataclasses.replace(sampler, **wrong))
  far = dataclasses.replace(sampler, guided_layers=(-3,))
  with pytest.raises(ValueError, match='wanted -2 to -1'):
    jax.eval_shape(
      lambda p: sample(law.model, p, far, law.inputs, draw, codec), law.params
    )


def test_bits_may_be_joined_to_ids():
  bits, z = BSQ(channels=BITS), jnp.float32([[0.3, -2.0, 0.0, 5.0]])
  for ids, wanted in ((1, [9]), (2, [[2, 1]])):
    net = BSQ(channels=BITS, ids=ids)
    assert net.quantize(z).tolist() == wanted
    np.testing.assert_array_equal(net.embed(net.quantize(z)), bits(z).vectors)
    assert net.size**net.parts == 2**BITS and net.radices == bits.radices
  for wrong in ({'ids': 3}, {'channels': 32, 'ids': 1}):
    with pytest.raises(ValueError, match='quantizer.ids='):
      _ = BSQ(**{'channels': BITS, **wrong}).size


@pytest.mark.parametrize('patch', [1, 2])
def test_joined_bits_are_flipped_like_bits(patch):
  """With equal draws: the ids are those of the flipped bits."""
  joined = functools.partial(BITWISE, ids=1)
  count = patch**2

  def visited(quantizer):
    bound, image = codec(quantizer, patch=patch, flips=1.0)
    shapes = [(2, h * w, count, BITS) for h, w in bound.grids]
    random = np.random.RandomState(5)
    draws = {'share': random.uniform(size=(2, len(shapes)))}
    for s, shape in enumerate(shapes):
      uniform = random.uniform(size=shape)
      if quantizer is BITWISE:  # all of a channel before the next
        uniform = uniform.swapaxes(2, 3).reshape(*shape[:2], -1)
      elif patch == 1:
        uniform = uniform[:, :, 0]
      draws[f'flip_{s}'] = uniform
    tokens = bound.visit(bound.store(image), Replay(draws, 0.5, size=2))
    return tokens, bound.embed(tokens.values), bound.embed(tokens.shown)

  (a, *of_ids), (b, *of_bits) = visited(joined), visited(BITWISE)
  assert a.values.shape == b.values.shape[:2] + (count,) * (patch > 1)
  assert (a.values != a.shown).any()
  for own, wanted in zip(of_ids, of_bits):
    np.testing.assert_array_equal(own, wanted)


def test_published_ratios_have_scales():
  assert len(parts.RATIOS) == 15
  for ratio, grids in parts.RATIOS.items():
    assert grids[0] == (1, 1) and len(grids) == 13
    for side in parts.COUNTS:
      height, width = parts.rectangles(side, ratio)[-1]
      assert abs(height / width - float(ratio)) < 0.01
  assert parts.rectangles(512, '1.000')[-1] == (32, 32)
  wide = t2i.get_config('2b_512@0.750')
  assert wide.data.size == (432, 576) and wide.layout.units == (54, 72)
  assert wide.tokenizer.scales == wide.layout.scales
  with pytest.raises(ValueError, match="no ratio '0.7' of height and width"):
    t2i.get_config('2b_512@0.7')


def test_rotations_between_whole_coordinates_are_interpolated():
  layout = scales(((1, 1), (3, 2)), anchor='ends', units=(8, 6))
  np.testing.assert_array_equal(layout.coords[1::2, 0], [0, 3.5, 7])
  np.testing.assert_array_equal(layout.coords[1:3, 1], [0, 5])
  slots = Slots(None, layout.index)
  plain, between = (
    np.asarray(kind()(layout, slots, 8))
    for kind in (Rotary, InterpolatedRotary)
  )
  ends = [0, 1, 2, 5, 6]
  np.testing.assert_allclose(between[:, ends], plain[:, ends], atol=1e-6)
  halves = rotations(np.float32([[3, 0], [4, 0]]), 8, 10000.0).mean(1)
  np.testing.assert_allclose(between[:, 3], halves, atol=1e-6)


def test_a_run_may_be_sampled_at_another_ratio():
  config = TINY['infinity/tiny']()
  law = Case(config)
  tall = scales(((1, 1), (2, 1), (5, 3)), anchor='rounded', units=(8, 5))
  sampler = EntityAR(layout=tall)
  tokenizer = sampler.tokenizer(law.tokenizer)

  def run(params, frozen):
    draw, own = Draw.create(0, jnp.arange(2)), tokenizer.bind(frozen)
    tokens = sample(law.model, params, sampler, law.inputs, draw, own)
    return tokens.values, own.decode(tokens)

  values, image = jax.eval_shape(run, law.params, law.frozen)
  assert values.shape == (2, 18, 8) and image.shape == (2, 10, 6, 1)


def test_positions_that_are_added_again_must_be_stated():
  config = TINY['infinity/tiny']().copy_and_resolve_references().unlock()
  config.backbone.body = {'type': 'backbones.bodies.Repeated'}
  del config.backbone.position
  with pytest.raises(ValueError, match=r'state config\.backbone\.position'):
    Case(config)
