"""Encoded pictures become the values that their formats say."""

import functools
import io
import struct
import sys
import types

import numpy as np
import pytest
from PIL import Image

from arvision.data import jpeg
from arvision.data.base import BrokenImage
from arvision.data.decode import decode, decode_mask
from tests.pictures import png, tiff, with_alpha

BLUE = (10, 20, 250)


def saved(image, kind='PNG', **options):
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()


def grey(array):
  """What is read of it, one channel."""
  out = decode(array, 'x')
  assert out.dtype == np.uint8 and out.shape[-1] == 1
  return out[..., 0]


# Grey of more than 8 bits.


@pytest.mark.parametrize('dtype', ['<u4', '<i4', '>i4', '<i2', '>i2'])
@pytest.mark.parametrize(
  ('values', 'wanted'),
  [
    ([0, 1, 130, 255], [0, 1, 130, 255]),
    ([0, 255, 256, 32767], [0, 0, 1, 127]),
  ],
  ids=['8bit', '16bit'],
)
def test_integers_without_a_white_are_read_by_their_range(
  dtype, values, wanted
):
  order, sign, size = dtype
  form = {339: [1 if sign == 'u' else 2]}
  pixels = np.array(values).astype(dtype).tobytes()
  data = tiff(pixels, (2, 2), 8 * int(size), order, form)
  np.testing.assert_array_equal(grey(data).ravel(), wanted)


def test_an_integer_array_that_pillow_saved_is_what_it_was():
  array = np.arange(256, dtype=np.int32).reshape(16, 16)
  np.testing.assert_array_equal(
    grey(saved(Image.fromarray(array), 'TIFF')), array
  )


@pytest.mark.parametrize('values', [[0, 70000], [-1, 5]])
def test_integers_beyond_16_bits_are_refused(values):
  pixels = np.array(values, '<i4').tobytes()
  data = tiff(pixels, (1, 2), 32, tags={339: [2]})
  with pytest.raises(BrokenImage, match=r'x: .*values from .* to'):
    decode(data, 'x')


@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('turn', range(1, 9))
def test_16_bits_keep_the_upper_8_in_either_byte_order(order, turn):
  array = np.arange(6).reshape(2, 3) * 1000
  pixels = array.astype(f'{order}u2').tobytes()
  data = tiff(pixels, (2, 3), 16, order, {274: [turn]})
  upper = array // 256
  turned = {
    1: upper,
    2: upper[:, ::-1],
    3: upper[::-1, ::-1],
    4: upper[::-1],
    5: upper.T,
    6: np.rot90(upper, -1),
    7: upper[::-1, ::-1].T,
    8: np.rot90(upper),
  }[turn]
  np.testing.assert_array_equal(grey(data), turned)


def test_white_may_be_zero():
  pixels = np.array([0, 300, 65535], '<u2').tobytes()
  data = tiff(pixels, (1, 3), 16, tags={262: [0]})
  np.testing.assert_array_equal(grey(data)[0], [255, 254, 0])
  data = tiff(bytes([0, 7, 255]), (1, 3), 8, tags={262: [0]})
  np.testing.assert_array_equal(grey(data)[0], [255, 248, 0])


def test_12_bits_are_not_dark():
  data = tiff(bytes([0x12, 0x3F, 0xFF]), (1, 2), 12)
  np.testing.assert_array_equal(grey(data)[0], [0x12, 0xFF])


def test_floats_are_refused_by_name():
  array = np.array([[0, 0.5]], np.float32)
  with pytest.raises(BrokenImage, match='x: .*F values'):
    decode(saved(Image.fromarray(array), 'TIFF'), 'x')


def test_pgm_with_a_white_of_its_own():
  values = struct.pack('>3H', 0, 511, 1023)
  np.testing.assert_array_equal(
    grey(b'P5 3 1 1023\n' + values)[0], [0, 127, 255]
  )


# Transparency.


@pytest.mark.parametrize('depth', [1, 2, 4, 8, 16])
def test_a_transparent_grey_of_any_depth(depth):
  top = 2**depth - 1
  values = [0, top, top // 2, top // 2 + 1]
  bits = ''.join(f'{value:0{depth}b}' for value in values).ljust(8, '0')
  row = int(bits, 2).to_bytes(len(bits) // 8, 'big')
  clear = values[3]
  data = png(4, [row], depth, 0, (b'tRNS', struct.pack('>H', clear)))
  eight = [v >> 8 if depth == 16 else v * 255 // top for v in values]
  colour = np.repeat(np.array([eight])[..., None], 3, -1)
  opaque = np.array([[value != clear for value in values]])
  np.testing.assert_array_equal(
    decode(data, 'x', BLUE), with_alpha(colour, opaque, BLUE)
  )


@pytest.mark.parametrize('depth', [8, 16])
def test_a_transparent_colour(depth):
  form = {8: 'B', 16: 'H'}[depth]
  scale = 2 ** (depth - 8)
  row = struct.pack(f'>6{form}', *(v * scale for v in (1, 2, 3, 4, 5, 6)))
  clear = struct.pack('>3H', *(v * scale for v in (4, 5, 6)))
  data = png(2, [row], depth, 2, (b'tRNS', clear))
  assert decode(data, 'x', BLUE)[0].tolist() == [[1, 2, 3], list(BLUE)]


def test_alpha_of_grey_palettes_and_colours():
  rng = np.random.default_rng(0)
  colour = rng.integers(0, 256, (4, 5, 3), np.uint8)
  alpha = rng.integers(0, 256, (4, 5), np.uint8)
  wanted = with_alpha(colour, alpha / 255, BLUE)
  rgba = Image.fromarray(np.dstack([colour, alpha]))
  for kind in ('PNG', 'TIFF'):
    out = decode(saved(rgba, kind), 'x', BLUE)
    assert np.abs(out - wanted).max() <= 1
  luma = colour[..., :1].repeat(3, -1)
  both = Image.fromarray(np.dstack([colour[..., 0], alpha]), 'LA')
  out = decode(saved(both), 'x', BLUE)
  assert np.abs(out - with_alpha(luma, alpha / 255, BLUE)).max() <= 1
  palette = (b'PLTE', bytes([255, 0, 0, 0, 255, 0])), (b'tRNS', bytes([0, 255]))
  data = png(2, [bytes([0, 1])], 8, 3, *palette)
  assert decode(data, 'x', BLUE)[0].tolist() == [list(BLUE), [0, 255, 0]]


def test_other_colours():
  rng = np.random.default_rng(0)
  image = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
  for mode in ('CMYK', 'YCbCr'):
    out = decode(saved(image.convert(mode), 'TIFF'), 'x')
    wanted = np.asarray(image.convert(mode).convert('RGB'))
    np.testing.assert_array_equal(out, wanted)


def test_damaged_exif_does_not_spoil_a_picture():
  image = Image.new('RGB', (3, 2), (1, 2, 3))
  for exif in (
    b'Exif\0\0',
    b'Exif\0\0nonsense',
    b'Exif\0\0II*\0\xff\xff\xff\x7f',
  ):
    data = saved(image, exif=exif)
    np.testing.assert_array_equal(decode(data, 'x'), np.asarray(image))


def test_the_first_of_several_pictures():
  first, second = (Image.new('RGB', (3, 2), (0, v, 0)) for v in (0, 255))
  for kind in ('GIF', 'TIFF', 'WEBP', 'PNG'):
    options = {'save_all': True, 'append_images': [second]}
    assert decode(saved(first, kind, **options), 'x').max() == 0


# Masks.

REGION = np.zeros((4, 6), bool)
REGION[1:3, 2:5] = True
ONES = np.full((4, 6), 255)


def layers(*arrays):
  return Image.fromarray(np.dstack(arrays).astype(np.uint8))


@pytest.mark.parametrize(
  'mask',
  [
    Image.fromarray(REGION),
    Image.fromarray(REGION.astype(np.uint8)),
    Image.fromarray(REGION * np.uint8(255)),
    Image.fromarray(REGION.astype(np.uint16)),
    Image.fromarray(REGION * np.uint16(65535)),
    Image.fromarray(np.where(REGION, 300, 7).astype(np.uint16)),
    layers(REGION * 128, REGION * 0, REGION * 0),
    layers(ONES, ONES, ONES, REGION * 255),
    layers(REGION, ONES),
  ],
  ids=['bits', '1', '255', '16bit1', '16bit', 'any2', 'red', 'alpha', 'LA'],
)
def test_masks_of_two_values(mask):
  np.testing.assert_array_equal(decode_mask(saved(mask), 'x'), REGION)


def test_masks_of_integers_and_floats():
  for dtype in (np.int32, np.float32):
    mask = saved(Image.fromarray(REGION.astype(dtype)), 'TIFF')
    np.testing.assert_array_equal(decode_mask(mask, 'x'), REGION)


def test_masks_of_many_values_are_cut_in_the_middle():
  ramp = np.arange(256, dtype=np.uint8)[None]
  for deep in (ramp, ramp.astype(np.uint16) * 257):
    mask = decode_mask(saved(Image.fromarray(deep)), 'x')
    np.testing.assert_array_equal(mask, ramp > 127)


# JPEGs and simplejpeg.


def jpegs():
  """JPEGs of several kinds: mode, quality, subsampling, progressive."""
  noise = np.random.default_rng(1).integers(0, 256, (11, 13, 3), np.uint8)
  image = Image.fromarray(noise).resize((131, 97), 3)
  for mode in ('RGB', 'L', 'CMYK'):
    for quality, subsampling in ((50, 2), (75, 1), (95, 0)):
      for progressive in (False, True):
        options = {'quality': quality, 'subsampling': subsampling}
        options['progressive'] = progressive
        yield saved(image.convert(mode), 'JPEG', **options)


@pytest.fixture
def fresh(monkeypatch):
  """The decoder is chosen anew; afterwards it is as before."""
  choose = functools.cache(jpeg.package.__wrapped__)
  monkeypatch.setattr(jpeg, 'package', choose)


@pytest.mark.parametrize('off', [0, 1])
def test_a_faster_decoder_has_to_give_the_same_pixels(monkeypatch, fresh, off):
  decoded = []

  def decode_jpeg(data, colorspace):
    decoded.append(data)
    image = Image.open(io.BytesIO(data))
    mode = {'RGB': 'RGB', 'GRAY': 'L'}[colorspace]
    array = np.array(image.convert(mode)).reshape(*image.size[::-1], -1)
    array[-1, -1, -1] ^= off
    return array

  def decode_jpeg_header(data):
    image = Image.open(io.BytesIO(data))
    space = {'RGB': 'YCbCr', 'L': 'Gray'}.get(image.mode, 'CMYK')
    return image.height, image.width, space, '420'

  package = types.SimpleNamespace(
    decode_jpeg=decode_jpeg, decode_jpeg_header=decode_jpeg_header
  )
  monkeypatch.setitem(sys.modules, 'simplejpeg', None)
  wanted = [decode(data, 'x') for data in jpegs()]
  jpeg.package.cache_clear()
  monkeypatch.setitem(sys.modules, 'simplejpeg', package)
  for data, array in zip(jpegs(), wanted):
    np.testing.assert_array_equal(decode(data, 'x'), array)
  # The probes, and all of these but those in CMYK.
  assert len(decoded) == (1 if off else 2 + 12)


@pytest.mark.slow
def test_simplejpeg_itself_gives_the_same_pixels(monkeypatch, fresh):
  assert jpeg.package() is not None
  found = [decode(data, 'x') for data in jpegs()]
  cut = next(jpegs())[:-200]
  with pytest.raises(BrokenImage, match='truncated'):
    decode(cut, 'x')
  monkeypatch.setattr(jpeg, 'package', lambda: None)
  for data, array in zip(jpegs(), found):
    np.testing.assert_array_equal(decode(data, 'x'), array)
    assert array.dtype == np.uint8 and not array.flags.writeable
