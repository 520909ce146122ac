"""The notebooks run from top to bottom, but train for a few steps."""

import pathlib
import re

import nbformat
import pytest
from nbclient import NotebookClient

COLABS = sorted((pathlib.Path(__file__).parents[2] / 'colabs').glob('*.ipynb'))

SHORT = """
  'train.duration.steps=4',
  'evals.every.steps=4',
  'pictures.every.steps=4',
  'optim.schedule.warmup.steps=1',
  'tokenizer.encoder.ch=8',
  'tokenizer.decoder.ch=8'
"""


@pytest.mark.parametrize('path', COLABS, ids=lambda p: p.stem)
def test_notebook(path, tmp_path):
  notebook = nbformat.read(path, as_version=4)
  nbformat.validate(notebook)
  assert not any(cell.get('outputs') for cell in notebook.cells)
  for cell in notebook.cells:
    cell.source = re.sub(
      r"'train.duration.epochs=\d+'", SHORT, cell.source
    ).replace("f'frozen.", "'backbone.depth=1', f'frozen.")
  where = {'metadata': {'path': str(tmp_path)}}
  NotebookClient(notebook, timeout=600, resources=where).execute()
  pictures = [
    data
    for cell in notebook.cells
    for output in cell.get('outputs', ())
    for data in output.get('data', ())
    if data == 'image/png'
  ]
  assert len(pictures) > 3
