"""Runs the notebooks at full size, and writes docs/notebooks.md with their pictures.

    python launch/notebooks.py --only=sample,layouts --runs=runs/notebooks

The outputs stay in --runs, and colabs/ has none. The picture of a notebook is that of
the cell with the tag `picture`.
"""

import argparse
import base64
import io
import json
import os
import pathlib
import resource

import nbformat
import training
from nbclient import NotebookClient
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]
REPOSITORY = 'https://github.com/arvision/arvision'
COLABS = ROOT / 'colabs'
PAGE = ROOT / 'docs' / 'notebooks.md'
PICTURES = ROOT / 'docs' / 'images' / 'colabs'
SECONDS = PICTURES / 'seconds.json'
NAMES = (
  'sample',
  'layouts',
  'tokenizers',
  'train_your_images',
  'import_released_weights',
  'ablation',
)
LARGEST = 60_000  # bytes of a picture
_WIDTH = 900  # px of a picture


def badge(name: str) -> str:
  """The line that opens a notebook in Colab."""
  place = REPOSITORY.removeprefix('https://')
  return (
    '[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]'
    f'(https://colab.research.google.com/{place.replace(".com", "", 1)}'
    f'/blob/main/colabs/{name}.ipynb)'
  )


def install() -> str:
  """The cell that installs arvision where it is missing."""
  return f"""# Installs arvision where it is missing.
import importlib.util

if importlib.util.find_spec('arvision') is None:
  %pip install -q git+{REPOSITORY}"""


def read(name: str) -> nbformat.NotebookNode:
  """A notebook of colabs/."""
  return nbformat.read(COLABS / f'{name}.ipynb', as_version=4)


def run(name: str, folder: pathlib.Path) -> nbformat.NotebookNode:
  """A notebook with its outputs, run from top to bottom in a folder.

  Raises:
    nbclient.exceptions.CellExecutionError: a cell failed.
  """
  notebook = read(name)
  folder.mkdir(parents=True, exist_ok=True)
  where = {'metadata': {'path': str(folder)}}
  NotebookClient(notebook, timeout=None, resources=where).execute()
  return notebook


def texts(notebook: nbformat.NotebookNode) -> list[str]:
  """What every cell printed, as a page shows it: lines replace one another."""
  found = []
  for cell in notebook.cells:
    outputs = cell.get('outputs', ())
    text = ''.join(o.text for o in outputs if o.output_type == 'stream')
    lines = (line.rstrip().split('\r')[-1] for line in text.split('\n'))
    found.append('\n'.join(lines).strip())
  return found


def pictures(cell: nbformat.NotebookNode) -> list[bytes]:
  """The PNG and GIF files that a cell shows."""
  return [
    base64.b64decode(data)
    for output in cell.get('outputs', ())
    for kind, data in output.get('data', {}).items()
    if kind in ('image/png', 'image/gif')
  ]


def small(content: bytes) -> bytes:
  """A picture on white, as a PNG file that is small enough for docs.

  Raises:
    ValueError: it cannot be made so small.
  """
  found = Image.open(io.BytesIO(content)).convert('RGBA')
  page = Image.new('RGBA', found.size, 'white')
  page.alpha_composite(found)
  picture = page.convert('RGB')
  if picture.width > _WIDTH:
    height = round(picture.height * _WIDTH / picture.width)
    picture = picture.resize((_WIDTH, height), Image.Resampling.LANCZOS)
  for colours in (256, 64, 24):
    buffer = io.BytesIO()
    picture.quantize(colours).save(buffer, format='PNG', optimize=True)
    if buffer.tell() < LARGEST:
      return buffer.getvalue()
  raise ValueError(
    f'a picture of {picture.size} px takes {buffer.tell()} bytes'
  )


def page() -> str:
  """The text of the page."""
  spent = json.loads(SECONDS.read_text()) if SECONDS.exists() else {}
  parts = [
    '# Notebooks\n\n'
    'Made by `python launch/notebooks.py` from `colabs/`. They run on a CPU '
    'from top to bottom, install arvision where it is missing, and download nothing '
    'else. The seconds are those of one CPU core, compilation included; two cores '
    'take less.\n'
  ]
  for name in NAMES:
    title, _, text = read(name).cells[0].source.split('\n\n', 2)
    parts.append(
      f'\n## {title.removeprefix("# ")}\n\n{badge(name)}\n\n{text}\n'
    )
    if name in spent:
      took = spent[name]
      parts.append(f'\n{took["seconds"]} CPU seconds on {took["where"]}.\n')
    if (PICTURES / f'{name}.png').exists():
      parts.append(
        f'\n[![{title.removeprefix("# ")}](images/colabs/{name}.png)]'
        f'(../colabs/{name}.ipynb)\n'
      )
  return ''.join(parts)


def main() -> None:
  flags = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  flags.add_argument('--only', default=','.join(NAMES))
  flags.add_argument('--runs', default='runs/notebooks', type=pathlib.Path)
  args = flags.parse_args()
  for name in filter(None, args.only.split(',')):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run(name, args.runs)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    nbformat.write(done, args.runs / f'{name}.ipynb')
    (cell,) = (c for c in done.cells if 'picture' in c.metadata.get('tags', ()))
    PICTURES.mkdir(parents=True, exist_ok=True)
    (PICTURES / f'{name}.png').write_bytes(small(pictures(cell)[0]))
    seconds = sum(
      getattr(after, k) - getattr(before, k) for k in ('ru_utime', 'ru_stime')
    )
    spent = json.loads(SECONDS.read_text()) if SECONDS.exists() else {}
    spent[name] = {'seconds': round(seconds), 'where': training.where()}
    SECONDS.write_text(json.dumps(spent, indent=2) + '\n')
    print(f'{name}: {seconds:.0f} CPU seconds', flush=True)
  PAGE.write_text(page(), encoding='utf-8')


if __name__ == '__main__':
  os.environ.pop('ARVISION_NOTEBOOK_QUICK', None)
  main()
