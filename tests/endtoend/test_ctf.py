"""Both stages of CTF over a tokenizer with random weights, and one sampling."""

import numpy as np
import pytest

from arvision.commands.main import main
from arvision.runs.trained import load_run

STEPS = '--config.train.duration.steps=2'


@pytest.mark.slow
def test_one_command_samples_both_stages(random_tokenizer, tmp_path, capsys):
  teacher = random_tokenizer('llamagen/tiny_tokenizer')
  fine, coarse = tmp_path / 'fine', tmp_path / 'coarse'
  flags = (f'--workdir={fine}', f'--config.frozen.teacher={teacher}', STEPS)
  assert not main(['train', '--config=ctf/tiny_tokenizer', *flags])
  flags = (f'--workdir={coarse}', f'--config.frozen.tokenizer={fine}', STEPS)
  assert not main(['train', '--config=ctf/tiny', *flags])
  flags = ('--labels=3,7', '--number=2')
  assert not main(['sample', f'--workdir={coarse}', *flags])
  assert len([*coarse.glob('samples/**/*.png')]) >= 4
  # Images are those of codes, and repeat in another batch.
  run = load_run(coarse)
  images, tokens = run.sample_fn(seed=3)(np.array([3, 7]))
  again, _ = run.sample_fn(seed=3)(np.array([7]), np.array([1]))
  np.testing.assert_array_equal(images[1:], again)
  assert tokens.max() < run.tokenizer.clusters
  codec = run.tokenizer.bind(run.variables)
  codes = np.asarray(codec.refine(tokens))
  np.testing.assert_array_equal(codec.coarse(codes), tokens)
  # Another fine stage is another tokenizer.
  capsys.readouterr()
  flags = (f'--workdir={tmp_path}/x', f'--config.frozen.tokenizer={teacher}')
  assert main(['train', '--config=ctf/tiny', *flags, STEPS]) == 2
  assert 'is not the one of this config' in capsys.readouterr().err
