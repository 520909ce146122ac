"""The documentation site: it builds without a warning, and its pages are sound.

    apt-get install chromium-headless-shell
    pytest -m slow tests/docs/test_site.py --basetemp=/tmp/site

The site and screenshots of some pages stay in the folder of --basetemp.
"""

import functools
import html
import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
import urllib.parse

import pytest

from tests.configs import ROOT

DOCS = ROOT.parent / 'docs'
PROGRAMS = ('chromium-headless-shell', 'chromium', 'chromium-browser')
WIDTHS = (400, 1200)
SHOWN = ('index', 'six_parts', 'troubleshooting', 'reference/heads', 'families')
# Opens page after page in a frame of the same origin, and measures it.
WALK = """<!doctype html><meta charset="utf-8">
<style>body {{ margin: 0 }} iframe {{ border: 0 }}</style>
<iframe width="{width}" height="{height}"></iframe><pre hidden></pre>
<script>
const pages = {pages}, found = {{}}, frame = document.querySelector('iframe');
async function open(page) {{
  await new Promise(done => {{ frame.onload = done; frame.src = page; }});
  const root = frame.contentDocument.scrollingElement;
  const images = [...frame.contentDocument.images];
  images.forEach(x => x.loading = 'eager');
  await Promise.all(images.map(x => x.decode().catch(() => 0)));
  found[page] = {{
    broken: images.filter(x => !x.naturalWidth).map(x => x.src),
    silent: images.filter(x => !x.alt).length,
    text: frame.contentDocument.querySelector('article').innerText.length,
    scroll: root.scrollWidth,
  }};
}}
(async () => {{
  for (const page of pages) await open(page);
  document.querySelector('pre').textContent = JSON.stringify(found);
}})();
</script>
"""


@pytest.fixture(scope='module')
def site(tmp_path_factory):
  """The built site."""
  out = tmp_path_factory.mktemp('site') / 'html'
  # The flags of launch/docs.sh.
  flags = ['-W', '--keep-going', '-n', '-q', '-j', '2']
  done = subprocess.run(
    [sys.executable, '-m', 'sphinx', *flags, str(DOCS), str(out)],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-5000:]
  return out


@pytest.mark.slow
def test_links_of_the_site_lead_somewhere(site):
  pages = {
    page: page.read_text(encoding='utf-8') for page in site.rglob('*.html')
  }
  assert len(pages) > 60
  ids = {page: {*re.findall(r'\bid="([^"]+)"', x)} for page, x in pages.items()}
  broken = []
  for page, text in pages.items():
    for link in re.findall(r'(?:href|src)="([^"]+)"', text):
      path, _, anchor = html.unescape(link).partition('#')
      if re.match(r'\w+:', path):
        continue
      path = urllib.parse.unquote(path.partition('?')[0])
      target = (page.parent / path).resolve() if path else page
      there = target.is_file() and (not anchor or anchor in ids.get(target, ()))
      if not there:
        broken.append(f'{page.relative_to(site)}: {link}')
  assert not broken


@pytest.fixture(scope='module')
def address(site):
  """Where a local server has the site."""
  handler = functools.partial(Quiet, directory=str(site))
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
  """Prints no line per request."""

  def log_message(self, *_):
    pass


def browse(folder, url, *flags, width, height=900):
  """What Chromium prints of a page; fails on console messages."""
  program = next(filter(None, map(shutil.which, PROGRAMS)), None)
  assert program, 'no Chromium: apt-get install chromium-headless-shell'
  done = subprocess.run(
    [
      program,
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--hide-scrollbars',
      '--enable-logging=stderr',
      '--virtual-time-budget=200000',
      f'--user-data-dir={folder / "profile"}',
      f'--window-size={max(width, 500)},{height}',
      *flags,
      url,
    ],
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  assert ':CONSOLE' not in done.stderr, done.stderr
  return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize('width', WIDTHS)
def test_pages_are_sound_on_narrow_and_wide_screens(
  site, address, tmp_path, width
):
  names = [page.relative_to(DOCS) for page in DOCS.rglob('*.md')]
  pages = sorted(
    str(name.with_suffix('.html'))
    for name in names
    if '_build' not in name.parts
  )

  def walk(name, pages, height):
    text = WALK.format(width=width, height=height, pages=json.dumps(pages))
    (site / name).write_text(text, encoding='utf-8')
    return f'{address}/{name}'

  dom = browse(
    tmp_path, walk('walk.html', pages, 900), '--dump-dom', width=width
  )
  found = json.loads(
    html.unescape(re.search('<pre hidden="">(.+?)</pre>', dom)[1])
  )
  assert [*found] == pages
  for page, facts in found.items():
    assert not facts['broken'] and not facts['silent'], (page, facts)
    assert facts['text'] > 100, (page, facts)
    assert facts['scroll'] <= width, (page, facts)
  for page in SHOWN:
    picture = tmp_path / f'{page.replace("/", "_")}_{width}.png'
    url = walk('shown.html', [f'{page}.html'], 1800)
    browse(tmp_path, url, f'--screenshot={picture}', width=width, height=1800)
