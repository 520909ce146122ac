"""Distances, LPIPS and the discriminator, against torch where recorded."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.errors import ConfigError
from arvision.tokenizers import adversarial, losses, perceptual


def test_pixel_distances():
  a = jnp.zeros((2, 4, 6, 3))
  b = a.at[1].set(0.5)
  np.testing.assert_allclose(losses.l1(a, b), [0, 0.5])
  np.testing.assert_allclose(losses.l2(a, b), [0, 0.25])
  # The range is 2, so the peak is 4 / 0.25.
  np.testing.assert_allclose(losses.psnr(a, b), [100, 10 * np.log10(16)])


def test_psnr_is_of_the_clipped_picture():
  a = jnp.ones((1, 2, 2, 1))
  np.testing.assert_allclose(losses.psnr(a, 3 * a), [100])


def vgg(seed=0):
  """Random weights under torchvision's and LPIPS' keys, torch's layout."""
  random, state = np.random.RandomState(seed), {}
  for i, slice_ in enumerate(perceptual.NETWORKS['vgg'].slices):
    for conv in slice_:
      if not isinstance(conv, perceptual.Conv):
        continue
      kernel = random.standard_normal((conv.width, conv.inputs, 3, 3))
      kernel *= np.sqrt(2 / (9 * conv.inputs))
      state[f'features.{conv.key}.weight'] = kernel.astype(np.float32)
      bias = 0.1 * random.standard_normal(conv.width)
      state[f'features.{conv.key}.bias'] = bias.astype(np.float32)
    lin = np.abs(random.standard_normal((1, conv.width, 1, 1)))
    state[f'lin{i}.model.1.weight'] = lin.astype(np.float32)
  return state


@pytest.fixture(scope='module')
def state():
  return vgg()


@pytest.fixture(scope='module')
def weights(state, tmp_path_factory):
  path = tmp_path_factory.mktemp('vgg') / 'vgg.npz'
  np.savez(path, **state)
  return perceptual.read((str(path),))


def pair():
  random = np.random.RandomState(1)
  return random.uniform(-1, 1, (2, 2, 24, 16, 3)).astype(np.float32)


def test_lpips_agrees_with_torch(weights):
  a, b = pair()
  lpips = jax.jit(perceptual.lpips)  # weights as arguments, not constants
  # Recorded from the same network written with torch 2.13 functions.
  np.testing.assert_allclose(
    lpips(weights, a, b), [1.1527638, 1.1668397], rtol=1e-5
  )
  grey = lpips(weights, a[..., :1], b[..., :1])
  np.testing.assert_allclose(grey, [1.1902115, 1.1924692], rtol=1e-5)


def test_lpips_has_the_gradient_of_torch_and_none_at_equal_images(weights):
  a, b = pair()

  @jax.jit
  @jax.value_and_grad
  def both(b, weights, a):
    return jnp.sum(perceptual.lpips(weights, a, b))

  _, gradient = both(b, weights, a)
  np.testing.assert_allclose(jnp.linalg.norm(gradient), 0.09801241, rtol=1e-4)
  # Constant images: some features are zero everywhere.
  value, gradient = both(0 * a, weights, 0 * a)
  np.testing.assert_allclose(value, 0, atol=1e-6)
  assert np.isfinite(gradient).all()


def write_safetensors(path, tensors):
  header, data = {'__metadata__': {'format': 'pt'}}, b''
  for name, array in tensors.items():
    start = len(data)
    data += array.tobytes()
    header[name] = {
      'dtype': {'float32': 'F32', 'float16': 'F16', 'int64': 'I64'}[
        array.dtype.name
      ],
      'shape': array.shape,
      'data_offsets': [start, len(data)],
    }
  text = json.dumps(header).encode()
  path.write_bytes(len(text).to_bytes(8, 'little') + text + data)


def test_lpips_weights_come_in_two_safetensors_files(state, weights, tmp_path):
  convs = {k: v for k, v in state.items() if k.startswith('features')}
  convs['classifier.steps'] = np.arange(3)  # torchvision's files hold more
  write_safetensors(tmp_path / 'vgg.safetensors', convs)
  lins = {k: v.astype(np.float16) for k, v in state.items() if k[0] == 'l'}
  write_safetensors(tmp_path / 'lpips.safetensors', lins)
  read = perceptual.read(
    (str(tmp_path / 'vgg.safetensors'), str(tmp_path / 'lpips.safetensors'))
  )
  np.testing.assert_array_equal(
    read['conv_0']['kernel'], weights['conv_0']['kernel']
  )
  np.testing.assert_allclose(read['lin_4'], weights['lin_4'], rtol=1e-3)


def test_bad_lpips_files_are_refused(state, tmp_path):
  def written(**changed):
    path = tmp_path / 'bad.npz'
    part = {k: v for k, v in (state | changed).items() if v is not None}
    np.savez(path, **part)
    return (str(path),)

  with pytest.raises(ConfigError, match='no file .*missing.npz'):
    perceptual.read((str(tmp_path / 'missing.npz'),))
  only_lins = {k: None for k in state if k.startswith('features')}
  with pytest.raises(ConfigError, match=r'features\.0 of VGG-16 has nothing'):
    perceptual.read(written(**only_lins))
  with pytest.raises(ConfigError, match='lin3 of LPIPS has nothing'):
    perceptual.read(written(**{'lin3.model.1.weight': None}))
  negative = {'lin0.model.1.weight': -state['lin0.model.1.weight']}
  with pytest.raises(ConfigError, match='lin0 has negative weights'):
    perceptual.read(written(**negative))
  garbage = tmp_path / 'garbage.safetensors'
  garbage.write_bytes(b'\x05' + 7 * b'\0' + b'hello')
  with pytest.raises(ConfigError, match='no safetensors file'):
    perceptual.read((str(garbage),))


def discriminator(norm):
  net = adversarial.PatchDiscriminator(
    features=8, layers=2, norm=norm, groups=4
  )
  image = pair()[0]
  shapes = nn.unbox(jax.eval_shape(net.init, jax.random.key(0), image))
  random = np.random.RandomState(3)
  params = jax.tree.map(
    lambda x: (0.3 * random.standard_normal(x.shape)).astype(np.float32),
    shapes,
  )
  return net, params, image


@pytest.mark.parametrize(
  'norm, total, largest',
  [('group', -8.207235, 1.1276416), ('batch', 7.815812, 2.9241490)],
)
def test_discriminator_agrees_with_torch(norm, total, largest):
  net, params, image = discriminator(norm)
  logits = jax.jit(net.apply)(params, image)
  assert logits.shape == (2, 4, 2, 1)
  # Recorded; torch's conv2d, group_norm, batch_norm agree within 3e-6.
  np.testing.assert_allclose(logits.sum(), total, rtol=1e-4)
  np.testing.assert_allclose(jnp.abs(logits).max(), largest, rtol=1e-5)


def test_group_norm_does_not_mix_examples_and_batch_norm_does():
  for norm, mixes in (('group', False), ('batch', True)):
    net, params, image = discriminator(norm)
    apply = jax.jit(net.apply)
    alone = apply(params, image[:1])
    together = apply(params, image)[:1]
    assert np.allclose(alone, together, atol=1e-4) != mixes


def test_small_images_and_unknown_norms_are_refused():
  image = jnp.zeros((1, 8, 8, 1))
  net = adversarial.PatchDiscriminator()
  with pytest.raises(ConfigError, match=r'at least 24 px, got \(8, 8\)'):
    net.init(jax.random.key(0), image)
  smallest = adversarial.PatchDiscriminator(features=2, layers=1)
  logits, _ = jax.eval_shape(
    smallest.init_with_output, jax.random.key(0), image[:, :6, :6]
  )
  assert logits.shape == (1, 1, 1, 1)
  with pytest.raises(ConfigError, match="norm='layer': wanted 'group'"):
    adversarial.PatchDiscriminator(norm='layer').init(jax.random.key(0), image)


def test_hinge_pushes_logits_past_one():
  logits = jnp.array([2.0, 0.5, -3.0]).reshape(3, 1, 1, 1)
  real = adversarial.hinge(logits, jnp.full_like(logits, -9.0))
  np.testing.assert_allclose(real, [0, 0.25, 2])
  fake = adversarial.hinge(jnp.full_like(logits, 9.0), logits)
  np.testing.assert_allclose(fake, [1.5, 0.75, 0])
  np.testing.assert_allclose(adversarial.generator(logits), [-2, -0.5, 3])


def test_lecam_keeps_logits_near_the_average_of_the_others():
  averages = jnp.array([1.0, -1.0])
  for real, fake, wanted in ((2.0, 0.0, 9 + 1), (-2.0, 3.0, 0.0)):
    found = adversarial.lecam(jnp.array([real, fake]), averages)
    np.testing.assert_allclose(found, wanted)


def test_balance_is_the_ratio_of_lengths():
  a, b = jnp.array([[3.0, 4.0]]), jnp.array([[0.0, 2.0]])
  np.testing.assert_allclose(adversarial.balance(a, b), 2.5, rtol=1e-4)
  np.testing.assert_allclose(adversarial.balance(a, 0 * b), 1e4)
  np.testing.assert_allclose(adversarial.balance(a, b, (0.0, 2.0)), 2.0)
