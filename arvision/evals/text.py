"""Error rates of recognised text, pictures of text, and OCR by tesseract."""

import dataclasses
import io
import shutil
import subprocess
import textwrap
import unicodedata
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from arvision.errors import ConfigError, DataError
from arvision.ranges import Count, Natural

# Scripts without spaces between words: every character is a word.
_UNSPACED = ('CJK', 'HIRAGANA', 'KATAKANA')


def characters(text: str) -> list[str]:
  """Characters as readers count them: a letter with its combining marks.

  The text is composed (NFC) first, and white space becomes single spaces.
  """
  text = ' '.join(unicodedata.normalize('NFC', text).split())
  found: list[str] = []
  for c in text:
    if found and unicodedata.category(c).startswith('M'):
      found[-1] += c
    else:
      found.append(c)
  return found


def words(text: str) -> list[str]:
  """Words between white space; a Chinese or Japanese character is one."""
  found = []
  for run in unicodedata.normalize('NFC', text).split():
    word = ''
    for c in characters(run):
      if unicodedata.name(c[0], '').startswith(_UNSPACED):
        found += [word, c] if word else [c]
        word = ''
      else:
        word += c
    found += [word] if word else []
  return found


def distance(a: Sequence, b: Sequence) -> int:
  """Levenshtein distance: insertions, deletions and substitutions."""
  row = list(range(len(b) + 1))
  for i, x in enumerate(a, 1):
    before, row[0] = row[0], i
    for j, y in enumerate(b, 1):
      before, row[j] = (
        row[j],
        min(row[j] + 1, row[j - 1] + 1, before + (x != y)),
      )
  return row[-1]


def cer(reference: str, found: str) -> float:
  """Character error rate: edits over the length of the reference.

  It exceeds 1 if more is found than there was. An empty reference counts as one
  character: 0 if nothing is found, else the number of characters.
  """
  return _rate(characters(reference), characters(found))


def wer(reference: str, found: str) -> float:
  """Word error rate: the same in words."""
  return _rate(words(reference), words(found))


def _rate(reference, found):
  return distance(reference, found) / max(len(reference), 1)


class Ocr(Protocol):
  """Recognises text: a part of `config.evals.<name>.ocr`.

  Attributes:
    name: for the names of metrics.
  """

  name: str

  def __call__(self, image: np.ndarray) -> str:
    """(H, W, 1 or 3) uint8 -> the text in it."""


@dataclasses.dataclass(frozen=True)
class Tesseract:
  """OCR by the program tesseract, of the Debian package tesseract-ocr.

  Attributes:
    language: of an installed package tesseract-ocr-<language>; 'eng+deu' for
      several.
    mode: `--psm`: 6 for a block of text, 7 for a line, 11 for scattered text.
    enlarge: factor by which images are enlarged first; tesseract wants letters
      of 20 px or more.
    seconds: limit of time for an image.
  """

  language: str = 'eng'
  mode: Natural = 6
  enlarge: Count = 1
  seconds: Count = 60

  @property
  def name(self) -> str:
    return f'tesseract-{self.language}'.replace('+', '-')

  def __call__(self, image: np.ndarray) -> str:
    """See `Ocr`.

    Raises:
      ConfigError: tesseract is not installed, or fails.
    """
    program = shutil.which('tesseract')
    if program is None:
      raise ConfigError(
        'config.evals.*.ocr: there is no program tesseract; install it (Debian: '
        'apt-get install tesseract-ocr), or set ocr to None'
      )
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    size = picture.width * self.enlarge, picture.height * self.enlarge
    file = io.BytesIO()
    picture.resize(size, Image.Resampling.BICUBIC).save(file, 'png')
    options = ['-l', self.language, '--psm', str(self.mode)]
    try:
      done = subprocess.run(
        [program, 'stdin', 'stdout', *options],
        input=file.getvalue(),
        capture_output=True,
        timeout=self.seconds,
        check=False,
      )
    except subprocess.TimeoutExpired as error:
      raise ConfigError(
        f'tesseract took more than {self.seconds} s for an image of {size} px; '
        'raise config.evals.*.ocr.seconds'
      ) from error
    if done.returncode:
      lines = done.stderr.decode(errors='replace').strip().splitlines()
      raise ConfigError(
        f'tesseract {" ".join(options)} failed: {"; ".join(lines[-2:])}; see '
        'config.evals.*.ocr'
      )
    return done.stdout.decode(errors='replace')


def picture(
  text: str,
  shape: tuple[int, int, int],
  font: str | None = None,
  size: int = 16,
) -> np.ndarray:
  """Black text on white, in as many lines as it needs.

  Args:
    text: in a script that the font has.
    shape: (H, W, 1 or 3) of the picture.
    font: path of a font; None: the one that comes with Pillow, for Latin text.
    size: of the font in pixels.

  Returns:
    (H, W, 1 or 3) uint8.

  Raises:
    DataError: no such font, or a text that does not fit.
  """
  try:
    face = (
      ImageFont.truetype(font, size) if font else ImageFont.load_default(size)
    )
  except OSError as error:
    raise DataError(
      f"config.evals.*.font='{font}' cannot be opened ({error})"
    ) from error
  height, width, channels = shape
  drawn = Image.new('L', (width, height), 255)
  draw = ImageDraw.Draw(drawn)
  margin = size // 4
  for columns in range(len(text), 0, -1):
    lines = '\n'.join(textwrap.wrap(text, columns))
    box = draw.multiline_textbbox((margin, margin), lines, font=face)
    if box[2] + margin <= width:
      break
  if box[2] + margin > width or box[3] + margin > height:
    raise DataError(
      f"'{text}' at {size} px does not fit into {width} x {height} px: use "
      'shorter config.evals.*.texts, or a smaller font_size'
    )
  draw.multiline_text((margin, margin), lines, fill=0, font=face)
  return np.repeat(np.asarray(drawn)[..., None], channels, axis=-1)
