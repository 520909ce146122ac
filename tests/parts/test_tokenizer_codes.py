"""Autoencoder, quantisers and the codec protocol of both tokenizers."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.layers import conv
from arvision.quantizers import base, lookup
from arvision.quantizers.lookup import AngleLookup, Lookup, UnitLookup
from arvision.structs import Tokens
from arvision.tokenizers.autoencoder import Autoencoder
from arvision.tokenizers.residual import ResidualPyramid, phi_index


def parts(channels=1, quantizer=Lookup, **fields):
  net = {'ch': 8, 'ch_mult': (1,), 'patch': 2, 'res_blocks': 1, 'groups': 4}
  net = net | {'attention': False} | fields
  return {
    'encoder': functools.partial(conv.Encoder, z_channels=6, **net),
    'decoder': functools.partial(conv.Decoder, channels=channels, **net),
    'quantizer': codes(quantizer),
  }


def codes(kind, **fields):
  return functools.partial(kind, vocab_size=16, channels=4, std=1.0, **fields)


def run(case, f):
  """f(bound tokenizer, image), compiled as one program."""
  module, variables, image = case
  return jax.jit(lambda v, x: f(module.bind(v), x))(variables, image)


def made(module, image):
  variables = jax.jit(module.init)(jax.random.key(0), image)
  return module, nn.unbox(variables), image


def picture(*shape):
  return np.random.RandomState(0).uniform(-1, 1, shape).astype(np.float32)


@functools.cache
def pyramid():
  module = ResidualPyramid(scales=(1, (2, 1), (4, 3)), **parts(channels=3))
  return made(module, picture(2, 8, 6, 3))


@functools.cache
def single():
  module = Autoencoder(grid=(4, 3), **parts(quantizer=UnitLookup))
  return made(module, picture(2, 8, 6, 1))


@functools.cache
def seen(case):
  """What a tokenizer makes of its image."""

  def f(codec, image):
    tokens = codec.encode(image)
    return {
      'pass': codec(image),
      'latent': codec.encode_latents(image),
      'tokens': tokens,
      'vectors': codec.embed(tokens.values),
      'decoded': codec.decode(tokens),
    }

  return run(case(), f)


# ------------------------------------------------------------ autoencoder


def test_space_to_depth_is_undone():
  x = jnp.arange(2 * 6 * 4 * 3.0).reshape(2, 6, 4, 3)
  small = conv.space_to_depth(x, 2)
  assert small.shape == (2, 3, 2, 12)
  np.testing.assert_array_equal(small[0, 0, 0, :3], x[0, 0, 0])
  np.testing.assert_array_equal(small[0, 0, 0, 3:6], x[0, 0, 1])
  np.testing.assert_array_equal(conv.depth_to_space(small, 2), x)


def test_down_pads_on_the_right_and_below():
  down = conv.Down()
  x = jnp.zeros((1, 4, 4, 1)).at[0, 3, 3].set(1.0)
  variables = nn.unbox(down.init(jax.random.key(0), x))
  kernel = variables['params']['conv']['kernel']
  out = down.apply(variables, x)
  # The last pixel meets the middle of the last window.
  np.testing.assert_allclose(out[0, 1, 1, 0], kernel[1, 1, 0, 0])
  assert not out[0, 0].any()


def test_patches_replace_levels():
  deep = conv.Encoder(ch_mult=(1, 1, 2))
  flat = conv.Encoder(ch_mult=(1,), patch=4)
  assert deep.factor == flat.factor == 4


def test_every_parameter_names_its_axes():
  module = Autoencoder(grid=(4, 4), **parts())
  image = jax.ShapeDtypeStruct((1, 8, 8, 1), np.float32)
  shapes = jax.eval_shape(module.init, jax.random.key(0), image)
  boxes = jax.tree.leaves(
    shapes, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)
  )
  for box in boxes:
    assert isinstance(box, nn.LogicallyPartitioned)
    assert len(box.names) == box.value.ndim


def test_levels_and_attention_run_on_any_grid():
  fields = {'ch': 8, 'ch_mult': (1, 2), 'res_blocks': 1, 'groups': 4}
  image = picture(1, 8, 6, 2)

  class Both(nn.Module):
    @nn.compact
    def __call__(self, x):
      z = conv.Encoder(z_channels=5, **fields)(x)
      return z, conv.Decoder(channels=2, **fields)(z)

  (z, out), _ = jax.jit(Both().init_with_output)(jax.random.key(0), image)
  assert z.shape == (1, 4, 3, 5)
  assert out.shape == image.shape


def test_bfloat16_computes_close_to_float32():
  module, variables, image = single()
  f = seen(single)['latent']
  fields = parts(quantizer=UnitLookup, dtype='bfloat16')
  rough = Autoencoder(grid=(4, 3), **fields)
  g = run((rough, variables, image), lambda codec, x: codec.encode_latents(x))
  assert g.dtype == jnp.float32
  assert 1e-6 < np.abs(f - g).max() < 0.1 * np.abs(f).max()


def test_dropout_needs_training():
  block = conv.ResBlock(features=8, dropout=0.5)
  x = jnp.asarray(picture(1, 4, 4, 8))
  variables = nn.unbox(block.init(jax.random.key(0), x))
  rngs = {'dropout': jax.random.key(1)}
  same = block.apply(variables, x, rngs=rngs)
  np.testing.assert_array_equal(same, block.apply(variables, x))
  other = block.apply(variables, x, train=True, rngs=rngs)
  assert not np.allclose(other, same)


# -------------------------------------------------------------- quantisers


def test_nearest_takes_the_first_of_equals():
  codebook = jnp.array([[2.0, 0], [1, 0], [1, 0], [0, 1]])
  z = jnp.array([[[0.9, 0.1], [0.0, 4.0]]])
  np.testing.assert_array_equal(lookup.nearest(z, codebook), [[1, 3]])


def test_nearest_is_the_nearest():
  random = np.random.RandomState(0)
  z, codebook = random.normal(size=(50, 3)), random.normal(size=(20, 3))
  wanted = ((z[:, None] - codebook) ** 2).sum(-1)
  np.testing.assert_allclose(lookup.distances(z, codebook), wanted, atol=1e-5)
  np.testing.assert_array_equal(lookup.nearest(z, codebook), wanted.argmin(1))


def test_straight_through_has_the_gradient_of_the_latent():
  def f(z):
    return jnp.sum(base.straight_through(z, jnp.round(z)) ** 2)

  z = jnp.array([0.2, 1.7])
  np.testing.assert_allclose(jax.grad(f)(z), 2 * jnp.round(z))


def test_normalized_of_zero_is_zero_with_a_finite_gradient():
  x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
  np.testing.assert_allclose(
    lookup.normalized(x), [[0.6, 0.8], [0, 0]], atol=1e-6
  )
  gradient = jax.grad(lambda x: jnp.sum(lookup.normalized(x)))(x)
  assert np.isfinite(gradient).all()


def test_usage_and_perplexity():
  counts = jnp.array([5.0, 5, 5, 5, 0, 0, 0, 0])
  np.testing.assert_allclose(lookup.usage(counts), 0.5)
  np.testing.assert_allclose(lookup.perplexity(counts), 4, rtol=1e-5)
  np.testing.assert_allclose(lookup.perplexity(jnp.zeros(4)), 1)
  codes = jnp.array([[0, 2], [2, 2]])
  np.testing.assert_array_equal(lookup.histogram(codes, 4), [1, 0, 3, 0])


def test_entropy_loss_prefers_sure_and_even_codes():
  sure_and_even = jnp.eye(4) * -1.0 + 1
  sure_and_one = jnp.tile(sure_and_even[:1], (4, 1))
  unsure = jnp.ones((4, 4))
  low, one, flat = map(
    lookup.entropy_loss, (sure_and_even, sure_and_one, unsure)
  )
  # The published code adds 1e-5 inside the logarithm of the mean code.
  quarter, whole = np.log(1 / 4 + 1e-5), np.log(1 + 1e-5)
  np.testing.assert_allclose(low, quarter, atol=1e-6)
  np.testing.assert_allclose(
    [one, flat], [whole, quarter + np.log(4)], atol=1e-6
  )


# ------------------------------------------------------------- tokenizers


@pytest.mark.parametrize(
  'case, grids',
  [(single, ((4, 3),)), (pyramid, ((1, 1), (2, 1), (4, 3)))],
)
def test_encodes_to_codes_that_its_own_pass_used(case, grids):
  spec, out = case()[0].spec, seen(case)
  assert spec.grids == grids
  values = out['tokens'].values
  assert values.shape == (2, spec.length) and values.dtype == jnp.int32
  np.testing.assert_array_equal(values, out['pass'].codes)
  features = out['pass'].features
  assert features.reshape(2, -1, 4).shape == (2, spec.length, 4)
  clipped = np.clip(out['pass'].image, -1, 1)
  np.testing.assert_allclose(out['decoded'], clipped, atol=1e-5)


def test_codes_are_unit_vectors_at_use():
  lengths = jnp.linalg.norm(seen(single)['vectors'], axis=-1)
  np.testing.assert_allclose(lengths, 1, rtol=1e-5)
  stored = single()[1]['params']['quant']['codebook']
  assert not np.allclose(jnp.linalg.norm(stored, axis=-1), 1)


def test_losses_pull_both_sides():
  module, variables, image = single()

  @jax.jit
  def pulls(params):
    def loss(params, name):
      return module.apply({'params': params}, image).losses[name]

    return [jax.grad(loss)(params, k) for k in ('codebook', 'commitment')]

  codes, encoder = pulls(variables['params'])
  assert np.abs(codes['quant']['codebook']).max() > 0
  assert not np.abs(codes['quant_conv']['kernel']).any()
  assert not np.abs(encoder['quant']['codebook']).any()
  assert np.abs(encoder['quant_conv']['kernel']).max() > 0
  losses = seen(single)['pass'].losses
  np.testing.assert_allclose(
    losses['commitment'], 0.25 * losses['codebook'], rtol=1e-5
  )


@pytest.mark.parametrize('case', [single, pyramid])
def test_entropy_is_a_field(case):
  module, variables, image = case()
  other = module.clone(quantizer=codes(Lookup, entropy=0.5)), variables, image
  losses = run(other, lambda codec, x: codec(x).losses)
  assert set(losses) == {'codebook', 'commitment', 'entropy'}


def test_merge_and_view_are_the_steps_of_the_quantiser():
  grids = pyramid()[0].spec.grids

  def f(codec, image):
    latent = codec.encode_latents(image)
    codes, sums, features = codec.quantize(latent)
    canvas, steps = codec.canvas(2), []
    for s in range(len(grids)):
      rest = codec.view(latent - canvas, s)
      canvas = codec.merge(canvas, codes[s], s)
      steps.append((rest, features[s], canvas, sums[s]))
    partial = codec.to_latent(Tokens(jnp.concatenate(codes[:2], 1)))
    return steps, partial, codec.view(canvas, len(grids) - 1)

  steps, partial, last = run(pyramid(), f)
  for (height, width), (rest, feature, canvas, total) in zip(grids, steps):
    # What is quantised is what the smaller scales left over.
    assert rest.shape == (2, height * width, 4)
    np.testing.assert_allclose(feature, rest, atol=1e-5)
    np.testing.assert_allclose(canvas, total, atol=1e-5)
  # Tokens of the first scales give the sum so far.
  np.testing.assert_allclose(partial, steps[1][3], atol=1e-5)
  np.testing.assert_allclose(last.reshape(canvas.shape), canvas, atol=1e-6)


def test_tokens_that_end_inside_a_scale_are_refused():
  module, variables, _ = pyramid()
  with pytest.raises(ValueError, match='5 tokens end inside scale 2'):
    module.bind(variables).to_latent(Tokens(jnp.zeros((2, 5), jnp.int32)))


def test_multi_scale_trains_encoder_codes_and_phi():
  module, variables, image = pyramid()

  @jax.jit
  @jax.grad
  def gradient(params):
    out = module.apply({'params': params}, image)
    return jnp.mean((out.image - image) ** 2) + sum(out.losses.values())

  tree = gradient(variables['params'])
  phis = [f'phi_{i}' for i in {phi_index(s, 3, 4) for s in range(3)}]
  for path in (
    'enc',
    'dec',
    'quant_conv',
    'post_quant_conv',
    'quant',
    *phis,
  ):
    assert max(jnp.abs(x).max() for x in jax.tree.leaves(tree[path])) > 0, path


def test_phi_is_chosen_as_published():
  ten = [phi_index(s, 10, 4) for s in range(10)]
  assert ten == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
  fourteen = [phi_index(s, 14, 4) for s in range(14)]
  assert fourteen == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3]
  assert [phi_index(s, 10, 10) for s in range(10)] == list(range(10))
  assert phi_index(0, 1, 4) == 0


def test_angles_compare_directions_and_keeps_lengths():
  module, variables, _ = pyramid()
  codec = module.clone(quantizer=codes(AngleLookup)).bind(variables)
  rows = variables['params']['quant']['codebook']
  # A code scaled up is still its own nearest direction.
  np.testing.assert_array_equal(codec.quant.quantize(100 * rows), np.arange(16))
  np.testing.assert_array_equal(codec.embed(jnp.arange(16)), rows)


def test_images_that_do_not_fit_are_refused_by_key():
  module, variables, _ = pyramid()

  def encode(*shape):
    image = jax.ShapeDtypeStruct(shape, np.float32)
    jax.eval_shape(lambda x: module.bind(variables).encode(x), image)

  with pytest.raises(ValueError, match=r'config\.data\.size'):
    encode(1, 16, 6, 3)
  with pytest.raises(ValueError, match='multiples of 2'):
    encode(1, 9, 6, 3)
