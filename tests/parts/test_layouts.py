"""Laws 4 and 5 over every layout, and the masks against official ones."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from arvision.layouts import grid, masks, scales, sequence

# Masks of the official implementations.
MASKS = pathlib.Path(__file__).parent / 'masks'

OFFICIAL = {
  'llamagen_n17': grid.raster(1, 17),
  'var_1_2_3_4': scales.scales((1, 2, 3, 4)),
  'flowar_1_2_4': scales.scales((1, 2, 4)),
  'xar_4_cells': grid.cells(4, 4, (2, 2)),
  'nar_g4_prefix1': grid.diagonals(4, 4),
  'bd3lm_n16_block4': sequence.two_stream(
    grid.cells(1, 16, (1, 4)), noisy_first=True
  ),
  'acdit_4_blocks_of_4': sequence.two_stream(grid.cells(1, 16, (1, 4))),
}

LAYOUTS = {
  'raster': grid.raster(3, 5),
  'raster behind a caption': grid.raster(3, 4, prefix=6),
  'raster in short runs': grid.raster(4, 4, longest=4),
  'snake': grid.permuted(4, 3),
  'diagonals': grid.diagonals(3, 5),
  'cells': grid.cells(4, 6, (2, 3)),
  'subsample': grid.subsample(4, 6, (2, 3)),
  'scales': scales.scales((1, 2, 3)),
  'scales, not square': scales.scales(((1, 1), (2, 3), (4, 6))),
  'scales without a start': scales.scales((2, 4), start=False),
  'two streams': sequence.two_stream(grid.cells(4, 4, (2, 2))),
}


@pytest.fixture(params=LAYOUTS, ids=list(LAYOUTS))
def layout(request):
  return LAYOUTS[request.param]


@pytest.mark.parametrize('name', OFFICIAL)
def test_mask_equals_the_official_one(name):
  recorded = np.load(MASKS / 'io.npz')[name].astype(bool)
  if name.startswith('nar'):
    recorded = _by_diagonal(OFFICIAL[name], recorded)
  np.testing.assert_array_equal(masks.dense(OFFICIAL[name]), recorded)


def _by_diagonal(layout, mask):
  """A mask over prefix and raster order, in the order of our slots."""
  behind = layout.prefix + layout.token[layout.prefix :]
  order = np.concatenate([np.arange(layout.prefix), behind])
  return mask[np.ix_(order, order)]


def test_every_recorded_mask_is_compared():
  meta = json.loads((MASKS / 'meta.json').read_text())
  assert set(meta['arrays']) == set(OFFICIAL)


def test_every_token_is_read_in_the_step_that_samples_it(layout):
  entity = np.where(layout.readout >= 0, layout.entity[layout.readout], -1_000)
  assert (layout.readout >= 0).any(1).all()
  for branch in entity.T:
    there = branch > -1_000
    np.testing.assert_array_equal(branch[there], layout.entity_of_token[there])


def test_runs_sample_every_token_once_and_in_order(layout):
  steps, tokens, index, shown = [], [], [], []
  for run in layout.runs:
    for i in range(run.count):
      step = run.step(i)
      steps.append(step.s)
      real = step.tokens >= 0
      tokens += list(step.tokens[real])
      for kept, slots in ((index, step.index), (shown, step.shown)):
        kept += [i for i in slots if layout.entity[i] == max(step.s, 0)]
        kept += [i for i in slots if layout.entity[i] < 0]
      rows = layout.readout[step.tokens[real]]
      read = np.where(step.readout >= 0, step.index[step.readout], -1)
      np.testing.assert_array_equal(read[real], rows)
      assert (step.readout[~real] == -1).all()
      assert max(layout.row[step.index]) < step.extent <= len(layout.clean)
      np.testing.assert_array_equal(
        layout.row[step.index], layout.row[step.shown]
      )
  assert steps == list(range(layout.steps))
  assert tokens == list(layout.order)
  assert sorted(shown) == list(layout.clean)
  assert sorted({*index, *shown}) == list(layout.index)


def test_padded_steps_share_a_run():
  layout = grid.diagonals(4, 4)
  assert [(run.count, run.index.shape[1]) for run in layout.runs] == [
    (1, 1),
    (6, 4),
  ]


def test_unorder_undoes_order(layout):
  x = np.random.default_rng(0).normal(size=(2, layout.tokens, 3))
  np.testing.assert_array_equal(x[:, layout.order][:, layout.unorder], x)


def test_step_masks_are_rows_of_the_dense_mask(layout):
  full = masks.dense(layout)
  for run in layout.runs:
    for i in range(run.count):
      step = run.step(i)
      rows = masks.step(layout, step.index, step.extent)
      # A noisy step lies where its clean copy will.
      keys = layout.clean.copy()
      keys[layout.row[step.index]] = step.index
      np.testing.assert_array_equal(
        rows, full[np.ix_(step.index, keys[: step.extent])]
      )
      own = step.index[layout.entity[step.index] <= step.s]
      assert not full[np.ix_(own, keys[step.extent :])].any()


def test_every_slot_sees_itself(layout):
  assert masks.dense(layout).diagonal().all()


def test_builders_are_cached_so_that_identity_is_equality():
  assert grid.raster(3, 3) is grid.raster(3, 3)
  assert scales.scales((1, 2)) is not scales.scales((1, 3))


def test_window_hides_the_past_and_the_first_scale():
  layout = dataclasses.replace(scales.scales((1, 2, 3)), window=0)
  mask = masks.dense(layout)
  # The condition fills the first scale, which is an entity like others (HMAR).
  assert not mask[5:, :5].any() and mask[5:, 5:].all()


def test_window_keeps_a_caption():
  layout = dataclasses.replace(grid.raster(2, 2, prefix=3), window=1)
  mask = masks.dense(layout)
  assert layout.entity.tolist() == [-2, -1, 0, 1, 2, 3]
  assert mask[5].tolist() == [True, True, False, False, True, True]


def test_padding_is_seen_by_itself_alone():
  layout = grid.raster(1, 6, prefix=3)
  valid = np.array([[False, True] + [True] * (layout.slots - 2)])
  keys = masks.key(masks.slot_info(layout, layout.index, valid=valid))
  queries = masks.query(masks.slot_info(layout, layout.index))
  mask = masks.attend(queries, keys)[0]
  assert mask[0, 0] and not mask[1:, 0].any()


@pytest.mark.parametrize(
  'make',
  [
    lambda: grid.cells(4, 4, (3, 2)),
    lambda: grid.subsample(4, 4, (2, 3)),
    lambda: grid.permuted(2, 2, (0, 1, 2, 2)),
    lambda: sequence.two_stream(grid.raster(2, 2)),
    lambda: scales.scales(()),
  ],
)
def test_sizes_that_do_not_fit_are_refused(make):
  with pytest.raises(ValueError):
    make()
