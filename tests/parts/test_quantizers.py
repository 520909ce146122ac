"""Every quantiser in every arrangement, between halves without parameters."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from arvision.quantizers.bernoulli import Bernoulli
from arvision.quantizers.bsq import BSQ
from arvision.quantizers.fsq import FSQ, SymmetricFSQ
from arvision.quantizers.kl import KL
from arvision.quantizers.levels import Levels
from arvision.quantizers.lfq import LFQ, entropies
from arvision.quantizers.lookup import AngleLookup, Lookup, UnitLookup
from arvision.random import Draw
from arvision.structs import Tokens
from arvision.tasks.base import TrainState
from arvision.tasks.tokenizer import TrainTokenizer
from arvision.tokenizers.aligned import AlignedPatches
from arvision.tokenizers.autoencoder import Autoencoder, Patched
from arvision.tokenizers.bitwise import BitwisePyramid
from arvision.tokenizers.pyramid import Pyramid
from arvision.tokenizers.residual import ResidualPyramid

CHANNELS, SIDE = 4, 4
CODES = {'vocab_size': 8, 'channels': CHANNELS, 'std': 1.0}
QUANTIZERS = {
  'lookup': functools.partial(Lookup, entropy=0.1, **CODES),
  'unit': functools.partial(UnitLookup, **CODES),
  'angle': functools.partial(AngleLookup, **CODES),
  'kl': functools.partial(KL, channels=CHANNELS, scale=0.5, shift=0.25),
  'levels': functools.partial(Levels, channels=CHANNELS, levels=5),
  'lfq': functools.partial(LFQ, channels=CHANNELS, entropy=0.1),
  'lfq, 2 ids': functools.partial(LFQ, channels=CHANNELS, ids=2),
  'bernoulli': functools.partial(Bernoulli, channels=CHANNELS, code=0.1),
  'bernoulli, 2 ids': functools.partial(Bernoulli, channels=CHANNELS, ids=2),
  'fsq': functools.partial(FSQ, levels=(5, 4, 3, 2)),
  'bsq': functools.partial(BSQ, channels=CHANNELS),
  'fsq, 2 ids': functools.partial(FSQ, levels=(2, 3, 3, 2), ids=2),
  'levels from -1 to 1': functools.partial(
    SymmetricFSQ, levels=(2, 2, 2, 2), ids=4
  ),
}
SHAPES = {
  'grid': functools.partial(Autoencoder, grid=(SIDE, SIDE)),
  'line': functools.partial(Autoencoder, grid=(1, SIDE)),
  'patches': functools.partial(Patched, grid=(SIDE, SIDE), patch=2),
  'bits': functools.partial(AlignedPatches, grid=(SIDE, SIDE), patch=2),
  'pyramid': functools.partial(Pyramid, scales=(1, 2, SIDE)),
  'residual': functools.partial(
    ResidualPyramid, scales=(1, 2, SIDE), phi_ratio=0.0
  ),
  'bitwise': functools.partial(BitwisePyramid, scales=(1, 2, SIDE), patch=2),
}


class Identity(nn.Module):
  """Images are latents, and latents images."""

  z_channels: int

  def __call__(self, x, train=False):
    return x


PAIRS = [(name, shape) for shape in SHAPES for name in QUANTIZERS]
# The others are slow tests; codes, KL and levels have tests of their own.
FEW = [
  ('lfq, 2 ids', 'residual'),
  ('fsq', 'patches'),
  ('kl', 'residual'),
  ('bsq', 'bitwise'),
  ('levels from -1 to 1', 'bits'),
]


@pytest.mark.parametrize(
  ('name', 'shape'),
  [
    pytest.param(*p, marks=[] if p in FEW else [pytest.mark.slow])
    for p in PAIRS
  ],
)
def test_every_quantiser_in_every_arrangement(name, shape):
  quantizer = QUANTIZERS[name]
  moments = quantizer.func.moments * CHANNELS
  half = functools.partial(Identity, z_channels=moments)
  module = SHAPES[shape](
    encoder=half, quantizer=quantizer, decoder=half, quant_kernel=0
  )
  grid, spec = module.latent_grid, module.spec
  image = np.random.RandomState(0).normal(size=(2, *grid, moments))
  draw = Draw.create(0, jnp.arange(2))

  @jax.jit
  def run(image):
    variables = nn.unbox(module.init(jax.random.key(0), image))
    codec = module.bind(variables)

    def loss(x):
      out = module.apply(variables, x, draw, train=True)
      return jnp.sum(out.image**2) + sum(out.losses.values()), out

    gradient, out = jax.grad(loss, has_aux=True)(image)
    tokens = codec.encode(image)
    return {
      'gradient': gradient,
      'out': out,
      'tokens': tokens.values,
      'vectors': codec.embed(tokens.values),
      'visit': codec.visit(codec.store(image), draw).values,
      'image': codec.decode(tokens, draw),
      'again': codec.to_tokens(codec.to_latent(tokens)).values,
    }

  found = run(jnp.asarray(image, jnp.float32))
  tokens, blank = found['tokens'], spec.blank(2).values
  assert tokens.shape == found['visit'].shape == blank.shape
  assert tokens.dtype == blank.dtype
  assert found['vectors'].shape == (2, spec.length, spec.channels)
  assert found['image'].shape == (2, *grid, CHANNELS)
  assert (found['visit'] == tokens).all() or module.static.stochastic
  if shape in ('grid', 'line', 'patches', 'bits'):
    np.testing.assert_allclose(found['again'], tokens, atol=1e-5)
  out, gradient = found['out'], found['gradient']
  assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
  assert (out.codes is not None) == spec.codes
  assert out.codes is None or out.codes.shape == blank.shape
  bits = (LFQ, BSQ, Bernoulli)
  assert ('bits_set' in out.metrics) == (quantizer.func in bits)
  assert len(module.codebook_path) == 2 * issubclass(quantizer.func, Lookup)


def test_bits_are_signs_the_lowest_first():
  z = jnp.array([[0.3, -2.0, 0.1, 5.0]])
  whole, halves = (LFQ(channels=4, ids=n) for n in (1, 2))
  assert whole.quantize(z).tolist() == [13]
  assert halves.quantize(z).tolist() == [[1, 3]]
  for net in (whole, halves):
    np.testing.assert_array_equal(net.embed(net.quantize(z)), np.sign(z))
  out = whole(z)
  np.testing.assert_allclose(out.losses['commitment'], 0.25 * 4.575, rtol=1e-5)
  np.testing.assert_allclose(out.metrics['bits_set'].compute(), 0.75)
  with pytest.raises(ValueError, match=r'quantizer\.ids=3 does not divide'):
    _ = LFQ(channels=4, ids=3).size


@pytest.mark.parametrize('signed', [False, True])
def test_bernoulli_samples_bits_the_highest_first(signed):
  net = Bernoulli(channels=4, ids=2, signed=signed)
  moments = jnp.array([[[3.0, -3.0, 3.0, 3.0], [-3.0, 0.1, -0.1, -3.0]]])
  latent = net.latent(moments)
  likely = net.quantize(latent)
  assert likely.tolist() == [[[2, 3], [1, 0]]]
  bits = net.embed(likely)
  assert bits[0, 1].tolist() == ([-1, 1, -1, -1] if signed else [0, 1, 0, 0])
  # 10,000 images of the same latent.
  many = jnp.broadcast_to(latent, (10_000, *latent.shape[1:]))
  draw = Draw.create(0, jnp.arange(len(many)))
  found = net(many, draw)
  chances = (latent + 1) / 2 if signed else latent
  share = jnp.mean(net.embed(found.values) > 0, 0)
  np.testing.assert_allclose(share, chances[0], atol=0.02)
  np.testing.assert_allclose(found.vectors, net.embed(found.values), atol=1e-6)
  surely = net.clone(deterministic=True)(many, draw)
  np.testing.assert_array_equal(surely.values[:1], likely)
  slope = jax.grad(lambda x: net(x, draw).vectors.sum())(many)
  np.testing.assert_array_equal(slope, 1)
  with pytest.raises(ValueError, match=r'quantizer\.ids=3 does not divide'):
    _ = Bernoulli(channels=4, ids=3).size


def test_entropies_of_bits_are_those_of_all_their_codes():
  z = 0.02 * np.random.RandomState(0).normal(size=(20, 12))
  net = LFQ(channels=12, entropy=0.1, gamma=0.5, temperature=0.02)
  codes = np.asarray(net.embed(jnp.arange(net.size)))
  logits = 2 * z @ codes.T / 0.02
  p = np.exp(logits - logits.max(-1, keepdims=True))
  p /= p.sum(-1, keepdims=True)
  nats = lambda p: -np.sum(p * np.log(np.maximum(p, 1e-5)), -1)
  each, mean = nats(p).mean(), nats(p.mean(0))
  found = entropies(jnp.asarray(z), 0.02)
  np.testing.assert_allclose(found, (each, mean), rtol=1e-5)
  losses = net(jnp.asarray(z)).losses
  np.testing.assert_allclose(
    losses['entropy'], 0.1 * (each - 0.5 * mean), rtol=1e-5
  )


@pytest.mark.parametrize(
  ('progress', 'factor'), [(0.0, 3), (0.125, 2), (0.5, 1), (None, 1)]
)
def test_more_entropy_at_the_start_of_a_run(progress, factor):
  z = jnp.array([[0.3, -2.0], [0.1, 5.0]])
  draw = Draw.create(0, jnp.arange(2)).replace(progress=progress)
  plain = LFQ(channels=2, entropy=0.1)(z, draw).losses['entropy']
  net = LFQ(channels=2, entropy=0.1, extra=2.0, extra_until=0.25)
  np.testing.assert_allclose(
    net(z, draw).losses['entropy'], factor * plain, rtol=1e-6
  )


def test_training_a_tokenizer_tells_its_quantiser_the_progress():
  half = functools.partial(Identity, z_channels=2)
  lfq = functools.partial(LFQ, channels=2, entropy=0.1, extra_until=0.5)
  image = jnp.ones((1, 2, 2, 2))

  def entropy(extra, step):
    task = TrainTokenizer(
      tokenizer=Autoencoder(
        encoder=half,
        quantizer=functools.partial(lfq, extra=extra),
        decoder=half,
        grid=(2, 2),
        quant_kernel=0,
      ),
      tx=optax.identity(),
      image_shape=(2, 2, 2),
      steps=8,
    )
    params = {'tokenizer': {}}
    state = TrainState(jnp.int32(step), params, (), {}, task.extra())
    rows = {'image': 0.01 * image, 'row': jnp.arange(1)}
    draw = task.draw(state, rows['row'])
    return task.objective(params, state, {}, rows, draw).terms['entropy'].loss

  factors = [entropy(2.0, step) / entropy(0.0, step) for step in (0, 2, 4)]
  np.testing.assert_allclose(factors, [3, 2, 1], rtol=1e-6)


def test_levels_of_fsq_are_rounded_and_passed_straight_through():
  net = FSQ(levels=(5, 4, 2))
  ids = jnp.arange(net.size)
  vectors = net.embed(ids)
  assert vectors.min() == -1 and len(np.unique(vectors, axis=0)) == 40
  far = jnp.array([[-9.0, -9.0, -9.0], [9.0, 9.0, 9.0]])
  assert net.quantize(net.latent(far)).tolist() == [0, 39]
  # A binary channel switches where the published bound does, at -3.8007.
  z = jnp.array([[0.0, 0.0, -3.81], [0.0, 0.0, -3.79]])
  out = net(net.latent(z))
  assert (out.values // 20).tolist() == [0, 1]
  np.testing.assert_allclose(out.vectors, net.embed(out.values), atol=1e-6)
  slope = jax.grad(lambda z: net(net.latent(z)).vectors[0, 2])(z)[0, 2]
  wanted = 0.5005 * (1 - np.tanh(-3.81 + 3.8007) ** 2)
  np.testing.assert_allclose(slope, wanted, rtol=1e-3)


def test_ids_of_fsq_are_groups_of_channels():
  net = FSQ(levels=(2, 3, 3, 2), ids=2)
  assert (net.size, net.parts, net.channels) == (6, 2, 4)
  ids = jnp.array([[0, 5], [3, 1]])
  vectors = net.embed(ids)
  assert net.quantize(vectors).tolist() == ids.tolist()
  # The first channel of a group is the lowest digit.
  assert vectors[1].tolist() == [0, 0, 0, -1]
  with pytest.raises(ValueError, match=r'quantizer\.ids=3 does not divide'):
    _ = FSQ(levels=(2, 2, 2, 2), ids=3).size
  with pytest.raises(ValueError, match='2 ids of a token have 4 and 9 values'):
    _ = FSQ(levels=(2, 2, 3, 3), ids=2).size


def test_symmetric_levels_end_at_1():
  net = SymmetricFSQ(levels=(2, 3, 4))
  vectors = net.embed(jnp.arange(net.size))
  for channel, count in enumerate(net.levels):
    wanted = np.linspace(-1, 1, count)
    np.testing.assert_allclose(
      np.unique(vectors[:, channel]), wanted, atol=1e-6
    )
  assert net.quantize(vectors).tolist() == [*range(24)]
  far = jnp.array([[-9.0, -9.0, -9.0], [9.0, 9.0, 9.0]])
  assert net.quantize(net.latent(far)).tolist() == [0, 23]


def test_parts_of_aligned_patches_are_together_by_place():
  half = functools.partial(Identity, z_channels=2)
  bits = functools.partial(SymmetricFSQ, levels=(2, 2), ids=2)
  net = AlignedPatches(
    encoder=half, quantizer=bits, decoder=half, grid=(4, 4), patch=2
  ).bind({})
  rng = np.random.default_rng(0)
  latent = rng.choice([-1.0, 1.0], (1, 4, 4, 2))
  # '(h p) (w p) n -> (h w) (p p n)', of one image.
  wanted = latent.reshape(2, 2, 2, 2, 2).transpose(0, 2, 1, 3, 4)
  tokens = net.to_tokens(jnp.asarray(latent)).values
  np.testing.assert_array_equal(tokens[0], wanted.reshape(4, 8) > 0)
  np.testing.assert_array_equal(net.to_latent(Tokens(tokens)), latent)
