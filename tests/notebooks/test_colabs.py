"""The notebooks run from top to bottom, show their pictures and say little."""

import importlib.util
import pathlib
import sys

import pytest

LAUNCH = pathlib.Path(__file__).parents[2] / 'launch'
SPEC = importlib.util.spec_from_file_location(
  'notebooks', LAUNCH / 'notebooks.py'
)
notebooks = importlib.util.module_from_spec(SPEC)
sys.path.insert(0, str(LAUNCH))
SPEC.loader.exec_module(notebooks)
sys.path.remove(str(LAUNCH))

# Pictures that a notebook shows; the first notebook trains what others open.
SHOWN = {
  'sample': 7,
  'layouts': 17,
  'tokenizers': 8,
  'train_your_images': 3,
  'import_released_weights': 1,
  'ablation': 3,
}
LINES = 16  # most lines that a cell prints


def check(done, name):
  """Checks what a notebook shows and prints."""
  found = [len(notebooks.pictures(cell)) for cell in done.cells]
  assert sum(found) == SHOWN[name]
  (main,) = (c for c in done.cells if 'picture' in c.metadata.get('tags', ()))
  assert len(notebooks.small(notebooks.pictures(main)[0])) < notebooks.LARGEST
  for text in notebooks.texts(done):
    assert len(text.splitlines()) <= LINES, text
  errors = [
    output.text
    for cell in done.cells
    for output in cell.get('outputs', ())
    if output.get('name') == 'stderr'
  ]
  assert not errors


def test_every_notebook_is_listed_and_opens_in_colab():
  files = {path.stem for path in notebooks.COLABS.glob('*.ipynb')}
  assert files == {*notebooks.NAMES} == {*SHOWN}
  for name in notebooks.NAMES:
    notebook = notebooks.read(name)
    assert not any(cell.get('outputs') for cell in notebook.cells)
    assert not any(cell.get('execution_count') for cell in notebook.cells)
    title, badge, _ = notebook.cells[0].source.split('\n\n', 2)
    assert title.startswith('# ') and badge == notebooks.badge(name)
    assert notebook.cells[1].source == notebooks.install()
  assert notebooks.PAGE.read_text(encoding='utf-8') == notebooks.page()


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """What one notebook trains, another one opens."""
  return tmp_path_factory.mktemp('notebooks')


# Those that train most run with the slow tests.
LONG = ('sample', 'train_your_images', 'ablation')
QUICK = [
  pytest.param(name, marks=[pytest.mark.slow] if name in LONG else [])
  for name in notebooks.NAMES
]


@pytest.mark.parametrize('name', QUICK)
def test_notebook(name, runs, tmp_path, monkeypatch):
  monkeypatch.setenv('ARVISION_NOTEBOOK_QUICK', '1')
  monkeypatch.setenv('ARVISION_NOTEBOOK_RUNS', str(runs))
  check(notebooks.run(name, tmp_path), name)


@pytest.mark.slow
@pytest.mark.parametrize('name', notebooks.NAMES)
def test_notebook_at_full_size(name, tmp_path, monkeypatch):
  monkeypatch.delenv('JAX_DISABLE_MOST_OPTIMIZATIONS', raising=False)
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path / 'jax'))
  check(notebooks.run(name, tmp_path), name)
