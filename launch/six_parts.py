"""Draws the pictures of docs/six_parts.md, one for every part.

    python launch/six_parts.py

Shapes of tokens, orders, masks, passes and conditions are those of `tiny` configs.
Feeds and noise are shown with a digit of scikit-learn whose pixels are tokens, and
heads have random weights.
"""

import functools
import math
import pathlib
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.colors import to_hex

from arvision.build import build
from arvision.commands.common import load_config
from arvision.configs.common import block
from arvision.data.digits import Digits
from arvision.evals import layout_plots
from arvision.evals.drawings import FAINT, PALE, RULE, WHITE, Drawing
from arvision.process.logits import LogitsFilter
from arvision.random import Draw
from arvision.structs import Cond, Query, Slots, Tokens
from arvision.tasks import assemble

DOCS = pathlib.Path(__file__).parents[1] / 'docs'
PAGE = DOCS / 'six_parts.md'
FOLDER = DOCS / 'images' / 'six_parts'

_WIDTH = 820
_CONDITION = layout_plots.CONDITION
_COLOURS = layout_plots.COLOURS
_NAMES = {
  'llamagen': 'LlamaGen',
  'titok': 'TiTok',
  'nar': 'NAR',
  'var': 'VAR',
  'xar': 'xAR',
  'mar': 'MAR',
  'infinity': 'Infinity',
}


@functools.cache
def tiny(name: str):
  """The config `name/tiny`, or `name/tiny:size` of 'name:size'."""
  family, colon, size = name.partition(':')
  return load_config(f'{family}/tiny{colon}{size}')


def part(name: str, kind: str, **changed):
  """A part of a tiny config, with some of its fields changed."""
  fields = tiny(name)[kind].copy_and_resolve_references().unlock()
  for key, value in changed.items():
    fields[key] = value
  return build(fields, kind)


@functools.cache
def digit() -> np.ndarray:
  """(8, 8) float64, 0 for paper and 1 for ink."""
  return Digits()[13]['image'][..., 0] / 255


def tokenizer() -> Drawing:
  """An image, and the tokens that it becomes in four tokenizers."""
  picture = Drawing(_WIDTH, 216)
  _digit(picture, 'image')
  x = 184.0
  for name in ('llamagen', 'titok', 'var', 'mar'):
    spec = assemble.make_tokenizer(tiny(name)).spec
    side = 26 if len(spec.grids) == 1 else 20
    left = x
    # The numbers of a vector are stripes.
    kinds = ('own', 'past') if spec.parts > 1 else ('own',)
    for rows, columns in spec.grids:
      y = 104 - rows * side / 2
      stripes = np.resize(kinds, (rows, columns * spec.parts))
      picture.cells(
        x, y, (side / spec.parts, side), layout_plots.colours(stripes)
      )
      picture.cuts(x, y, side, (rows, columns), 3)
      x += columns * side + 8
    lines = f'{spec.length} ids,', f'each one of {spec.size}'
    if not spec.size:
      lines = f'{spec.length} vectors', f'of {spec.parts} numbers'
    _names(picture, (left + x - 8) / 2, name, *lines)
    x += 18
  return picture


def layout() -> Drawing:
  """The steps at which five papers predict the tokens of an image."""
  picture = Drawing(_WIDTH, 216)
  x = 10.0
  for name, order in (
    ('llamagen', 'by token'),
    ('nar', 'by diagonal'),
    ('var', 'by scale'),
    ('xar', 'by cell'),
    ('mar', 'all at once'),
  ):
    found = part(name, 'layout')
    side = 31 if len(found.grids) == 1 else 20
    left = x
    for steps in _by_grid(found.entity_of_token, found):
      y = 104 - len(steps) * side / 2
      _steps(picture, x, y, side, steps, found.steps)
      x += steps.shape[1] * side + 6
    count = f'{found.steps} step{"s" * (found.steps > 1)}'
    _names(picture, (left + x - 6) / 2, name, order, count)
    x += 15
  return picture


def feed() -> Drawing:
  """A digit, and what the feeds of four papers give the network of it."""
  picture = Drawing(_WIDTH, 216)
  _digit(picture, 'the tokens')
  x = 184.0
  for name, image, lines in (
    ('llamagen', 0, ('the condition, then', 'tokens one step late')),
    ('var', 0, ('the sum of the', 'scales before')),
    ('xar', 2, ('every cell with', 'its own noise')),
    ('mar', 0, ('those that are', 'unmasked')),
  ):
    grids = given(name, image)
    side = 15 if len(grids) == 1 else 12
    left = x
    for colours in grids:
      long = len(colours) * side
      picture.cells(x, 104 - long / 2, side, colours)
      if name == 'xar':
        picture.cuts(x, 104 - long / 2, long / 2, (2, 2), 3)
      picture.frame(x, 104 - long / 2, long, long)
      x += long + 6
    _names(picture, (left + x - 6) / 2, name, *lines)
    x += 11
  return picture


def given(name: str, image: int) -> list[np.ndarray]:
  """What slots carry in training, at the places of the tokens they predict.

  Tokens are the pixels of the digit, one number each, and the layout is as large.

  Args:
    name: of a config.
    image: number of the image, on which noise and masks depend.

  Returns:
    (rows, columns) colours of every grid.
  """
  latent = jnp.asarray(2 * digit() - 1, jnp.float32)[None, ..., None]
  values, codec = latent.reshape(1, -1, 1), None
  if name == 'var':
    size = {'scales': (1, 2, 4, 8)}
    # Pixels are the latent, without convolutions and codebook.
    pixels = block(type='quantizers.kl.KL', channels=1)
    changed = {'quantizer': pixels, 'phi_ratio': 0.0, **size}
    codec = part(name, 'tokenizer', **changed).bind({})
    values = jnp.concatenate(codec.quantize(latent)[0], 1)
  else:
    size = {'height': 8, 'width': 8}
    size |= {'cell': (4, 4)} if name == 'xar' else {}
  found = part(name, 'layout', **size)
  draw = Draw.create(0, jnp.array([image]))
  slots, _ = part(name, 'feed').train(Tokens(values), found, codec, draw)
  colours = _grey((np.asarray(slots.values)[0, :, 0] + 1) / 2)
  if slots.masked is not None:
    colours[np.asarray(slots.masked)[0]] = _COLOURS['masked']
  colours[: found.prefix] = _CONDITION
  return _by_grid(colours[found.readout[:, 0]], found)


def backbone() -> Drawing:
  """Which slots see which, in four papers."""
  picture = Drawing(_WIDTH, 220)
  picture.text(24, 106, 'slots', size=15, colour=PALE, up=True)
  x = 36
  for name in ('llamagen', 'var', 'xar', 'mar'):
    kinds = layout_plots.seen(part(name, 'layout'))
    side = 144 / len(kinds)
    picture.cells(x, 34, side, layout_plots.colours(kinds))
    picture.cuts(x, 34, side, kinds.shape, 0.7 if side > 6 else 0.3)
    picture.frame(x, 34, 144, 144)
    _names(picture, x + 72, name)
    x += 205
  row = 'A row is what one slot sees:'
  picture.text(36, 206, row, size=15, colour=PALE, anchor='start')
  kinds = {'own': 'its own entity', 'past': 'past entities', '': 'nothing'}
  picture.legend(290, 206, _by_colour(kinds))
  return picture


def head() -> Drawing:
  """A distribution over ids, one over bits, and a path from noise to data."""
  picture = Drawing(_WIDTH, 216)
  shares, sampled = probabilities('llamagen')
  for i, share in enumerate(shares):
    tall = 1 + round(107 * share / max(shares))
    colour = _COLOURS['drawn' if i == sampled else 'past']
    picture.box(10 + 4 * i, 148 - tall, 3, tall, colour)
  picture.line([(10, 148.5), (266, 148.5)], RULE)
  picture.text(11.5 + 4 * int(sampled), 165, str(sampled), size=15)
  lines = 'the probability of each of', f'{len(shares)} ids; one is sampled'
  _titles(picture, 138, 'an id', *lines)

  shares, sampled = probabilities('infinity')
  for i, (share, bit) in enumerate(zip(shares, sampled)):
    x = 302 + 18 * i
    zero = round(108 * share[0])
    kinds = ('past', 'drawn') if bit else ('drawn', 'past')
    picture.box(x, 40, 15, zero, _COLOURS[kinds[0]])
    picture.box(x, 40 + zero, 15, 108 - zero, _COLOURS[kinds[1]])
    picture.text(x + 7.5, 165, str(bit), size=15)
  lines = 'the same', 'for every bit'
  _titles(picture, 373, f'{len(shares)} bits', *lines)

  flow = part('xar', 'feed').path
  levels = part('xar', 'sampler').solver.levels(4)
  noise = np.asarray(Draw.create(0, jnp.arange(1)).normal('noise', (8, 8)))[0]
  x = 478.0
  for level in levels.tolist():
    values = flow((2 * digit() - 1)[..., None], noise[..., None], level).values
    picture.cells(x, 76, 7, _grey((np.asarray(values)[..., 0] + 1) / 2))
    picture.frame(x, 76, 56, 56)
    x += 69
    if level:
      picture.line([(x - 12, 104), (x - 4, 104)], head=True)
  _titles(picture, 644, 'vectors', 'noise, taken away', 'step by step')
  return picture


def probabilities(name: str) -> tuple[np.ndarray, np.ndarray]:
  """What a head with random weights says of a token, and a sample of it.

  Returns:
    (v,) float32 probabilities, or (parts, v); and an id, or (parts,).
  """
  made = part(name, 'head', std=0.35)
  draw = Draw.create(0, jnp.arange(1))
  z = draw.normal('z', (1, 1, tiny(name).backbone.width))
  query = Query(present=np.ones((1, 1), bool))
  logits, variables = made.init_with_output(
    jax.random.key(0), z, query, method='field'
  )
  unguided = lambda logits, *_: logits
  args = z, draw, unguided, LogitsFilter(), query
  sampled = made.apply(variables, *args, method='sample')
  return np.asarray(jax.nn.softmax(logits))[0, 0], np.asarray(sampled)[0, 0]


def sampler() -> Drawing:
  """What four samplers make in some passes of the network."""
  picture = Drawing(_WIDTH, 220)
  for i, (name, passes) in enumerate(
    (
      ('llamagen', (1, 2, 3, 4, 16)),
      ('xar', (1, 2, 3, 4, 12)),
      ('var', (1, 2, 3, 4)),
      ('mar', (1, 2, 3)),
    )
  ):
    found = part(name, 'layout')
    made = layout_plots.made(found, part(name, 'sampler'))
    side = 13 if len(found.grids) == 1 else 7.5
    x, top, before = 10 + 420.0 * (i % 2), 97 * (i // 2), 0
    picture.text(x, top + 17, _NAMES[name], bold=True, anchor='start')
    for number in passes:
      if number > before + 1:
        picture.text(x + 8, top + 54, '…')
        x += 28
      left, before = x, number
      for kinds in _by_grid(made[:, number - 1], found):
        rows, columns = kinds.shape
        y = top + 51 - rows * side / 2
        picture.cells(x, y, side, layout_plots.colours(kinds))
        picture.cuts(x, y, side, kinds.shape, 1)
        picture.frame(x, y, columns * side, rows * side)
        x += columns * side + 4
      words = 'pass 1' if number == 1 else str(number)
      picture.text((left + x - 4) / 2, top + 92, words, size=14, colour=PALE)
      x += 12
  kinds = {
    'drawn': 'sampled',
    'noise5': 'denoised',
    'masked': 'masked',
    'filled': 'filled in',
    'done': 'finished',
  }
  picture.legend(10, 214, _by_colour(kinds))
  return picture


def condition() -> Drawing:
  """Three ways of a condition into the network: in front, modulation, memory."""
  picture = Drawing(_WIDTH, 216)
  for i, (name, source, way, line) in enumerate(
    (
      ('llamagen:t2i', 'caption', 'slots in front', 'seen by all that follow'),
      ('xar', 'label, noise', 'modulation', 'scales the layers'),
      ('infinity', 'caption', 'a memory', 'all slots attend to it'),
    )
  ):
    found, made = part(name, 'layout'), conditioned(name)
    middle, side = 136 + 274.0 * i, 12
    left = middle - found.slots * side / 2
    slots = left + side * (np.arange(found.slots) + 0.5)
    front = slots[: found.prefix]
    # Vectors between the source and the slots: where, and whom they reach.
    reached: list[np.ndarray] = []
    places: Sequence[float] = []
    if made.memory is not None:
      count = made.memory.shape[1]
      reached = [slots] * count
      places = middle + 48 * (np.arange(count) - (count - 1) / 2)
    elif made.modulation is not None:
      reached = [slots[found.entity == s] for s in range(found.steps)]
      places = [float(np.mean(group)) for group in reached]
    half = 5 * len(source) + 10
    box = middle if reached else left + half
    for place, group in zip(places, reached):
      picture.line([(middle, 62), (place, 84)])
      for slot in group:
        picture.line([(place, 98), (slot, 128)], FAINT, 0.8)
      picture.box(place - 7, 84, 14, 14, _CONDITION)
    for slot in front:
      way_in = [(box, 62), (slot, 126)]
      if reached:
        way_in = [(box - half, 50), (slot, 50), (slot, 126)]
      picture.line(way_in, head=True)
    colours = np.full((1, found.slots), _COLOURS['past'])
    colours[:, : found.prefix] = _CONDITION
    picture.cells(left, 130, (side, 24), colours)
    picture.cuts(left, 130, (side, 24), colours.shape)
    picture.box(box - half, 38, 2 * half, 24, WHITE, _CONDITION, 5)
    picture.text(box, 55, source, size=15)
    family = _NAMES[name.partition(':')[0]]
    _titles(picture, middle, way, f'{family}:', line)
  return picture


def conditioned(name: str) -> Cond:
  """The shapes of what a condition gives for one image."""
  made, found = part(name, 'condition'), part(name, 'layout')
  level = jnp.zeros((1, found.steps))
  slots = Slots(jnp.zeros((1, found.slots)), found.index, level=level)

  def call(key):
    inputs, null = made.blank(1), jnp.zeros(1, bool)
    return made.init_with_output(key, inputs, slots, null=null)[0]

  return jax.eval_shape(call, jax.random.key(0))


def _digit(picture, title):
  """The digit, and an arrow to the right of it."""
  picture.text(70, 24, title, bold=True)
  picture.cells(10, 44, 15, _grey(digit()))
  picture.frame(10, 44, 120, 120)
  picture.line([(140, 104), (166, 104)], head=True)


def _titles(picture, x, title, *lines):
  """A title above, and pale lines below."""
  picture.text(x, 24, title, bold=True)
  for i, line in enumerate(lines):
    picture.text(x, 190 + 18 * i, line, size=15, colour=PALE)


def _names(picture, x, name, *lines):
  _titles(picture, x, _NAMES[name], *lines)


def _steps(picture, x, y, side, steps, count):
  """A grid with the number of the step in every cell, late ones darker."""
  colours = np.vectorize(lambda s: to_hex(layout_plots.shade(s, count)))(steps)
  picture.cells(x, y, side, colours)
  picture.cuts(x, y, side, steps.shape)
  for (i, j), step in np.ndenumerate(steps):
    picture.text(
      x + (j + 0.5) * side,
      y + (i + 0.5) * side + 5.5,
      str(step),
      colour=layout_plots.ink_on(colours[i, j]),
    )


def _by_colour(kinds: dict[str, str]) -> dict[str, str]:
  """Kind of cell -> words, as colour -> words."""
  return {_COLOURS.get(kind, WHITE): words for kind, words in kinds.items()}


def _grey(ink: np.ndarray) -> np.ndarray:
  """Ink in [0, 1] -> colours; the same on all machines, ties never occur."""
  levels = np.floor(99.5123 - 99 * np.clip(ink, 0, 1)).astype(int)
  return np.vectorize(lambda level: '#' + f'{level * 255 // 99:02x}' * 3)(
    levels
  )


def _by_grid(values: np.ndarray, found) -> list[np.ndarray]:
  """Values (t,) of tokens -> (rows, columns) of every grid."""
  ends = np.cumsum([math.prod(grid) for grid in found.grids])[:-1]
  pieces = np.split(values, ends)
  return [piece.reshape(grid) for piece, grid in zip(pieces, found.grids)]


PARTS = (tokenizer, layout, feed, backbone, head, sampler, condition)


def svgs() -> dict[str, str]:
  """Name of a part -> the content of its file, with the title of the page."""
  page, found = PAGE.read_text(encoding='utf-8'), {}
  for draw in PARTS:
    name = draw.__name__
    link = re.search(rf'!\[(.+)\]\(images/six_parts/{name}\.svg\)', page)
    assert link, f'{PAGE} has no picture of the {name}'
    found[name] = draw().svg(link[1])
  return found


if __name__ == '__main__':
  FOLDER.mkdir(exist_ok=True)
  for name, content in svgs().items():
    path = FOLDER / f'{name}.svg'
    path.write_text(content, encoding='utf-8')
    print(path)
