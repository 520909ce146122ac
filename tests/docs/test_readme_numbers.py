"""Numbers of README and docs that a shape or a table gives are made again."""

import re

import jax
import pytest

from arvision.plan.chips import CHIPS
from arvision.tasks import assemble
from tests.configs import ALL, ROOT


def parameters(name):
  shapes = assemble.trained_shapes(ALL[name]())
  return sum(x.size for x in jax.tree.leaves(shapes))


def stated(pattern, page='docs/parallelism.md'):
  """The number in the one passage of a page of this form."""
  text = (ROOT.parent / page).read_text(encoding='utf-8')
  (found,) = re.findall(pattern, text)
  return found


def test_parameters_of_the_plan():
  shown = stated(r'\n  ([\d,]+) parameters')
  assert shown == f'{parameters("var/imagenet256:d30"):,}'


def test_parameters_of_the_largest_config():
  shown = stated(
    r'`var/imagenet1024`.*?of ([\d.]+) B parameters', 'docs/configs.md'
  )
  assert shown == f'{parameters("var/imagenet1024:d60") / 1e9:.1f}'


def test_times_of_the_plan():
  chip = CHIPS['v5p']
  ms = {
    term: float(stated(rf'{term} +([\d.]+) ms'))
    for term in ('compute', 'memory', 'collectives', 'a step')
  }
  images = int(stated(r', (\d[\d,]*) images at once').replace(',', ''))
  rate = int(stated(r'(\d[\d,]*) images/s, MFU').replace(',', ''))
  traffic = float(stated(r'ms  ([\d.]+) GiB / 2765'))
  moved = float(stated(r'0\.5 x ([\d.]+) GiB / 600'))
  assert ms['memory'] == pytest.approx(
    1e3 * traffic * 2**30 / chip.hbm_bandwidth, abs=0.05
  )
  assert ms['collectives'] == pytest.approx(
    500 * moved * 2**30 / chip.interconnect, abs=0.05
  )
  step = max(ms['compute'], ms['memory']) + ms['collectives']
  assert ms['a step'] == pytest.approx(step, abs=0.11)
  assert rate == pytest.approx(images / ms['a step'] * 1e3, rel=1e-3)


def test_minutes_of_the_quickstart():
  """The pages and the table of experiments state one measurement."""
  table = (ROOT.parent / 'docs/experiments.md').read_text(encoding='utf-8')
  row = next(x for x in table.splitlines() if '(the quickstart)' in x)
  minutes = row.split('|')[2].strip()
  for page in ('README.md', 'docs/index.md', 'docs/install.md'):
    assert (
      stated(r'([\d.]+)\s+minutes on two cores of an Intel', page) == minutes
    )
