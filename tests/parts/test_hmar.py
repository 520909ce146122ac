"""HMAR: weights of scales, masks, the fork, and how its second stage starts."""

import flax.traverse_util
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.backbones.base import Size
from arvision.backbones.bodies import Fork
from arvision.errors import ConfigError, DataError
from arvision.feeds.residual import NormalWeights
from arvision.importers import files
from arvision.importers.hmar import Masked, NextScale, Transformer
from arvision.importers.table import to_weights
from arvision.layouts import masks, scales
from arvision.process.masking import masked_of_groups
from arvision.runs import released
from arvision.samplers.remask import Remask
from arvision.tasks import assemble
from arvision.training.start import with_absent
from tests.configs import ALL
from tests.laws.test_generators import scrambled

VAR = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
# Of the official code, for the scales of 256 px.
PUBLISHED = (
  *(0.0247, 0.0642, 0.1150, 0.1379, 0.1402),
  *(0.1329, 0.1208, 0.1054, 0.0882, 0.0709),
)


def flat(tree):
  return flax.traverse_util.flatten_dict(tree, sep='/')


def test_weights_of_the_scales_of_256_px():
  layout = scales.scales(VAR, window=0)
  each = NormalWeights().weights(layout)
  found = np.bincount(layout.entity_of_token, each)
  np.testing.assert_allclose(found, PUBLISHED, atol=6e-5)
  assert len({*each[layout.entity_of_token == 4].tolist()}) == 1


@pytest.mark.parametrize(
  ('share', 'counts'), [(0.4, (1, 2, 10)), (0.0, (1, 1, 1)), (1.0, (1, 4, 25))]
)
def test_a_share_of_every_scale_is_masked(share, counts):
  """0.4 of 25 is 10, although 0.4 is more than that in float32."""
  group = np.repeat([0, 1, 2], [1, 4, 25])
  uniform = np.random.default_rng(0).random((3, 30), np.float32)
  masked = masked_of_groups(uniform, jnp.full(3, share, jnp.float32), group)
  for row in np.asarray(masked):
    assert tuple(np.bincount(group, row).astype(int)) == counts


def test_a_scale_that_sees_itself_alone_is_fully_connected():
  layout = scales.scales((1, 2, 3), window=0)
  assert layout.markov and layout.rows == 0
  assert not scales.scales((1, 2, 3)).markov
  own = layout.runs[1].step(0)
  assert masks.pattern(layout, own.index).full
  whole = masks.dense(layout)
  scale = layout.entity_of_token
  np.testing.assert_array_equal(whole, scale[:, None] == scale)


class Run:
  """What a fork asks of a pass."""

  class net:
    drop_path = 0.3

    @staticmethod
    def is_initializing():
      return False

  def __init__(self, layout, masked, depth=4):
    self.layout, self.size, self.seen = layout, Size(depth, 8, 2), {}
    self.slots = type('', (), {'masked': masked})

  def stack(self, name, x, size, drop_path):
    self.seen[name] = size.depth, drop_path
    return x + 1, None

  def norm(self, name, x):
    self.seen[name] = True
    return x


@pytest.mark.parametrize('masked', [None, np.zeros((1, 5), bool)])
@pytest.mark.parametrize('last', [0, 3, 4])
def test_a_pass_runs_the_trunk_and_one_end(masked, last):
  """Together they drop as many paths as one stack would."""
  run = Run(scales.scales((1, 2), window=0), masked)
  end = '' if masked is None else '_masked'
  hidden, _ = Fork(last)(run, jnp.zeros((1, 5, 8)), (None,) * 3)
  assert hidden.shape == (1, 5, 1, 8)
  names = {'stack': 4 - last, f'stack_last{end}': last}
  wanted = {name: n for name, n in names.items() if n}
  found = {n: x[0] for n, x in run.seen.items() if n.startswith('stack')}
  assert found == wanted and run.seen[f'norm{end}']
  rates = [np.linspace(*x[1], x[0]) for n, x in run.seen.items() if n in found]
  np.testing.assert_allclose(np.concatenate(rates), np.linspace(0, 0.3, 4))


def test_what_a_fork_wants():
  alone, x = scales.scales((1, 2), window=0), jnp.zeros((1, 5, 8))
  with pytest.raises(ValueError, match='last=5: wanted at most .*depth=4'):
    Fork(5)(Run(alone, None), x, ())
  with pytest.raises(ValueError, match='no end for masked tokens'):
    Fork(1, masked=False)(Run(alone, np.zeros((1, 5), bool)), x, ())
  with pytest.raises(ValueError, match='config.layout.window=0'):
    Fork(1)(Run(scales.scales((1, 2)), None), x, ())


def test_passes_for_every_scale():
  sampler = Remask(passes=((1,), (1, 3), (1, 1, 2, 5)))
  assert [sampler.plan(s, 3) for s in range(3)] == [(), (3,), (8, 7, 5)]
  with pytest.raises(ValueError, match='3 entries for 4 steps'):
    sampler.plan(0, 4)


@pytest.fixture(scope='module')
def tiny():
  """Shapes of the whole model and of its first stage, and random weights."""
  whole, first = (
    assemble.trained_shapes(ALL[name]())
    for name in ('hmar/tiny', 'hmar/tiny:nsp')
  )
  return whole, first, scrambled(whole)


def test_the_second_stage_starts_as_the_first_one_ended(tiny):
  whole, first, _ = tiny
  copies = ALL['hmar/tiny']().task.copies
  before = scrambled(first)
  found, old = flat(with_absent(before, whole, copies)), flat(before)
  assert {*flat(whole)} - {*found} == {'backbone/input/masked'}
  for name, x in found.items():
    other = name.replace('_masked/', '/')
    np.testing.assert_array_equal(x, old[other])
  assert with_absent(before, first, copies) is before


def test_the_files_of_both_stages_are_the_whole(tiny, tmp_path):
  whole, _, params = tiny
  parts = {'masked': Masked(), 'first': NextScale()}
  for name, form in parts.items():
    weights = to_weights(form, params, ((1, 1),))
    files.write(tmp_path / f'{name}.safetensors', weights)
  sources = [tmp_path / f'{name}.safetensors' for name in parts]
  found, lines = released.read_all(Transformer(), sources, whole, None)
  for name, x in flat(params).items():
    np.testing.assert_array_equal(x, flat(found)[name])
  assert len(lines.splitlines()) == 2
  # Of two models.
  other = scrambled(whole, 0.3)
  files.write(sources[0], to_weights(Masked(), other, ((1, 1),)))
  with pytest.raises(DataError, match='wanted files of one model'):
    released.read_all(Transformer(), sources, whole, None)
  with pytest.raises(ConfigError, match='3 files; the weights of HMAR'):
    released.read_all(Transformer(), [*sources, sources[0]], whole, None)
  with pytest.raises(ConfigError, match='come in one'):
    released.read_all(NextScale(), sources, whole, None)
