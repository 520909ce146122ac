"""The two stages of a legacy TiTok, over a teacher with random weights."""

import jax
import numpy as np

from arvision.commands.main import main
from arvision.training.weights import load_params
from tests.endtoend.conftest import SHORT

SMALL = (
  '--config.tokenizer.encoder.depth=1',
  '--config.tokenizer.decoder.depth=1',
)


def weights(folder):
  return load_params(folder, 'raw')[1]['tokenizer']


def changed(a, b):
  """Names of the parts with numbers that differ."""
  differ = lambda x, y: any(
    (p != q).any() for p, q in zip(jax.tree.leaves(x), jax.tree.leaves(y))
  )
  return {name for name in a if differ(a[name], b[name])}


def test_each_stage_trains_its_part(random_tokenizer, tmp_path, capsys):
  teacher = random_tokenizer('maskgit/digits_tokenizer:few')
  first, second = tmp_path / 'first', tmp_path / 'second'
  assert not main(
    [
      'train',
      '--config=titok/digits_tokenizer:legacy_warmup',
      f'--workdir={first}',
      f'--config.frozen.teacher={teacher}',
      *SMALL,
      *SHORT,
    ]
  )
  # The way from codes to pixels is the teacher's, and waits for its stage.
  theirs = weights(teacher)
  before = weights(first)
  for name, tree in (('pixel_dec', 'dec'), ('pixel_quant', 'quant')):
    jax.tree.map(np.testing.assert_array_equal, before[name], theirs[tree])
  assert not main(
    [
      'train',
      '--config=titok/digits_tokenizer:legacy',
      f'--workdir={second}',
      f'--init_from={first}',
      *SMALL,
      *SHORT,
    ]
  )
  after = weights(second)
  assert changed(before, after) == {'dec', 'pixel_dec', 'pixel_quant'}
  capsys.readouterr()
  # Without its teacher the first stage says what is missing.
  flags = [f'--workdir={tmp_path}/third', '--config.frozen.teacher=no']
  assert (
    main(['train', '--config=titok/digits_tokenizer:legacy_warmup', *flags])
    == 2
  )
  said = capsys.readouterr().err
  assert "config.frozen.teacher='no' holds no tokenizer" in said
