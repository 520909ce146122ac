"""Gaussians, scales and attention of the KL tokenizers, and their training."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from arvision.build import build
from arvision.configs.mar.tokenizer import kl16
from arvision.errors import DataError
from arvision.importers import kl as release
from arvision.importers import table
from arvision.layers import conv
from arvision.layers.resize import resize
from arvision.quantizers.kl import KL, Gaussian
from arvision.quantizers.levels import Levels
from arvision.random import Draw
from arvision.structs import Tokens
from arvision.tasks.base import Averages
from arvision.tasks.tokenizer import TrainTokenizer
from arvision.tokenizers.adversarial import Adversary, PatchDiscriminator
from arvision.tokenizers.autoencoder import Autoencoder, Patched
from arvision.tokenizers.pyramid import ImagePyramid, Pyramid

CHANNELS = 2


def parts(kind=KL, channels=CHANNELS, **fields):
  net = {'ch': 8, 'ch_mult': (1,), 'patch': 2, 'res_blocks': 1, 'groups': 4}
  net['attention'] = False
  return {
    'encoder': functools.partial(conv.Encoder, z_channels=2 * CHANNELS, **net),
    'decoder': functools.partial(conv.Decoder, channels=1, **net),
    'quantizer': functools.partial(kind, channels=channels, **fields),
  }


IMAGE = np.random.RandomState(0).uniform(-1, 1, (3, 8, 8, 1)).astype(np.float32)


@functools.cache
def variables():
  module = Autoencoder(grid=(4, 4), **parts())
  return nn.unbox(jax.jit(module.init)(jax.random.key(0), IMAGE))


def bound(kind=Autoencoder, scale=1.0, shift=0.0, quantizer=KL, **fields):
  if not issubclass(kind, (Pyramid, ImagePyramid)):
    fields = {'grid': (4, 4)} | fields
  inner = parts(quantizer, scale=scale, shift=shift)
  return kind(**inner, **fields).bind(variables())


def draw(step=0):
  return Draw.create(0, jnp.arange(len(IMAGE)), step)


def test_the_divergence_is_the_integral():
  mean, log_variance = np.array([0.3, -1.2]), np.array([-1.0, 0.7])
  x = np.linspace(-12, 12, 20_001)[:, None]
  log_q = -0.5 * ((x - mean) ** 2 / np.exp(log_variance) + log_variance)
  log_p = -0.5 * x**2  # the constants cancel
  q = np.exp(log_q) / np.sqrt(2 * np.pi)
  nats = (q * (log_q - log_p)).sum(0) * (x[1, 0] - x[0, 0])
  found = Gaussian.of(jnp.asarray(np.concatenate([mean, log_variance])))
  np.testing.assert_allclose(found.kl(), nats.sum(), rtol=1e-5)


def test_variances_are_cut_to_what_float32_holds():
  found = Gaussian.of(jnp.array([[0.0, 0.0, 0.0, 50.0, -100.0, 1.0]]))
  assert found.log_variance[0].tolist() == [20.0, -30.0, 1.0]
  np.testing.assert_allclose(found.std[0, :2], np.exp([10.0, -15.0]), rtol=1e-6)
  assert np.isfinite(found.kl()).all()


def test_latents_are_shifted_and_scaled_and_brought_back():
  codec = bound(scale=0.25, shift=(1.0, -2.0))
  mean = codec.encode_latents(IMAGE)
  tokens = codec.encode(IMAGE)
  wanted = (mean.reshape(3, 16, 2) - np.array([1.0, -2.0])) / 4
  np.testing.assert_allclose(tokens.values, wanted, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(
    codec.to_latent(tokens), mean, rtol=1e-5, atol=1e-5
  )
  image = np.clip(codec.decode_latents(mean), -1, 1)
  np.testing.assert_allclose(codec.decode(tokens), image, atol=1e-5)


def test_a_visit_draws_what_the_moments_say():
  codec = bound(scale=2.0)
  stored = codec.store(IMAGE)
  assert stored.shape == (3, 16, 4) and stored.dtype == jnp.float32
  first, again, other = (codec.visit(stored, draw(i)).values for i in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert (first != other).all()
  noise = draw().normal('tokenizer/posterior', (16, 2))
  mean, log_variance = np.split(np.asarray(stored), 2, -1)
  wanted = 2 * (mean + np.exp(log_variance / 2) * noise)
  np.testing.assert_allclose(first, wanted, rtol=1e-5, atol=1e-6)


def test_a_pyramid_is_decoded_from_its_last_scale():
  codec, plain = bound(Pyramid, scales=(1, 2, 4), scale=0.5), bound(scale=0.5)
  values = codec.encode(IMAGE).values
  last = plain.encode(IMAGE).values
  np.testing.assert_array_equal(values[:, 5:], last)
  np.testing.assert_allclose(values[:, 0], last.mean(1), atol=1e-6)
  corner = last.reshape(3, 4, 4, 2)[:, :2, :2].mean((1, 2))
  np.testing.assert_allclose(values[:, 1], corner, atol=1e-6)
  others = jnp.asarray(values).at[:, :5].set(9.0)
  np.testing.assert_array_equal(
    codec.decode(Tokens(others)), plain.decode(Tokens(last))
  )


def test_a_patch_holds_its_places_channel_by_channel():
  codec, plain = bound(Patched, patch=2, scale=0.5), bound(scale=0.5)
  assert (codec.spec.grids, codec.spec.parts) == (((2, 2),), 8)
  tokens = codec.encode(IMAGE)
  places = np.asarray(plain.encode(IMAGE).values).reshape(3, 4, 4, 2)
  lower_left = places[:, 2:, :2]
  wanted = np.concatenate(
    [lower_left[..., c].reshape(3, 4) for c in range(2)], 1
  )
  np.testing.assert_array_equal(tokens.values[:, 2], wanted)
  np.testing.assert_allclose(
    codec.decode(tokens), plain.decode(plain.encode(IMAGE)), atol=1e-6
  )
  with pytest.raises(ValueError, match='does not divide the latent of 4 x 4'):
    _ = bound(Patched, patch=3).spec


@pytest.mark.parametrize(
  ('kind', 'fields'), [(Pyramid, {'scales': (2, 4)}), (Patched, {'patch': 2})]
)
def test_levels_are_those_of_the_latents_in_every_arrangement(kind, fields):
  plain, codec = (bound(kind, quantizer=q, **fields) for q in (KL, Levels))
  spec, stored = codec.spec, plain.store(IMAGE)
  assert spec.size == 64 and spec.shape == plain.spec.shape
  latents = plain.visit(stored, draw()).values
  values = codec.visit(stored, draw()).values
  np.testing.assert_array_equal(values, codec.quant.quantize(latents))
  vectors = codec.embed(values)
  np.testing.assert_array_equal(vectors, codec.quant.embed(values))
  np.testing.assert_allclose(
    codec.decode(Tokens(values)), plain.decode(Tokens(vectors)), atol=1e-6
  )


def test_two_steps_with_a_discriminator():
  task = TrainTokenizer(
    tokenizer=Autoencoder(grid=(4, 4), **parts(kl=1e-3)),
    tx=optax.adam(1e-3),
    image_shape=(8, 8, 1),
    l1=1.0,
    l2=0.0,
    adversary=Adversary(
      functools.partial(PatchDiscriminator, features=4, layers=1, norm='batch'),
      start=1,
      limits=(0.0, 1e4),
      lecam=0.5,
    ),
    accumulate=2,
    ema=Averages(warmup=True),
  )
  fresh = nn.unbox(jax.jit(task.init)(jax.random.key(0)))
  step = jax.jit(task.step)
  batch = {'image': np.concatenate([IMAGE, IMAGE[:1]])}
  state, before = step(fresh, {}, batch)
  again, after = step(state, {}, batch)
  average = fresh.params['tokenizer']
  for decay, now in ((0, state), (2 / 11, again)):  # of 0.999
    average = jax.tree.map(
      lambda a, p, d=decay: d * a + (1 - d) * p,
      average,
      now.params['tokenizer'],
    )
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-7),
      now.ema['0.999']['tokenizer'],
      average,
    )
  assert before['adversarial_weight'] == before['discriminator'] == 0
  assert after['adversarial_weight'] > 0 and after['discriminator'] > 0
  assert all(np.isfinite(v) for v in (*before.values(), *after.values()))
  first, then = (s.params['discriminator'] for s in (state, again))
  for name in ('conv_0', 'conv_1', 'conv_2'):
    assert (first[name]['kernel'] != then[name]['kernel']).any()
  assert before['kl'] > 0
  # LeCam: averages of mean logits start at 0, with the discriminator.
  np.testing.assert_array_equal(state.extra['mean_logits'], [0, 0])
  net = PatchDiscriminator(features=4, layers=1, norm='batch')
  logits = [
    net.apply({'params': first}, rows) for rows in np.split(batch['image'], 2)
  ]
  real = np.mean(logits)
  found = again.extra['mean_logits']
  np.testing.assert_allclose(found[0], 0.001 * real, rtol=1e-4)
  assert found[1] != 0 and after['lecam'] > 0


# ------------------------------------------------------------------ attention


@functools.cache
def kl16_shapes():
  module = build(kl16(), 'tokenizer')
  image = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
  return nn.unbox(jax.eval_shape(module.init, jax.random.key(0), image))[
    'params'
  ]


def test_kl16_attends_where_the_release_does():
  shapes = table.paths(kl16_shapes())
  keys = {
    key for row in release.Tokenizer().rows(shapes) for key in row.keys(())
  }
  attention = {k.rsplit('.', 2)[0] for k in keys if k.endswith('.q.weight')}
  assert attention == {
    'encoder.down.4.attn.0',
    'encoder.down.4.attn.1',
    'encoder.mid.attn_1',
    'decoder.mid.attn_1',
  }
  assert 'decoder.up.3.block.0.nin_shortcut.weight' in keys
  assert 'encoder.down.0.downsample.conv.bias' in keys


def test_a_level_that_is_not_there():
  net = conv.Encoder(ch_mult=(1, 2), attention_levels=(2,))
  with pytest.raises(ValueError, match=r'no level 2.*config\.tokenizer'):
    jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


def tiny_weights():
  shapes = jax.tree.map(jnp.zeros_like, variables()['params'])
  return shapes, table.to_weights(release.Tokenizer(), shapes, ((4, 4),))


def test_what_the_trainer_left_in_the_file_is_passed_over():
  shapes, weights = tiny_weights()
  form = release.Tokenizer()
  extra = {'loss.logvar': np.zeros(()), 'loss.discriminator.0': np.zeros(3)}
  table.to_params(form, weights | extra, shapes)
  assert all(form.derived(key) for key in extra)


def test_keys_of_the_network_are_not_passed_over():
  shapes, weights = tiny_weights()
  more = {'encoder.down.0.attn.0.q.bias': np.zeros(8)}
  with pytest.raises(DataError, match='attention_levels'):
    table.to_params(release.Tokenizer(), weights | more, shapes)


@pytest.mark.parametrize(
  ('channels', 'given', 'kernel'), [(2, 5, 1), (3, 4, 0)]
)
def test_other_channels_than_the_encoder_gives(channels, given, kernel):
  fields = parts(channels=channels)
  fields['encoder'] = functools.partial(fields['encoder'], z_channels=given)
  module = Autoencoder(grid=(4, 4), quant_kernel=kernel, **fields)
  with pytest.raises(ValueError, match=f'z_channels={given}: wanted'):
    jax.eval_shape(module.init, jax.random.key(0), IMAGE)


def test_a_pyramid_of_images_encodes_each_size_by_itself():
  """Hi-MAR's pivots are latents of a small image, not shrunken latents."""
  pyramid = bound(ImagePyramid, scale=0.5, scales=(2, 4))
  assert pyramid.spec.grids == ((2, 2), (4, 4))
  tokens = pyramid.encode(IMAGE)
  whole = bound(scale=0.5)
  np.testing.assert_array_equal(
    tokens.values[:, 4:], whole.encode(IMAGE).values
  )
  small = resize(jnp.asarray(IMAGE), (4, 4), 'bicubic')
  pivots = bound(scale=0.5, grid=(2, 2)).encode(small).values
  np.testing.assert_allclose(tokens.values[:, :4], pivots, atol=1e-6)
  np.testing.assert_array_equal(
    pyramid.decode(tokens), whole.decode(whole.encode(IMAGE))
  )
  stored = pyramid.store(IMAGE)
  assert stored.shape == (3, 20, 2 * CHANNELS)
  visits = [pyramid.visit(stored, draw(i)).values for i in range(2)]
  assert (visits[0] != visits[1]).all()
  # Around the means, by the stored variances.
  std = 0.5 * Gaussian.of(stored).std
  assert (np.abs(visits[0] - tokens.values) < 5 * std + 1e-6).all()
