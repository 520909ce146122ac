"""Options that no recorded case has, against numpy twins of the networks.

A twin writes the arrays of a case; `check` compares our parts with them, through the
drivers and the importers, as it does with recorded ones.
"""

import json
import shutil

import numpy as np
import pytest

from tests.parity import check
from tests.parity.case import CASES, Case
from tests.parity.twins import infinity, maskbit


def verdicts(case):
  return {r.name: (r.verdict, r.text) for r in check.results(case)}


def all_agree(case, *names):
  found = verdicts(case)
  assert {v for v, _ in found.values()} == {'ok'}, found
  assert {*names} <= {*found}


def test_the_twin_of_infinity_has_the_recorded_numbers():
  case = Case(CASES / 'infinity')
  io, wanted = infinity.arrays(case), case.io
  assert {'logits', 'gen_logits', 'gen_bits', 'rope_grid'} <= {*io}
  for name in {*io} & {*wanted}:
    limit = 2e-6 * np.abs(np.float64(wanted[name])).max()
    np.testing.assert_allclose(io[name], wanted[name], rtol=0, atol=limit)


def test_options_of_infinity(tmp_path):
  """Guidance behind all layers, between which the level embedding is added."""
  options = {
    'rope2d_normalized_by_hw': 1,
    'head_aln': False,
    'add_lvl_embeding_only_first_block': 0,
    'head_depth': 2,
    'nm0': True,
    'scale_schedule': [[1, 1, 1], [1, 4, 3]],
  }
  case = infinity.write(tmp_path, layers=[-1, -2], **options)
  all_agree(case, 'logits', 'rope_grid', 'gen_logits', 'gen_bits')
  for layers in ([-1], [-2], [0]):  # are others
    other = infinity.write(tmp_path, layers=layers, **options)
    far = np.abs(other.io['gen_logits'] - case.io['gen_logits']).max()
    assert far > 0.1 and np.array_equal(other.io['logits'], case.io['logits'])


def test_infinity_with_one_id_per_token(tmp_path):
  """And everything else that a block may be made of."""
  options = {
    'rope2d_normalized_by_hw': 0,
    'use_bit_label': 0,
    'head_depth': 2,
    'nm0': True,
    'rms_norm': True,
    'swiglu': True,
    'cos_attn': False,
    'shared_aln': False,
    'cross_attn_layer_scale': -1,
  }
  all_agree(infinity.write(tmp_path, **options), 'logits', 'loss_per_token')


def test_norms_before_the_sublayers_of_maskbit(tmp_path):
  recorded = Case(CASES / 'maskbit_lfqbert')
  io, wanted = maskbit.arrays(recorded), recorded.io
  for name in {*io} & {*wanted}:
    np.testing.assert_allclose(io[name], wanted[name], rtol=0, atol=2e-5)
  all_agree(maskbit.prenorm(tmp_path), 'logits', 'after_block0')


def test_the_table_of_vqgan_plus(tmp_path):
  names = ('idx', 'quant', 'codebook_loss', 'per_sample_entropy', 'avg_entropy')
  all_agree(maskbit.lookup(tmp_path), *names)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'option', 'factor', 'equal'),
  [
    # All gradients are clipped to the same, so the steps are the recorded ones.
    (
      'maskbit',
      {'sum_splits': True},
      2,
      ('masked_token_loss', 'final_first4'),
    ),
    ('infinity', {'bitloss_type': 'sum'}, 6, ()),
  ],
)
def test_sums_over_parts_are_a_multiple_of_the_recorded_loss(
  tmp_path, name, option, factor, equal
):
  folder = tmp_path / 'case'
  shutil.copytree(CASES / f'train_{name}', folder)
  meta = json.loads((folder / 'meta.json').read_text())
  meta['training'] |= option
  (folder / 'meta.json').write_text(json.dumps(meta))
  io = dict(Case(folder).io)
  for key in {'loss', 'grad_norm', 'masked_token_loss'} & {*io}:
    io[key] = factor * io[key]
  np.savez(folder / 'io.npz', **io)
  found = verdicts(Case(folder))
  assert {found[key][0] for key in ('loss', 'grad_norm', *equal)} == {'ok'}
