"""Pages in headless Chromium, for the tests that look at them.

apt-get install chromium-headless-shell
pip install playwright
"""

import contextlib
import re
import shutil

import pytest

WIDTHS = (400, 1200)
_PROGRAMS = ('chromium-headless-shell', 'chromium', 'chromium-browser')
_LOCAL = re.compile(r'(file|data|blob|http://127\.0\.0\.1)[:/]')
# What stands in for a picture of another site.
_SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="100" height="20"/>'
_MEASURE = """async () => {
  const root = document.scrollingElement, images = [...document.images];
  images.forEach(x => x.loading = 'eager');
  await Promise.all(images.map(x => x.decode().catch(() => 0)));
  return {
    images: images.length,
    broken: images.filter(x => !x.naturalWidth).map(x => x.src),
    silent: images.filter(x => !x.alt).map(x => x.src),
    text: document.body.innerText.length,
    width: root.clientWidth,
    scroll: root.scrollWidth,
    wide: [...document.querySelectorAll('section *')].filter(
      x => !x.closest('.scroll, .highlight, .table-wrapper, pre') &&
        x.getBoundingClientRect().right > root.clientWidth
    ).map(x => x.outerHTML.slice(0, 200)),
    dark: matchMedia('(prefers-color-scheme: dark)').matches,
  };
}"""


@contextlib.contextmanager
def tab(width, dark=False):
  """Opens a page of Playwright `width` px wide; complaints fail at the end.

  Complaints are what the page writes to the console, errors of its scripts, and
  files that it lacks. Pictures of other sites are replaced.
  """
  try:
    from playwright.sync_api import sync_playwright
  except ImportError:
    pytest.fail('no Playwright: pip install playwright')
  program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
  assert program, 'no Chromium: apt-get install chromium-headless-shell'
  said = []
  with sync_playwright() as playwright:
    browser = playwright.chromium.launch(
      executable_path=program, args=['--no-sandbox']
    )
    page = browser.new_page(
      viewport={'width': width, 'height': 900},
      color_scheme='dark' if dark else 'light',
    )
    page.on('console', lambda message: said.append(message.text))
    page.on('pageerror', lambda error: said.append(str(error)))
    page.on('requestfailed', lambda request: said.append(request.url))
    page.route(
      lambda url: not _LOCAL.match(url),
      lambda route: route.fulfill(content_type='image/svg+xml', body=_SVG),
    )
    yield page
    browser.close()
  assert not said, said


def measured(page, url, unfold=False):
  """Opens a page and checks its pictures and its width.

  Args:
    page: of `tab`.
    url: its address.
    unfold: open what is folded.

  Returns:
    What was measured: number of `images`, length of the `text`, ...
  """
  page.goto(url)
  if unfold:
    page.evaluate(
      "document.querySelectorAll('details').forEach(x => x.open = true)"
    )
  found = page.evaluate(_MEASURE)
  assert not found['broken'] and not found['silent'], (url, found)
  assert found['scroll'] <= found['width'], (url, found)
  assert found['width'] == page.viewport_size['width'], (url, found)
  return found
