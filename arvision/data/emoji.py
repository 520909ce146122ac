"""Images of the characters of a colour-emoji font, with their names."""

import dataclasses
import functools
import pathlib
import unicodedata
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from arvision.build import Checked
from arvision.data import emoji_table
from arvision.data.base import Example, Source
from arvision.errors import DataError
from arvision.ranges import Byte, Side

# A noncharacter, which every font renders as its missing glyph.
_MISSING = '\U0010fffe'


@dataclasses.dataclass(frozen=True, eq=False)
class Emoji(Checked, Source):
  """All single-character emoji of a font.

  The caption is the Unicode name in lower case. Characters without a name in
  this Python's Unicode tables are left out, so their number depends on both.
  Flags, keycaps and skin tones have several characters and are left out too.

  Attributes:
    font: path of the font, for example NotoColorEmoji.ttf.
    size: side of the square images in pixels.
    background: RGB behind the glyph, 0 to 255.
    classes_by: 'group' (faces, animals, food, ...) or 'block' (of Unicode).
      Only classes with an image exist, sorted by name.
    bitmap_size: size at which the font is opened. A bitmap font has only one
      (109 for Noto); images are scaled from it.
  """

  font: str
  size: Side = 64
  background: tuple[Byte, Byte, Byte] = (255, 255, 255)
  classes_by: Literal['group', 'block'] = 'group'
  bitmap_size: Side = 109
  may_break = False

  @functools.cached_property
  def _pictures(self) -> tuple[np.ndarray, list[str], list[str]]:
    font = _open(self.font, self.bitmap_size)
    codes = rendered(font)
    if not codes:
      raise DataError(
        f'{self.font}: has no emoji; set config.data.source.font to a '
        'colour-emoji font'
      )
    images = [
      render(font, chr(code), self.size, self.background) for code in codes
    ]
    return np.stack(images), [_name(code) for code in codes], self._kinds(codes)

  def _kinds(self, codes):
    if self.classes_by == 'block':
      return [emoji_table.lookup(emoji_table.BLOCKS, code) for code in codes]
    return [
      emoji_table.lookup(emoji_table.GROUPS, code) or emoji_table.OTHER_GROUP
      for code in codes
    ]

  @functools.cached_property
  def classes(self) -> tuple[str, ...]:
    return tuple(sorted(set(self._pictures[2])))

  @functools.cached_property
  def labels(self) -> np.ndarray:
    number = {name: i for i, name in enumerate(self.classes)}
    return np.array([number[kind] for kind in self._pictures[2]], np.int32)

  def name(self, i: int) -> str:
    return self._pictures[1][i]

  def __len__(self) -> int:
    return len(self._pictures[1])

  def __getitem__(self, i: int) -> Example:
    images, names, _ = self._pictures
    return {
      'image': images[i],
      'label': int(self.labels[i]),
      'caption': names[i],
    }


def _name(code):
  return unicodedata.name(chr(code), '').lower()


def _open(path, size):
  if not pathlib.Path(path).is_file():
    raise DataError(
      f'{path}: no such font; set config.data.source.font (Debian has '
      'NotoColorEmoji.ttf in the package fonts-noto-color-emoji)'
    )
  try:
    # The other engine, Raqm, fails on characters without a glyph.
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
  except OSError as error:
    raise DataError(
      f'{path}: cannot be opened at {size} pixels ({error}); look at config.'
      'data.source.bitmap_size'
    ) from error


def rendered(font: ImageFont.FreeTypeFont) -> list[int]:
  """Named code points of the emoji blocks with a glyph in a font."""

  def ink(character):
    mask = font.getmask(character, mode='L')
    return mask.size, bytes(mask)

  missing = ink(_MISSING)

  def has(code):
    (width, height), pixels = shape_and_pixels = ink(chr(code))
    return width * height > 0 and any(pixels) and shape_and_pixels != missing

  return [code for code in emoji_table.codes() if _name(code) and has(code)]


def render(
  font: ImageFont.FreeTypeFont,
  character: str,
  size: int,
  background: tuple[int, int, int],
) -> np.ndarray:
  """Renders a character, centred in a square that its longer side fills.

  Returns:
    (size, size, 3) uint8.
  """
  left, top, right, bottom = font.getbbox(character)
  width, height = int(np.ceil(right - left)), int(np.ceil(bottom - top))
  side = max(width, height)
  image = Image.new('RGB', (side, side), tuple(background))
  corner = ((side - width) // 2 - left, (side - height) // 2 - top)
  draw = ImageDraw.Draw(image)
  draw.text(corner, character, (0, 0, 0), font=font, embedded_color=True)
  return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))
