"""Every file of a checkpoint damaged, and a thousand flipped bits.

pytest -m slow tests/faults/test_checkpoint_damage.py
"""

import dataclasses
import pathlib
import random
import shutil
from typing import Any

import jax
import numpy as np
import pytest

from arvision.runs.measure import InTraining
from arvision.training.checkpoint import Checkpoints
from arvision.training.ready import prepare
from tests.parts import training_toys as toys

FLIPS = 1000
NEWEST, BEFORE = 12, 10


def truncate(file):
  file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def zero(file):
  file.write_bytes(bytes(file.stat().st_size))


DAMAGE = {'truncated': truncate, 'zeroed': zero, 'deleted': pathlib.Path.unlink}


@dataclasses.dataclass
class Run:
  """The checkpoints of a run.

  Attributes:
    folder: of the checkpoints.
    abstract: shapes of the state.
    found: step -> result of `restored` where nothing is damaged.
  """

  folder: pathlib.Path
  abstract: Any
  found: dict[int, Any] = dataclasses.field(default_factory=dict)

  def restored(self, folder):
    """(step, arrays by path, position in the data) of a restore."""
    positions = []
    made = Checkpoints(folder, {'seed': 3, 'data.batch_size': 16})
    try:
      state, step = made.restore(self.abstract, positions.append)
    finally:
      made.close()
    leaves = jax.tree_util.tree_leaves_with_path(dataclasses.asdict(state))
    arrays = {jax.tree_util.keystr(k): np.asarray(x) for k, x in leaves}
    return step, arrays, positions[-1]

  def damaged(self, copy, name, damage):
    """The step that is restored after a file was damaged; it must be whole."""
    for step in (NEWEST, BEFORE):
      shutil.rmtree(copy / str(step), ignore_errors=True)
      shutil.copytree(self.folder / str(step), copy / str(step))
    shutil.rmtree(copy.parent / 'damaged', ignore_errors=True)
    damage(copy / str(NEWEST) / name)
    step, arrays, position = self.restored(copy)
    wanted, others, there = self.found[step]
    assert (step, position) == (wanted, there), name
    assert arrays.keys() == others.keys()
    for path, array in arrays.items():
      np.testing.assert_array_equal(
        array, others[path], err_msg=f'{name} {path}'
      )
    return step

  @property
  def files(self):
    root = self.folder / str(NEWEST)
    return sorted(p.relative_to(root) for p in root.rglob('*') if p.is_file())


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs')
  config = toys.config()
  toys.run(config, folder / 'run')
  ready = prepare(
    config,
    folder / 'empty',
    resume_from=None,
    change=False,
    make_in_training=InTraining,
    make_data=toys.make_data,
    make_task=toys.make_task,
  )
  made = Run(folder / 'run' / 'checkpoints', ready.state_init.abstract)
  for step in (NEWEST, BEFORE):
    copy = folder / f'only_{step}' / 'checkpoints'
    shutil.copytree(made.folder / str(step), copy / str(step))
    made.found[step] = made.restored(copy)
  return made


@pytest.mark.slow
@pytest.mark.parametrize('kind', DAMAGE)
def test_the_checkpoint_before_a_damaged_one_is_used(run, tmp_path, kind):
  """Of files whose content nobody needs, the newest one is as good."""
  copy = tmp_path / 'checkpoints'
  steps = {
    name: run.damaged(copy, name, DAMAGE[kind])
    for name in run.files
    if (run.folder / str(NEWEST) / name).stat().st_size or kind == 'deleted'
  }
  assert len(steps) > 5
  harmless = {str(name) for name, step in steps.items() if step == NEWEST}
  print(kind, 'without harm:', sorted(harmless))
  assert len(harmless) < len(steps) / 2, harmless


@pytest.mark.slow
def test_flipped_bits_are_found_or_harmless(run, tmp_path):
  chance = random.Random(0)
  copy = tmp_path / 'checkpoints'
  root = run.folder / str(NEWEST)
  sizes = {name: (root / name).stat().st_size for name in run.files}
  harmless = 0
  for i in range(FLIPS):
    # Half of them by size, and half by file, so that small files count too.
    weights = [*sizes.values()] if i % 2 else [s > 0 for s in sizes.values()]
    (name,) = chance.choices([*sizes], weights)
    place, bit = chance.randrange(sizes[name]), 1 << chance.randrange(8)

    def flip(file, place=place, bit=bit):
      content = bytearray(file.read_bytes())
      content[place] ^= bit
      file.write_bytes(content)

    harmless += run.damaged(copy, name, flip) == NEWEST
  print(f'{FLIPS - harmless} of {FLIPS} flips were found, {harmless} harmless')
  assert harmless < FLIPS / 2
