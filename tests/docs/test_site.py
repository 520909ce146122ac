"""The documentation site: it builds without a warning, and its pages are sound.

    apt-get install chromium-headless-shell
    pip install playwright
    pytest -m slow tests/docs/test_site.py --basetemp=/tmp/site

The site and screenshots of some pages stay in the folder of --basetemp.
"""

import functools
import html
import http.server
import re
import subprocess
import sys
import threading
import urllib.parse

import pytest

from tests import browser
from tests.configs import ROOT

DOCS = ROOT.parent / 'docs'
SHOWN = ('index', 'six_parts', 'troubleshooting', 'reference/heads', 'families')


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


@pytest.mark.slow
@pytest.mark.parametrize('width', browser.WIDTHS)
def test_pages_are_sound_on_narrow_and_wide_screens(
  site, address, tmp_path, width
):
  pages = [*site.rglob('*.html')]
  assert len(pages) > 60
  with browser.tab(width) as tab:
    for page in pages:
      name = page.relative_to(site)
      found = browser.measured(tab, f'{address}/{name}')
      assert found['text'] > 100, (name, found)
      if str(name.with_suffix('')) in SHOWN:
        picture = f'{"_".join(name.with_suffix("").parts)}_{width}.png'
        tab.screenshot(path=tmp_path / picture, full_page=True)
