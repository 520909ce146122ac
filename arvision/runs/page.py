"""Self-contained HTML pages, from the templates of this package."""

import base64
import dataclasses
import functools
import io
import math
import pathlib
from typing import Any

import jinja2
from matplotlib.figure import Figure
from PIL import Image

from arvision.data import files
from arvision.data.base import BrokenImage
from arvision.evals import plots

_TEMPLATES = pathlib.Path(__file__).with_name('templates')
# Largest picture file that is embedded.
_PICTURE_BYTES = 2**28


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture inside a page.

  Attributes:
    source: data URI.
    about: text for readers who do not see it.
    width: in px.
    pixels: whether pixels are enlarged without smoothing.
  """

  source: str
  about: str
  width: int
  pixels: bool = False


def render(template: str, **values: Any) -> str:
  """A complete HTML document.

  Args:
    template: file name in the folder of templates.
    **values: variables of the template. Their text is escaped and is never a
      template itself.
  """
  text = _environment().get_template(template).render(values)
  # File names may contain bytes that are not UTF-8.
  return text.encode('utf-8', 'backslashreplace').decode()


@functools.cache
def _environment():
  found = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_TEMPLATES),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  found.filters['number'] = number
  return found


def picture(path: pathlib.Path, about: str, width: int = 640) -> Picture:
  """A PNG file; a small one is enlarged by an integer factor.

  Args:
    path: path of the file.
    about: text for readers who do not see it.
    width: in px, if the picture is smaller.

  Raises:
    BrokenImage: not a PNG file, or a damaged one.
  """
  try:
    data = files.read(path, _PICTURE_BYTES)
    with Image.open(io.BytesIO(data), formats=('PNG',)) as image:
      own = image.width
      image.verify()
  except Exception as error:  # Pillow has no common class of errors
    raise BrokenImage(f'{path}: not a whole PNG ({error})') from error
  factor = max(1, width // own)
  return Picture(_uri('png', data), about, own * factor, factor > 1)


def chart(figure: Figure, about: str) -> Picture:
  """A chart of `plots` as SVG."""
  width = round(figure.get_figwidth() * 96)
  return Picture(_uri('svg+xml', plots.svg(figure).encode()), about, width)


def _uri(kind, data):
  return f'data:image/{kind};base64,{base64.b64encode(data).decode()}'


def number(value: float) -> str:
  """A number with 4 significant digits and no trailing zeros."""
  if not math.isfinite(value):
    return str(value)
  if value and (abs(value) >= 1e6 or abs(value) < 1e-4):
    return f'{value:.3g}'
  if abs(value) >= 1000 or value == int(value):
    return f'{value:,.0f}'
  text = f'{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}'
  return text.rstrip('0').rstrip('.')


def short(value: float) -> str:
  """A number with 3 significant digits."""
  return number(float(f'{value:.3g}'))
