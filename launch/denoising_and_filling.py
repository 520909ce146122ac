"""Draws docs/denoising_and_filling.md: who sees whom, and what is made when.

    python launch/denoising_and_filling.py

Layouts and samplers are those of the `tiny` config of every family.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator

import numpy as np

from arvision import catalog
from arvision.build import build
from arvision.commands.common import load_config
from arvision.layouts import masks
from arvision.samplers.base import Filling

DOCS = pathlib.Path(__file__).parents[1] / 'docs'
PAGE = DOCS / 'denoising_and_filling.md'
PICTURE = DOCS / 'images' / 'denoising_and_filling.svg'

# Kinds of cells and what they mean, in the order of the legend.
SEEN = {'own': 'sees its own entity', 'past': 'sees past entities'}
MADE = {
  'drawn': 'sampled at once',
  'noise5': 'denoised, darker: more noise',
  'masked': 'masked',
  'filled': 'masked, filled in this pass',
  'done': 'finished',
}
_COLOURS = {
  'own': '#2f78c4',
  'past': '#a9cbee',
  'drawn': '#3a9b63',
  'masked': '#dcc8e6',
  'filled': '#a05cbc',
  'done': '#b9c1c8',
  **{f'noise{i}': '#d9702b' for i in range(1, 6)},
}
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
    """(n, n) kind of what a slot, a row, sees of another one; '' for nothing."""
    group = self.layout.group
    own = group[:, None] == group
    kinds = np.where(own, 'own', 'past')
    return np.where(masks.dense(self.layout), kinds, '')

  @functools.cached_property
  def made(self) -> np.ndarray:
    """(t, passes) kind of a token in every pass of the network in sampling."""
    layout = self.sampler.layout or self.layout
    columns, done = [], np.full(layout.tokens, '', '<U6')
    for s in range(layout.steps):
      tokens = np.flatnonzero(layout.entity_of_token == s)
      for kinds in _passes(self.sampler, s, layout.steps, len(tokens)):
        columns.append(done.copy())
        columns[-1][tokens] = kinds
      done[tokens] = 'done'
    return np.stack(columns, 1)


def _passes(sampler, s, steps, count) -> Iterator[np.ndarray]:
  """The kinds (count,) of the tokens of entity s, pass by pass.

  Which tokens stay masked depends on the seed, or on the network.
  """
  order = np.random.RandomState(s).permutation(count)
  plan = sampler.plan(s, steps)
  if sampler.refines:
    for level in sampler.solver.levels(plan)[:-1]:
      yield np.full(count, f'noise{max(1, round(5 * float(level)))}')
    return
  if isinstance(sampler, Filling):
    counts = sampler.counts(count)
  else:
    yield np.full(count, 'drawn')
    counts = [*(plan or ()), 0]
  for now, later in zip(counts, counts[1:]):
    kinds = np.full(count, 'done', '<U6')
    kinds[order[:now]], kinds[order[:later]] = 'filled', 'masked'
    yield kinds


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


def families() -> list[Family]:
  """The families whose configs are installed."""
  names = {*catalog.names()}
  return [f for f in FAMILIES if f.config.partition(':')[0] in names]


def svg(shown: list[Family]) -> str:
  """The picture: a column for every family, masks above passes."""
  column, row = _SIDE + _GAP, _SIDE + 34
  width = _LEFT + column * len(shown)
  parts = []
  for i, family in enumerate(shown):
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
  for i, kinds in enumerate((SEEN, MADE)):
    x = _LEFT
    for kind, text in kinds.items():
      place = f'x="{x}" y="{y + 18 * i}"'
      parts.append(f'<rect class="{kind}" {place} width="10" height="10"/>')
      parts.append(_text(x + 15, y + 9 + 18 * i, text))
      x += 34 + round(5.6 * len(text))
  colours = ''.join(f'.{k}{{fill:{c}}}' for k, c in _COLOURS.items())
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
  paths: dict[str, list[str]] = {}
  for i, line in enumerate(kinds):
    cuts = np.flatnonzero(line[1:] != line[:-1]) + 1
    for first, end in zip([0, *cuts], [*cuts, columns]):
      span = int(end - first)
      path = f'M{first} {i}h{span}v1h-{span}z'
      paths.setdefault(str(line[first]), []).append(path)
  scale = f'{_SIDE / columns:.4g} {_SIDE / rows:.4g}'
  inside = ''.join(
    f'<path class="{kind}" d="{"".join(paths[kind])}"/>'
    for kind in sorted(paths)
    if kind
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


def page(shown: list[Family]) -> str:
  """The text of the page."""
  rows = [
    f'| {f.name} | {_types(f.blocks.layout)} | {_types(f.blocks.feed)} '
    f'| {_types(f.blocks.sampler)} | {f.layout.slots} | {f.layout.steps} '
    f'| {f.made.shape[1]} | `{f.config}` |\n'
    for f in shown
  ]
  texts = [f'- **{f.name}.** {f.text}\n' for f in shown]
  return HEAD + ''.join(rows) + '\n' + ''.join(texts)


def _types(block):
  """'`a.b` of `c.d`' for a layout that is made of another one."""
  own = '.'.join(block.type.split('.')[1:])
  inner = block.get('layout') if block.type.startswith('layouts') else None
  return f'`{own}`' + (f' of {_types(inner)}' if inner else '')


if __name__ == '__main__':
  PAGE.write_text(page(families()), encoding='utf-8')
  PICTURE.write_text(svg(families()), encoding='utf-8')
  print(f'{PAGE}\n{PICTURE}')
