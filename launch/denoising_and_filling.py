"""Draws docs/denoising_and_filling.md: who sees whom, and what is made when.

    python launch/denoising_and_filling.py

Layouts and samplers are those of the `tiny` config of every family.
"""

import dataclasses
import functools
import pathlib

import numpy as np

from arvision.build import build
from arvision.commands.common import load_config
from arvision.evals import drawings, layout_plots

DOCS = pathlib.Path(__file__).parents[1] / 'docs'
PAGE = DOCS / 'denoising_and_filling.md'
PICTURE = DOCS / 'images' / 'denoising_and_filling.svg'

_SIDE, _GAP, _LEFT, _TOP = 112, 24, 20, 34


@dataclasses.dataclass(frozen=True)
class Family:
  """A family in the picture.

  Attributes:
    name: above its column.
    config: name of its tiny config.
    text: what is special about it.
  """

  name: str
  config: str
  text: str

  @functools.cached_property
  def blocks(self):
    return load_config(self.config)

  @functools.cached_property
  def layout(self):
    return build(self.blocks.layout, 'layout')

  @functools.cached_property
  def sampler(self):
    return build(self.blocks.sampler, 'sampler')

  @functools.cached_property
  def seen(self) -> np.ndarray:
    """See `layout_plots.seen`."""
    return layout_plots.seen(self.layout)

  @functools.cached_property
  def made(self) -> np.ndarray:
    """See `layout_plots.made`."""
    return layout_plots.made(self.layout, self.sampler)


FAMILIES = (
  Family(
    'AR',
    'llamagen/tiny:B',
    'An entity is a token. The slot of a token predicts the next one, which is '
    'sampled at once; that of the condition predicts the first.',
  ),
  Family(
    'xAR',
    'xar/tiny:cell',
    'An entity is a cell of tokens, and starts as noise. The network denoises a '
    'cell in several passes, which read the finished cells before it. In training '
    'all cells are noisy, each at a level of its own, so one stream is enough.',
  ),
  Family(
    'ACDiT',
    'acdit/tiny',
    'The same blocks in two streams, clean and then noisy. Noisy slots see the '
    'clean slots of past blocks, so the past of training is as clean as that of '
    'sampling, for twice as many slots.',
  ),
  Family(
    'ARFlow',
    'arflow/tiny',
    'An entity is a whole image. A sequence of training has images of one class '
    'at falling noise; in sampling the entities are the image itself at falling '
    'noise. The past is read from a state of fixed size.',
  ),
  Family(
    'HMAR',
    'hmar/tiny',
    'An entity is a scale and sees itself alone: the past is in its input, the '
    'image so far. A scale is sampled at once; then some of its tokens are masked '
    'and filled again. M-VAR has the same mask, and a Mamba-2 layer carries a '
    'state from scale to scale.',
  ),
  Family(
    'MAR',
    'mar/tiny:B',
    'The image is one entity, with the slots of the condition. Masked tokens carry '
    'nothing, and are filled over several passes, in a random order.',
  ),
  Family(
    'Diffusion',
    'xar/tiny:image',
    'The image is one entity, and all of it is denoised in every pass.',
  ),
)


def svg() -> str:
  """The picture: a column for every family, masks above passes."""
  column, row = _SIDE + _GAP, _SIDE + 34
  width = _LEFT + column * len(FAMILIES)
  parts = []
  for i, family in enumerate(FAMILIES):
    x = _LEFT + i * column
    parts += [
      _text(x + _SIDE / 2, 16, family.name, 'middle', 'name'),
      _grid(family.seen, x, _TOP),
      _grid(family.made, x, _TOP + row),
    ]
  below = _TOP + _SIDE + 14
  parts += [
    _text(_LEFT, below, 'keys: slots of training'),
    _text(_LEFT, below + row, 'passes of the network in sampling'),
    _upright(_TOP + _SIDE, 'queries'),
    _upright(_TOP + row + _SIDE, 'tokens'),
  ]
  y = below + row + 14
  for i, kinds in enumerate((layout_plots.SEEN, layout_plots.MADE)):
    x = _LEFT
    for kind, text in kinds.items():
      place = f'x="{x}" y="{y + 18 * i}"'
      parts.append(f'<rect class="{kind}" {place} width="10" height="10"/>')
      parts.append(_text(x + 15, y + 9 + 18 * i, text))
      x += 34 + round(5.6 * len(text))
  colours = ''.join(
    f'.{k}{{fill:{c}}}' for k, c in layout_plots.COLOURS.items()
  )
  shades = ''.join(f'.noise{i}{{opacity:{i / 5:g}}}' for i in range(1, 5))
  return (
    f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
    f'viewBox="0 0 {width} {y + 36}"><style>'
    'text{font:11px sans-serif;fill:#5b6770}.name{font-weight:bold}'
    f'.frame{{fill:none;stroke:#d5dade}}{colours}{shades}'
    '@media (prefers-color-scheme:dark){text{fill:#a9b4be}'
    '.frame{stroke:#39424c}}</style>\n' + '\n'.join(parts) + '\n</svg>\n'
  )


def _text(x, y, words, anchor='start', kind=''):
  own = f' class="{kind}"' if kind else ''
  return f'<text{own} x="{x:g}" y="{y:g}" text-anchor="{anchor}">{words}</text>'


def _upright(y, words):
  """Text that reads from below to above, beside a row of grids."""
  return (
    f'<g transform="translate(12 {y}) rotate(-90)">{_text(0, 0, words)}</g>'
  )


def _grid(kinds, x, y):
  """Cells in a square, neighbours of a row and a kind as one rectangle."""
  rows, columns = kinds.shape
  scale = f'{_SIDE / columns:.4g} {_SIDE / rows:.4g}'
  inside = ''.join(
    f'<path class="{kind}" d="{path}"/>'
    for kind, path in drawings.cell_paths(kinds).items()
  )
  return (
    f'<g transform="translate({x} {y}) scale({scale})">{inside}</g>'
    f'<rect class="frame" x="{x}" y="{y}" width="{_SIDE}" height="{_SIDE}"/>'
  )


HEAD = """# Denoising and filling inside an entity

Made by `python launch/denoising_and_filling.py` from the layouts and samplers of the
`tiny` configs: images of 4 × 4 tokens (ARFlow 2 × 2), or scales of side 1 to 4.

An autoregressive image model samples one *entity* after another: a token, a cell, a
scale, a whole image. Its layout says what an entity is and which slots see which; its
sampler says how an entity comes about: it is sampled at once, denoised, or filled.
Between autoregression and diffusion lie the choices of these two.

![Who sees whom, and what is made when](images/denoising_and_filling.svg)

Above: slots of training as queries (down) and keys (across). Below: the passes of the
network in sampling, and what becomes of every token. The pass that writes a denoised
entity to the cache is not drawn.

| | layout | feed | sampler | slots | entities | passes | config |
|---|---|---|---|--:|--:|--:|---|
"""


def page() -> str:
  """The text of the page."""
  rows = [
    f'| {f.name} | {_types(f.blocks.layout)} | {_types(f.blocks.feed)} '
    f'| {_types(f.blocks.sampler)} | {f.layout.slots} | {f.layout.steps} '
    f'| {f.made.shape[1]} | `{f.config}` |\n'
    for f in FAMILIES
  ]
  texts = [f'- **{f.name}.** {f.text}\n' for f in FAMILIES]
  return HEAD + ''.join(rows) + '\n' + ''.join(texts)


def _types(block):
  """'`a.b` of `c.d`' for a layout that is made of another one."""
  own = '.'.join(block.type.split('.')[1:])
  inner = block.get('layout') if block.type.startswith('layouts') else None
  return f'`{own}`' + (f' of {_types(inner)}' if inner else '')


if __name__ == '__main__':
  PAGE.write_text(page(), encoding='utf-8')
  PICTURE.write_text(svg(), encoding='utf-8')
  print(f'{PAGE}\n{PICTURE}')
