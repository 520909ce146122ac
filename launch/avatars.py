"""Draws the options of avatars, and writes their captions; see `avatars.sh`.

    python launch/avatars.py my/avatars --number=20000 >jobs.jsonl

Every line of the output is a picture for `avatars.mjs`: its file, its style and the
options of DiceBear. A picture depends on the seed, its class and its place in the
class alone, so that a smaller set is the beginning of a larger one. No two pictures
of a class have the same options.
"""

import argparse
import hashlib
import json
import pathlib
import random
import re
import tomllib
from collections.abc import Iterator
from typing import Any

TABLE_PATH = pathlib.Path(__file__).with_suffix('.toml')
TABLE = tomllib.loads(TABLE_PATH.read_text(encoding='utf-8'))
STYLES: dict[str, Any] = TABLE['styles']
# Share of captions that say 'a face' instead of the style, and of parts that are
# left out, so that short captions are understood too.
ANY_STYLE = 0.15
UNSAID = 0.2


def values(text: str) -> list[str]:
  """'a b01..03' -> ['a', 'b01', 'b02', 'b03']."""
  found = []
  for word in text.split():
    match = re.fullmatch(r'(\D*)(\d+)\.\.(\d+)', word)
    if match is None:
      found.append(word)
    else:
      stem, first, last = match.groups()
      numbers = range(int(first), int(last) + 1)
      found += [f'{stem}{i:0{len(first)}d}' for i in numbers]
  return found


def draw(
  style: dict[str, Any], rng: random.Random
) -> tuple[dict[str, Any], dict[str, str]]:
  """Options of a picture in a style, and option -> words, '' for none.

  Args:
    style: of `STYLES`.
    rng: source of random numbers.

  Returns:
    the options as DiceBear reads them, with one value each; and words by option.
  """
  options: dict[str, Any] = {}
  colours = {}
  for key, palette in style['colours'].items():
    colours[key] = rng.choice(list(TABLE['palettes'][palette]))
    options[key] = [TABLE['palettes'][palette][colours[key]]]
  found = {}
  for key, choices in style['options'].items():
    # Values are equally likely, whatever words they share.
    flat = [(v, words) for words, t in choices.items() for v in values(t)]
    value, words = rng.choice(flat)
    shown = rng.random() < style.get('share', {}).get(key, 1)
    options |= {key: [value]} if shown else {}
    options[f'{key}Probability'] = 100 if shown else 0
    found[key] = words.format(**colours) if shown else ''
  for key, words in {
    'skinColor': '{} skin',
    'baseColor': '{} skin',
    'backgroundColor': 'a {} background',
  }.items():
    if key in colours:
      found[key] = words.format(colours[key])
  return options, found


def caption(
  style: dict[str, Any], words: dict[str, str], rng: random.Random
) -> str:
  """'a doodle with red hair and a beard, smiling, on a blue background'.

  Args:
    style: of `STYLES`.
    words: of `draw`.
    rng: says which parts are left out.
  """
  said = {k: w for k, w in words.items() if w and rng.random() >= UNSAID}
  moods, worn = style.get('mood', ()), style.get('in', ())
  skins = ('skinColor', 'baseColor')
  elsewhere = (*moods, *worn, *skins, 'backgroundColor')
  having = [said[k] for k in skins if k in said]
  having += [w for k, w in said.items() if k not in elsewhere]
  text = 'a face' if rng.random() < ANY_STYLE else style['noun']
  if having:
    *before, last = having
    text += f' with {", ".join(before)}{" and " if before else ""}{last}'
  text += ''.join(f', {said[k]}' for k in moods if k in said)
  text += ''.join(f', in {said[k]}' for k in worn if k in said)
  if 'backgroundColor' in said:
    text += f', on {said["backgroundColor"]}'
  return re.sub(r'\ba (?=[aeiou])', 'an ', text)


def pictures(
  name: str, number: int, seed: int
) -> Iterator[tuple[dict[str, Any], str]]:
  """Options and captions of the pictures of a class.

  Args:
    name: the class, a style of `STYLES`.
    number: of pictures.
    seed: any integer.
  """
  style, rng, seen = STYLES[name], random.Random(f'{seed}/{name}'), set()
  while len(seen) < number:
    options, words = draw(style, rng)
    text = caption(style, words, rng)
    key = json.dumps(options)
    if key not in seen:
      seen.add(key)
      yield options, text


def packages() -> list[str]:
  """The npm packages of the pictures, 'name@version'."""
  versions = dict(TABLE['packages'])
  core = versions['@dicebear/core']
  versions |= {f'@dicebear/{name}': core for name in STYLES}
  return [f'{name}@{version}' for name, version in versions.items()]


def credits_of(seed: int, size: int) -> str:
  """Who designed the pictures, their licences, and what they depend on.

  Args:
    seed: of the pictures.
    size: side in pixels.
  """
  table = hashlib.sha256(TABLE_PATH.read_bytes()).hexdigest()[:8]
  return '\n'.join(
    [
      'Pictures made with DiceBear (https://www.dicebear.com), in other colours.',
      'The designs; LICENSE of the npm package @dicebear/CLASS has links to them:',
      *(f'- {name}: {style["credit"]}' for name, style in STYLES.items()),
      'CC BY 4.0 is https://creativecommons.org/licenses/by/4.0/',
      'CC0 1.0 is https://creativecommons.org/publicdomain/zero/1.0/',
      f'Made by launch/avatars.sh, seed {seed}, {size} px, table {table}.',
      '',
    ]
  )


def main() -> None:
  flags = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  flags.add_argument('folder', type=pathlib.Path, nargs='?')
  flags.add_argument('--number', type=int, default=20_000)
  flags.add_argument('--seed', type=int, default=0)
  flags.add_argument('--size', type=int, default=64, help='side in pixels')
  flags.add_argument(
    '--packages', action='store_true', help='print the npm packages and stop'
  )
  args = flags.parse_args()
  if args.packages:
    print(*packages(), sep='\n')
    return
  if args.folder is None:
    flags.error('wanted a folder for the pictures')
  if args.number < len(STYLES):
    flags.error(
      f'--number={args.number}: wanted at least {len(STYLES)}, one of every class'
    )
  if not 1 <= args.size <= 4096:
    flags.error(f'--size={args.size}: wanted 1 to 4096 pixels')
  said = credits_of(args.seed, args.size)
  path = args.folder / 'CREDITS'
  if path.exists() and path.read_text(encoding='utf-8') != said:
    flags.error(
      f'{path} is of another seed, size or version: name a new folder'
    )
  args.folder.mkdir(parents=True, exist_ok=True)
  path.write_text(said, encoding='utf-8')
  for name in STYLES:
    folder = args.folder / name
    folder.mkdir(exist_ok=True)
    each = pictures(name, args.number // len(STYLES), args.seed)
    for i, (options, text) in enumerate(each):
      path = folder / f'{i:05d}.txt'
      path.write_text(f'{text}\n', encoding='utf-8')
      file = str(path.resolve().with_suffix('.png'))
      job = {'file': file, 'size': args.size, 'style': name}
      print(json.dumps({**job, 'options': options}))


if __name__ == '__main__':
  main()
