"""Builds a report as one self-contained HTML file, without scripts and links."""

import base64
import html
import io
import pathlib
from collections.abc import Mapping, Sequence

from PIL import Image

from arvision.data import files
from arvision.data.base import BrokenImage

# Largest picture file that is embedded.
_PICTURE_BYTES = 2**28

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f6f7f9; color: #1d2733;
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 40px 24px 72px; }
header { margin-bottom: 28px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 6px; font-weight: 650; }
h2 { font-size: 18px; margin: 0 0 14px; font-weight: 620; }
h3 { font-size: 14px; margin: 0 0 6px; font-weight: 600; }
p { margin: 0 0 12px; }
.quiet { color: #5b6770; }
.cards { display: grid; gap: 12px; margin: 0 0 24px;
  grid-template-columns: repeat(auto-fit, minmax(136px, 1fr)); }
.card { background: #fff; border: 1px solid #e3e6ea; border-radius: 10px;
  padding: 14px 16px; }
.card b { display: block; font-size: 24px; line-height: 1.25;
  font-weight: 620; font-variant-numeric: tabular-nums; white-space: nowrap; }
.card span { color: #5b6770; font-size: 13px; line-height: 1.35;
  display: block; }
section { background: #fff; border: 1px solid #e3e6ea; border-radius: 10px;
  padding: 22px 24px; margin-bottom: 20px; overflow-x: auto; }
.grid { display: grid; gap: 22px 28px;
  grid-template-columns: repeat(auto-fit, minmax(330px, 1fr)); }
figure { margin: 0; min-width: 0; }
figcaption { color: #5b6770; font-size: 13px; margin-top: 6px; }
img { max-width: 100%; height: auto; border-radius: 4px; display: block; }
img.pixels { image-rendering: pixelated; }
svg { max-width: 100%; height: auto; display: block; }
svg .axis { font: 11px system-ui, sans-serif; fill: #5b6770; }
svg .rule { stroke: #e3e6ea; stroke-width: 1; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; font-weight: 600; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid #edeff2;
  vertical-align: top; }
td:last-child, th:last-child { text-align: right; padding-right: 0;
  font-variant-numeric: tabular-nums; }
.legend { margin: 2px 0 0; font-size: 12px; color: #5b6770; }
.key { margin-right: 14px; white-space: nowrap; }
.key i { display: inline-block; width: 10px; height: 10px; margin-right: 5px;
  border-radius: 2px; }
details + details { margin-top: 10px; }
summary { cursor: pointer; font-weight: 600; }
pre { background: #f6f7f9; border-radius: 6px; padding: 12px 14px;
  overflow-x: auto; font: 12.5px/1.5 ui-monospace, Menlo, Consolas, monospace; }
code { font: 13px ui-monospace, Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
"""


def page(title: str, lead: str, parts: Sequence[str]) -> str:
  """A complete HTML document.

  Args:
    title: title and heading.
    lead: line below the heading.
    parts: results of `cards` and `section`; empty ones are left out.
  """
  body = '\n'.join(p for p in parts if p)
  text = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f'<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n'
    f'<body>\n<main>\n<header><h1>{html.escape(title)}</h1>'
    f'<p class="quiet">{html.escape(lead)}</p></header>\n{body}\n</main>\n'
    '</body>\n</html>\n'
  )
  # File names may contain bytes that are not UTF-8.
  return text.encode('utf-8', 'backslashreplace').decode()


def cards(figures: Sequence[tuple[str, str]]) -> str:
  """(value, label) pairs as a row of boxes."""
  boxes = [
    f'<div class="card"><b>{html.escape(value)}</b>'
    f'<span>{html.escape(label)}</span></div>'
    for value, label in figures
  ]
  return f'<div class="cards">{"".join(boxes)}</div>' if boxes else ''


def section(title: str, content: str, note: str = '') -> str:
  """A box with a title; '' without content."""
  if not content:
    return ''
  text = f'<p class="quiet">{html.escape(note)}</p>' if note else ''
  return f'<section><h2>{html.escape(title)}</h2>{text}{content}</section>'


def grid(items: Sequence[str]) -> str:
  """Figures in a responsive grid."""
  items = [item for item in items if item]
  return f'<div class="grid">{"".join(items)}</div>' if items else ''


def figure(content: str, title: str = '', caption: str = '') -> str:
  """A chart or picture with a title and a caption."""
  if not content:
    return ''
  head = f'<h3>{html.escape(title)}</h3>' if title else ''
  foot = f'<figcaption>{html.escape(caption)}</figcaption>' if caption else ''
  return f'<figure>{head}{content}{foot}</figure>'


def picture(path: pathlib.Path, about: str, width: int = 640) -> str:
  """An embedded PNG file; small ones are enlarged by an integer factor.

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
  kind = ' class="pixels"' if factor > 1 else ''
  text = base64.b64encode(data).decode()
  return (
    f'<img{kind} width="{own * factor}" alt="{html.escape(about)}" '
    f'src="data:image/png;base64,{text}">'
  )


def table(rows: Sequence[tuple[str, str]], head: tuple[str, str]) -> str:
  """A table of two columns: names in code type, values right-aligned."""
  if not rows:
    return ''
  lines = [
    f'<tr><td><code>{html.escape(name)}</code></td>'
    f'<td>{html.escape(value)}</td></tr>'
    for name, value in rows
  ]
  top = ''.join(f'<th>{html.escape(h)}</th>' for h in head)
  return f'<table><tr>{top}</tr>{"".join(lines)}</table>'


def folded(texts: Mapping[str, str]) -> str:
  """Collapsed texts, by name."""
  return ''.join(
    f'<details><summary>{html.escape(name)}</summary>'
    f'<pre>{html.escape(text)}</pre></details>'
    for name, text in texts.items()
  )
