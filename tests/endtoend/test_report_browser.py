"""Reports in headless Chromium: pictures, console, narrow screens, dark mode.

    apt-get install chromium-headless-shell
    pip install playwright
    pytest -m slow tests/endtoend/test_report_browser.py --basetemp=/tmp/reports

The screenshots stay in the folder of --basetemp.
"""

import json

import numpy as np
import pytest

from arvision.commands.main import main
from arvision.training import pictures
from tests import browser


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """Two variants with two seeds, and all that a report can show."""
  root = tmp_path_factory.mktemp('runs')
  draws = np.random.default_rng(0)
  for variant in ('next_token', 'next_scale'):
    for seed in (0, 1):
      make(root / f'{variant}_seed{seed}', variant, seed, draws)
  return root


def make(folder, variant, seed, draws):
  pictures.save(
    folder / 'samples' / 'grid' / 'grid.png',
    pictures.sheet(
      {str(i): draws.uniform(-1, 1, (8, 8, 8, 1)) for i in range(9)}
    ),
  )
  config = {
    'seed': seed,
    'backbone': {},
    'layout': {'type': f'layouts.{variant}.' + 'Long' * 12},
    'data': {'source': {'type': 'data.digits.Digits'}},
  }
  (folder / 'config.json').write_text(json.dumps(config))
  log = [
    {
      'step': step,
      'examples': 16 * step,
      'loss': 3 / step**0.5 + draws.normal(0, 0.05),
      'held_out/loss': 3.1 / step**0.5,
      'images_per_second': 900 + 90 * draws.normal(),
      **{f'loss/step_{i}': (4 - i / 3) / step**0.4 for i in range(9)},
    }
    for step in range(10, 2000, 10)
  ]
  text = ''.join(json.dumps(line) + '\n' for line in log)
  (folder / 'log.jsonl').write_text(text)
  frechet = 3 + seed / 5 + draws.uniform()
  protocol = 'inception-adm-a-reference-with-a-long-name-50000-0a1b2c3d'
  record = {
    'step': 2000,
    'ema': '0.999',
    'seconds': 12.5,
    'headline': {'frechet': frechet, 'codebook_usage': {'1x1': 0.4, '2x2': 1}},
    'metrics': {
      'frechet/classifier-digits-8px-1000': frechet,
      'class_accuracy/classifier-digits-8px-1000': 0.97 - seed / 100,
      f'fid/{protocol}': 2 * frechet,
      f'fid_low/{protocol}': 2 * frechet - 0.4,
      f'fid_high/{protocol}': 2 * frechet + 0.5,
    },
    'protocols': {protocol: {'images': 50_000, 'weights': '0123456789' * 6}},
  }
  (folder / 'eval.json').write_text(json.dumps(record))
  versions = {'jax': '0.10.0', 'numpy': '2.3.0'}
  block = {'devices': '1 x cpu', 'system': 'Linux-' * 20, 'versions': versions}
  (folder / 'environment.json').write_text(json.dumps(block))


@pytest.mark.slow
@pytest.mark.parametrize('dark', [False, True], ids=['light', 'dark'])
@pytest.mark.parametrize('compare', [False, True], ids=['report', 'compare'])
def test_pages_are_sound_on_narrow_and_wide_screens(
  runs, tmp_path, compare, dark
):
  words = ['compare', str(runs)]
  if not compare:
    words = ['report', f'--workdir={runs / "next_scale_seed0"}']
  assert main([*words, f'--output={tmp_path}']) == 0
  page = tmp_path / ('compare.html' if compare else 'report.html')
  for width in browser.WIDTHS:
    with browser.tab(width, dark) as tab:
      found = browser.measured(tab, page.as_uri(), unfold=dark)
      tab.screenshot(path=tmp_path / f'{page.stem}_{width}.png', full_page=True)
    assert found['images'] >= 5
    assert not found['wide'], found
    assert found['dark'] == dark
