"""PSNR, SSIM, codebook figures and the names of figures."""

import dataclasses
import types

import jax.numpy as jnp
import numpy as np
import pytest

from arvision.build import build
from arvision.errors import DataError
from arvision.evals.base import Run
from arvision.evals.features import Features
from arvision.evals.image import (
  SCALES,
  ms_ssim,
  psnr,
  scales,
  squared_error,
  ssim,
  window_size,
)
from arvision.evals.protocol import dataset_name, headline, size_name
from arvision.evals.reconstruction import Reconstruction
from arvision.evals.usage import Usage
from arvision.structs import TokenSpec
from arvision.tokenizers import autoencoder
from tests.parts.evals_toys import two_classes


def pictures(count=3, shape=(12, 15, 2), seed=0):
  generator = np.random.default_rng(seed)
  return generator.uniform(-1, 1, (count, *shape)).astype(np.float32)


def slow_ssim(a, b, size, sigma=1.5, luminance=True):
  """SSIM of one channel, place by place, as the paper writes it."""
  a, b = (np.asarray(x, np.float64) / 2 + 0.5 for x in (a, b))
  at = np.arange(size) - size // 2
  w = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * sigma**2))
  w /= w.sum()
  values = []
  for i in range(a.shape[0] - size + 1):
    for j in range(a.shape[1] - size + 1):
      x, y = a[i : i + size, j : j + size], b[i : i + size, j : j + size]
      mx, my = (w * x).sum(), (w * y).sum()
      vx, vy = (w * (x - mx) ** 2).sum(), (w * (y - my) ** 2).sum()
      vxy = (w * (x - mx) * (y - my)).sum()
      value = (2 * vxy + 9e-4) / (vx + vy + 9e-4)
      if luminance:
        value *= (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4)
      values.append(value)
  return np.mean(values)


def test_psnr_of_a_constant_difference():
  a = np.zeros((2, 4, 5, 1), np.float32)
  b = a + np.array([0.2, 0.02], np.float32)[:, None, None, None]
  # 0.2 of [-1, 1] is 0.1 of [0, 1]: 20 dB; ten times less is 20 dB more.
  got = psnr(squared_error(a, b))
  np.testing.assert_allclose(got, [20, 40], rtol=1e-4)
  np.testing.assert_allclose(psnr(squared_error(a, a)), [100, 100])


def test_psnr_clips_what_no_picture_can_show():
  white = jnp.ones((1, 4, 4, 1))
  assert squared_error(white, 5 * white) == 0


def test_ssim_equals_the_definition():
  a = pictures()
  b = np.clip(a + 0.3 * pictures(seed=1), -1, 1)
  got = ssim(a, b, window=5)
  for i in range(len(a)):
    wanted = np.mean([slow_ssim(a[i, ..., c], b[i, ..., c], 5) for c in (0, 1)])
    assert got[i] == pytest.approx(wanted, abs=1e-5)


def test_ssim_is_one_for_equal_and_near_none_for_unrelated():
  a, b = pictures(), pictures(seed=1)
  np.testing.assert_allclose(ssim(a, a), 1, atol=1e-6)
  assert np.all(np.abs(ssim(a, b)) < 0.3)


@pytest.mark.parametrize(
  'shape, window', [((8, 8), 7), ((7, 30), 7), ((32, 32), 11), ((11, 64), 11)]
)
def test_window_fits_inside(shape, window):
  assert window_size(shape) == window
  a = pictures(1, (*shape, 1))
  assert ssim(a, a, window=window).shape == (1,)


def test_window_that_does_not_fit_is_refused():
  with pytest.raises(ValueError, match='wanted odd and <= 4'):
    ssim(pictures(1, (4, 4, 1)), pictures(1, (4, 4, 1)))


def slow_ms_ssim(a, b, count):
  """MS-SSIM of one channel in float64, place by place."""
  powers = np.array(SCALES[:count]) / sum(SCALES[:count])
  total = 1.0
  for i, power in enumerate(powers):
    if i:
      a, b = (
        (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4
        for x in (a, b)
      )
    last = i == count - 1
    total *= max(slow_ssim(a, b, 11, luminance=last), 0) ** power
  return total


def test_ms_ssim_equals_the_definition():
  a = pictures(2, (22, 26, 2))
  b = np.clip(a + 0.4 * pictures(2, (22, 26, 2), seed=1), -1, 1)
  got = ms_ssim(a, b, 2)
  for i in range(2):
    wanted = [slow_ms_ssim(a[i, ..., c], b[i, ..., c], 2) for c in (0, 1)]
    assert got[i] == pytest.approx(np.mean(wanted), abs=1e-5)
  np.testing.assert_allclose(ms_ssim(a, a, 2), 1, atol=1e-6)
  # One scale is SSIM.
  np.testing.assert_allclose(ms_ssim(a, b, 1), ssim(a, b), atol=1e-6)


@pytest.mark.parametrize(
  'side, count', [(10, 0), (11, 1), (28, 2), (64, 3), (175, 4), (176, 5)]
)
def test_scales_of_ms_ssim_fit_inside(side, count):
  assert scales((side, side + 5)) == count
  with pytest.raises(ValueError, match=f'wanted 1 to {count}'):
    ms_ssim(*pictures(2, (1, side, side, 1)), count + 1)


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(176, 192), (256, 256)])
def test_ms_ssim_equals_pytorch_msssim(shape):
  torch = pytest.importorskip('torch')
  other = pytest.importorskip('pytorch_msssim')
  a = pictures(2, (*shape, 3))
  a = np.clip(3 * (a + np.roll(a, 1, 1) + np.roll(a, 1, 2)) / 4, -1, 1)
  b = np.clip(a + 0.3 * pictures(2, (*shape, 3), seed=1), -1, 1)
  give = lambda x: torch.tensor(x.transpose(0, 3, 1, 2) / 2 + 0.5)
  wanted = other.ms_ssim(give(a), give(b), data_range=1, size_average=False)
  np.testing.assert_allclose(ms_ssim(a, b), wanted, atol=2e-5)


def figures_of(usage):
  return headline({f'{f}/p/{scale}': v for f, scale, v in usage.figures()})


def test_usage_tells_collapse_from_use():
  usage = Usage(((1, 1), (2, 2)), (8,), lambda values: values[..., None])
  codes = np.array([[5, 0, 1, 2, 3], [5, 4, 5, 6, 7]])
  usage.add(codes[:1])
  usage.add(codes[1:])
  figures = figures_of(usage)
  assert figures['codebook_usage'] == {'1x1': 1 / 8, '2x2': 1.0, 'all': 1.0}
  assert figures['codebook_perplexity']['1x1'] == pytest.approx(1)
  assert figures['codebook_perplexity']['2x2'] == pytest.approx(8)
  assert figures['codebook_reach'] == {'1x1': 2 / 8, '2x2': 1.0, 'all': 1.0}
  assert not any(name.startswith(('bit', 'level')) for name in figures)


def test_equal_grids_keep_rows_of_their_own():
  usage = Usage(((2, 2), (2, 2)), (8,), lambda values: values[..., None])
  assert usage.names == ['0-2x2', '1-2x2']


# Of so many codes that numbers would not do, too.
@pytest.mark.parametrize('more', [0, 70])
def test_usage_of_bits(more):
  rng = np.random.default_rng(0)
  bits = rng.integers(0, 2, (60, 5, 3 + more))
  bits[..., 0] = 1
  bits[:, :, 1] = np.arange(60)[:, None] < 15
  bits[..., 3:] = 0
  usage = Usage(((1, 1), (1, 4)), (2,) * (3 + more), lambda values: values)
  for part in np.array_split(bits, 9):
    usage.add(part)
  figures, size = figures_of(usage), 2 ** (3 + more)
  assert figures['bit_usage'] == pytest.approx(
    dict.fromkeys(('1x1', '1x4', 'all'), 2 / (3 + more))
  )
  assert set(figures['bit_entropy'].values()) == {0.0}
  assert figures['codebook_usage']['all'] == 4 / size
  assert figures['codebook_reach']['1x1'] == min(60 / size, 1)
  _, counts = np.unique(bits.reshape(-1, 3 + more), axis=0, return_counts=True)
  share = counts / counts.sum()
  wanted = np.exp(-np.sum(share * np.log(share)))
  assert figures['codebook_perplexity']['all'] == pytest.approx(wanted)
  free = Usage(((1, 5),), (2, 2), lambda values: values[..., 1:3])
  free.add(bits)
  # A quarter of the first one is 1.
  wanted = 2 - 0.75 * np.log2(3)
  assert figures_of(free)['bit_entropy']['1x5'] == pytest.approx(wanted)


def test_usage_of_levels():
  usage = Usage(((1, 4),), (5, 3), lambda values: values)
  usage.add(np.array([[[0, 2], [4, 2], [2, 2], [0, 2]]]))
  figures = figures_of(usage)
  assert figures['level_usage']['1x4'] == (2 / 4 + 0) / 2
  assert figures['level_entropy']['1x4'] == 0
  assert figures['codebook_usage']['1x4'] == 3 / 15


@pytest.mark.parametrize(
  ('block', 'radices'),
  [
    (dict(type='lookup.Lookup', vocab_size=9, channels=4), (9,)),
    (dict(type='lfq.LFQ', channels=4), (2,) * 4),
    (dict(type='lfq.LFQ', channels=4, ids=2), (2,) * 4),
    (dict(type='bernoulli.Bernoulli', channels=4), (2,) * 4),
    (dict(type='bernoulli.Bernoulli', channels=4, ids=2), (2,) * 4),
    (dict(type='bsq.BSQ', channels=4), (2,) * 4),
    (dict(type='bsq.BSQ', channels=1), (2,)),
    (dict(type='fsq.FSQ', levels=(5, 3, 2, 4)), (5, 3, 2, 4)),
    (dict(type='fsq.SymmetricFSQ', levels=(3, 2, 3, 2), ids=2), (3, 2, 3, 2)),
    (dict(type='levels.Levels', channels=4, levels=6), (6,) * 4),
    (dict(type='kl.KL', channels=4), ()),
  ],
)
@pytest.mark.parametrize(
  'kind', ['Autoencoder', 'Patched', 'ResidualPyramid', 'BitwisePyramid']
)
def test_digits_of_tokens_are_those_of_the_codes_of_places(
  block, radices, kind
):
  where = {'Autoencoder': 'autoencoder', 'Patched': 'autoencoder'}
  where |= {'ResidualPyramid': 'residual', 'BitwisePyramid': 'bitwise'}
  fields = {'patch': 2} if kind in ('Patched', 'BitwisePyramid') else {}
  fields |= {'scales': (1, 2)} if 'Pyramid' in kind else {'grid': (4, 4)}
  quantizer = {**block, 'type': f'quantizers.{block["type"]}'}
  moments = block.get('channels', 4)
  moments *= 2 if block['type'] in ('levels.Levels', 'kl.KL') else 1
  codec = build(
    {
      'type': f'tokenizers.{where[kind]}.{kind}',
      'encoder': {'type': 'layers.conv.Encoder', 'z_channels': moments},
      'decoder': {'type': 'layers.conv.Decoder'},
      'quantizer': quantizer,
      **fields,
    },
    'tokenizer',
  )
  assert codec.radices == radices
  if not radices:
    return
  spec, rng = codec.spec, np.random.default_rng(0)
  values = rng.integers(0, spec.size, (3, *spec.shape), np.int32)
  digits = np.asarray(codec.digits(values))
  patch = fields.get('patch', 1)
  assert digits.shape == (3, spec.length * patch**2, len(radices))
  assert np.all((digits >= 0) & (digits < radices))
  # Places have the same digits where they have the same vector.
  table = rng.normal(size=(spec.size, 4))
  params = {'quant': {'codebook': table}} if 'vocab_size' in block else {}
  vectors = codec.bind({'params': params}).embed(values)
  vectors = autoencoder.split(vectors, (spec.length, 1), patch)
  of = lambda x: np.unique(
    np.asarray(x).reshape(digits.shape[0] * digits.shape[1], -1),
    axis=0,
    return_inverse=True,
  )[1].ravel()
  pairs = np.unique(np.stack([of(digits), of(vectors)]), axis=1)
  assert all(len({*row.tolist()}) == pairs.shape[1] for row in pairs)
  usage = Usage(spec.grids, codec.radices, codec.digits)
  usage.add(values)
  scales = {*usage.names, 'all'} if 'Pyramid' in kind else {*usage.names}
  assert figures_of(usage)['codebook_usage'].keys() == scales


def run(data, decode, batch_size=8, notes=None, **fields):
  spec = TokenSpec(4, 1, 4, ((1, 2),))
  seen = []

  def encode(image):
    seen.append(len(image))
    return (image[:, :1, :2, 0] > 0).astype(np.int32).reshape(len(image), 2)

  images = iter(data.held_out(batch_size))
  again = lambda values: decode(next(images)['image'])
  note = (notes if notes is not None else {}).__setitem__
  given = Run(data, 'toy', spec, encode, again, radices=(4,), note=note)
  metrics = dict(Reconstruction(batch_size, **fields)(given))
  assert set(seen) == {batch_size}  # one shape, so one program
  return headline(metrics), metrics


def test_reconstruction_leaves_out_the_padding():
  data = two_classes(count=44)  # 11 held out: 8 and 3
  figures, _ = run(data, lambda image: image)
  assert figures['psnr_db'] == pytest.approx(100)

  def spoil_padding(image):
    # The second batch holds 3 images; what is decoded for the rest is wrong.
    if np.array_equal(image[0], image[3]):
      image = image.copy()
      image[3:] = 1
    return image

  figures, names = run(data, spoil_padding)
  assert figures['psnr_db'] == pytest.approx(100)
  assert figures['ssim'] == pytest.approx(1, abs=1e-5)
  assert 'ssim/held-out-toy-6x9px-gauss5' in names
  # Codes are 0 or 1 of 4, 22 of them.
  assert figures['codebook_usage']['1x2'] <= 0.5
  assert figures['codebook_reach'] == {'1x2': 1.0}


def test_mean_of_psnr_is_not_psnr_of_mean():
  data = two_classes(count=32)
  good_and_bad = np.where(np.arange(8) < 4, 0.02, 0.2)[:, None, None, None]
  figures, _ = run(data, lambda image: image * 0.5 + good_and_bad)
  assert figures['psnr_of_mean_db'] < figures['psnr_db'] - 0.05


class Means:
  """An extractor whose features are the means of the colours."""

  name, resize, weights, missing = 'means', '', 'f00d', ''

  def __call__(self, images):
    assert images.dtype == np.uint8 and images.shape[3] == 3
    return Features(images.mean((1, 2)))


def test_rfid_is_to_the_held_out_images_themselves():
  data, notes = two_classes(count=44), {}
  _, names = run(data, lambda x: x, notes=notes, extractor=Means())
  [(name, value)] = [pair for pair in names.items() if 'rfid' in pair[0]]
  assert value == pytest.approx(0, abs=1e-6)
  assert name.startswith('rfid/means-held-out-toy-6x9px-11-')
  facts = notes[name.split('/')[1]]
  assert facts['weights'] == 'f00d' and facts['split'] == 'held-out'
  # Not white, whose features have no deviation.
  figures, _ = run(data, lambda x: x / 2 + 0.5, extractor=Means())
  assert figures['rfid'] > 1000


def test_rfid_without_weights_is_not_available():
  absent = Means()
  absent.missing = 'wanted a file'
  figures, names = run(two_classes(32), lambda x: x, extractor=absent)
  assert not any('rfid' in name for name in names)


def test_no_held_out_split_is_an_error():
  data = dataclasses.replace(two_classes(), every=0)
  with pytest.raises(DataError, match='held_out_share'):
    run(data, lambda image: image)


def test_held_out_images_without_a_weight_are_an_error():
  data = types.SimpleNamespace(
    held_out_examples=2,
    shape=(6, 9, 1),
    held_out=lambda *_: [
      {'image': np.zeros((2, 6, 9, 1), np.float32), 'weight': np.zeros(2)}
    ],
  )
  with pytest.raises(
    DataError, match=r'none of 2 held-out .*config\.data\.text'
  ):
    run(data, lambda image: image)


@pytest.mark.parametrize(
  'source, name',
  [
    ({'type': 'data.digits.Digits'}, 'digits'),
    ({'type': 'data.idx.Idx', 'folder': '/a/fashion-mnist/'}, 'fashion-mnist'),
    ({'type': 'mine.MyOwnSource'}, 'my-own-source'),
    ({'type': 'data.tfds.Tfds', 'name': 'cifar10:3.0.2'}, 'cifar10-3-0-2'),
  ],
)
def test_dataset_names(source, name):
  assert dataset_name(source) == name


def test_size_names():
  assert size_name((8, 8, 1)) == '8px'
  assert size_name((16, 24, 3)) == '16x24px'


def test_the_first_of_two_protocols_is_in_the_headline():
  two = {'frechet/a-1000': 1.0, 'frechet/a-50000': 2.0}
  assert headline(two) == {'frechet': 1.0}
