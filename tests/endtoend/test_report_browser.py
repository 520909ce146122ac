"""Reports in headless Chromium: pictures, console, narrow screens, dark mode.

    apt-get install chromium-headless-shell
    pytest -m slow tests/endtoend/test_report_browser.py --basetemp=/tmp/reports

The screenshots stay in the folder of --basetemp.
"""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from arvision.commands.main import main
from arvision.training import pictures

PROGRAMS = ('chromium-headless-shell', 'chromium', 'chromium-browser')
WIDTHS = (400, 1200)
# A page of the same origin as the report inside it, which it measures.
FRAME = """<!doctype html><meta charset="utf-8">
<style>body {{ margin: 0 }}</style>
<iframe width="{width}" style="border: 0" srcdoc="{text}"></iframe>
<pre hidden></pre>
<script>
const frame = document.querySelector('iframe');
frame.onload = () => {{
  const page = frame.contentDocument, root = page.scrollingElement;
  for (const folded of page.querySelectorAll('details')) folded.open = {folded};
  frame.height = root.scrollHeight;
  const images = [...page.images];
  document.querySelector('pre').textContent = JSON.stringify({{
    images: images.length,
    broken: images.filter(x => !x.naturalWidth).map(x => x.alt),
    silent: images.filter(x => !x.alt).length,
    width: root.clientWidth,
    scroll: root.scrollWidth,
    height: root.scrollHeight,
    dark: page.defaultView.matchMedia('(prefers-color-scheme: dark)').matches,
    wide: [...page.querySelectorAll('section *')].filter(
      x => !x.closest('.scroll, pre') &&
        x.getBoundingClientRect().right > root.clientWidth).map(x => x.tagName),
  }});
}};
</script>
"""


@pytest.fixture(scope='session')
def chromium():
  found = next(filter(None, map(shutil.which, PROGRAMS)), None)
  assert found, 'no Chromium: apt-get install chromium-headless-shell'
  return found


def opened(chromium, report, folder, width, dark=False, folded=False):
  """What a page measures; its screenshot goes to `folder`."""
  text = report.read_text(encoding='utf-8')
  name = f'{report.stem}_{width}{"_dark" if dark else ""}'
  frame = folder / f'{name}.html'
  frame.write_text(
    FRAME.format(
      width=width, text=html.escape(text), folded=json.dumps(folded)
    ),
    encoding='utf-8',
  )

  def browse(*flags, height=900):
    done = subprocess.run(
      [
        chromium,
        '--headless',
        '--no-sandbox',
        '--disable-gpu',
        '--hide-scrollbars',
        '--enable-logging=stderr',
        '--virtual-time-budget=8000',
        f'--user-data-dir={folder / "profile"}',
        f'--window-size={max(width, 500)},{height}',
        f'--blink-settings=preferredColorScheme={0 if dark else 1}',
        *flags,
        frame.as_uri(),
      ],
      capture_output=True,
      text=True,
      timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert ':CONSOLE' not in done.stderr, done.stderr
    return done.stdout

  dom = browse('--dump-dom')
  text = re.search('<pre hidden="">(.+?)</pre>', dom)[1]
  found = json.loads(html.unescape(text))
  height = min(found['height'], 12_000)
  browse(f'--screenshot={folder / f"{name}.png"}', height=height)
  return found


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
  runs, chromium, tmp_path, compare, dark
):
  words = ['compare', str(runs)]
  if not compare:
    words = ['report', f'--workdir={runs / "next_scale_seed0"}']
  assert main([*words, f'--output={tmp_path}']) == 0
  page = tmp_path / ('compare.html' if compare else 'report.html')
  for width in WIDTHS:
    found = opened(chromium, page, tmp_path, width, dark, folded=not dark)
    assert found['images'] >= 5
    assert not found['broken'] and not found['silent'], found
    assert found['scroll'] <= found['width'] == width, found
    assert not found['wide'], found
    assert found['dark'] == dark
