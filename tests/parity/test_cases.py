"""The recorded cases of the repository, through the tool that users run."""

import json
import shutil

import numpy as np
import pytest

from tests.parity import check
from tests.parity.case import CASES, Case

NAMES = sorted(p.parent.name for p in CASES.glob('*/meta.json'))


# Larger cases of systems that have another one.
LONG = ('flowar_l', 'vq_diffusion_text')


@pytest.mark.parametrize(
  'name',
  [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in NAMES],
)
def test_numbers_are_the_official_ones(name):
  found = list(check.results(Case(CASES / name)))
  failed = {r.name for r in found if r.verdict == 'FAIL'}
  skipped = [r for r in found if r.verdict == 'not compared']
  assert found and not failed
  assert len(skipped) <= 0.05 * len(found)


def test_the_recipe_draws_the_weights_it_states(tmp_path):
  # The check that the recipe gives for itself.
  key = 'blocks.0.attn.proj.weight'
  entry = {'shape': [3], 'mean': 0.0, 'std': 0.125}
  meta = {'weights_seed': 12000, 'weights': {key: entry}}
  (tmp_path / 'meta.json').write_text(json.dumps(meta))
  drawn = Case(tmp_path).weights()[key]
  np.testing.assert_allclose(
    drawn, [-0.011387366, 0.20891146, 0.017873602], rtol=1e-6
  )


def test_a_wrong_number_fails(tmp_path, capsys):
  folder = tmp_path / 'case'
  shutil.copytree(CASES / 'llamagen_vq', folder)
  case = Case(folder)
  recon = case.io['recon'].copy()
  recon[0, 0, 0, 0] += 3e-4
  np.savez(folder / 'io.npz', **{**case.io, 'recon': recon})
  assert check.main([str(folder)]) == 1
  lines = capsys.readouterr().out.splitlines()
  assert lines[-1] == '9 arrays, 1 failed, 0 not compared'
  assert [line.split()[0] for line in lines if line.endswith('FAIL')] == [
    'case/recon'
  ]


def test_a_network_that_is_not_known_is_not_compared(tmp_path, capsys):
  meta = {'constructor': {'cls': 'some.Thing'}}
  (tmp_path / 'meta.json').write_text(json.dumps(meta))
  np.savez(tmp_path / 'io.npz', logits=np.zeros(3))
  assert check.main([str(tmp_path)]) == 0
  out = capsys.readouterr().out
  assert 'some.Thing is not supported' in out
  assert out.endswith('1 arrays, 0 failed, 1 not compared\n')


def test_a_case_of_no_network_is_not_compared(tmp_path, capsys):
  (tmp_path / 'meta.json').write_text('{}')
  np.savez(tmp_path / 'io.npz', mask=np.zeros(3))
  assert check.main([str(tmp_path)]) == 0
  assert 'states no constructor' in capsys.readouterr().out


def test_a_folder_without_a_case_is_refused(tmp_path, capsys):
  assert check.main([str(tmp_path)]) == 2
  assert 'no meta.json' in capsys.readouterr().err
