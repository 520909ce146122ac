"""A generator that reads captions: trained, opened, asked for captions."""

import jax
import numpy as np
import pytest

from arvision.commands.main import main
from arvision.runs.prompts import of_captions
from arvision.runs.trained import load_run
from arvision.training import weights
from tests.endtoend.conftest import SHORT


@pytest.fixture(scope='module')
def tokenizer(random_tokenizer):
  return random_tokenizer('llamagen/digits_tokenizer')


@pytest.fixture(scope='module')
def workdir(tmp_path_factory, tokenizer):
  folder = tmp_path_factory.mktemp('runs')
  assert not main(
    [
      'train',
      '--config=llamagen/digits_t2i',
      f'--workdir={folder}/t2i',
      f'--config.frozen.tokenizer={tokenizer}',
      '--config.backbone.depth=1',
      '--config.optim.weight_decay=0.5',
      *SHORT,
    ]
  )
  return folder / 't2i'


def test_the_null_caption_neither_trains_nor_decays(workdir):
  _, params, _ = weights.load_params(workdir, 'raw')
  _, average, _ = weights.load_params(workdir)
  null = params['condition']['null_fixed']
  np.testing.assert_array_equal(null, average['condition']['null_fixed'])
  # As it was drawn: standard deviation 1 / sqrt(channels).
  assert null.std() * np.sqrt(32) == pytest.approx(1.0, abs=0.1)
  assert (params['condition']['fc1']['kernel'] != 0).all()
  moved = jax.tree.map(lambda a, b: (a != b).any(), params, average)
  assert moved['condition'] == {
    'null_fixed': False,
    'fc1': {'kernel': True},
    'fc2': {'kernel': True},
  }


def test_captions_are_drawn(workdir, capsys):
  captions = ['a handwritten digit 7', 'zebra 3']
  assert not main(
    [
      'sample',
      f'--workdir={workdir}',
      '--number=2',
      '--name=two',
      '--captions',
      *captions,
    ]
  )
  said = capsys.readouterr().out
  assert '4 images of 2 captions' in said
  assert "--captions='zebra 3': no training caption has 'zebra';" in said
  names = sorted(p.name for p in (workdir / 'samples' / 'two').iterdir())
  assert names == [
    '00000_a_handwritten_digit_7.png',
    '00001_a_handwritten_digit_7.png',
    '00002_zebra_3.png',
    '00003_zebra_3.png',
    'grid.png',
  ]


def test_a_class_is_asked_for_by_its_caption(workdir):
  run = load_run(workdir)
  index = np.arange(2)
  by_class, _ = run.sample_fn(seed=1)(np.array([7, 3]), index)
  text = run.data.text
  spelt = of_captions(text, [f'A handwritten digit {i}' for i in (3, 7)])
  by_text, _ = run.sample_fn(seed=1, prompts=spelt)(np.array([1, 0]), index)
  np.testing.assert_array_equal(by_class, by_text)


def test_what_cannot_be_asked_for(workdir, tokenizer, tmp_path, capsys):
  np.save(tmp_path / 'a.npy', np.zeros((3, 5), np.float32))
  flags = ['sample', f'--workdir={workdir}']
  assert main([*flags, f'--features={tmp_path}/a.npy']) == 2
  assert 'wanted floats (tokens, 32)' in capsys.readouterr().err
  assert main([*flags, '--features=x', '--captions=y']) == 2
  assert 'got both' in capsys.readouterr().err
  # Another length of the features than the model has slots for.
  assert (
    main(
      [
        'train',
        '--config=llamagen/digits_t2i',
        f'--workdir={tmp_path}/run',
        f'--config.frozen.tokenizer={tokenizer}',
        '--config.data.text.length=5',
      ]
    )
    == 2
  )
  said = capsys.readouterr().err
  assert 'config.data.text.length=5, but config.condition.length=8' in said
