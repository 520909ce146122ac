"""A folder of one's own images trains with no other override than its path."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from arvision.commands.common import load_config
from arvision.errors import DataError
from arvision.runs.train import train
from arvision.runs.trained import load_run

SIZES = ((90, 40), (33, 80), (64, 64), (20, 21))


@pytest.fixture
def pictures(tmp_path):
  """Three classes of pictures of several shapes and modes, some smaller than
  the crop."""
  rng = np.random.default_rng(0)
  folder = tmp_path / 'pictures'
  for number, name in enumerate(('bird', 'cat', 'dog')):
    (folder / name).mkdir(parents=True)
    for i in range(8):
      size = SIZES[i % len(SIZES)]
      pixels = rng.integers(0, 255, (*size[::-1], 3), np.uint8)
      pixels[..., number] = 255
      image = Image.fromarray(pixels).convert(('RGB', 'RGBA', 'L')[i % 3])
      image.save(folder / name / f'{i}.png')
  return folder


def configured(name, pictures):
  config = load_config(
    f'configs/var/{name}.py', [f'data.source.path={pictures}']
  )
  config = config.copy_and_resolve_references().unlock()
  for half in (config.tokenizer.encoder, config.tokenizer.decoder):
    half.ch = 8
  if 'backbone' in config:
    config.backbone.update(width=32, depth=2)
    config.backbone.block.mlp.hidden = 64
    config.condition.width = 32
  config.data.batch_size = 4
  config.train.duration = {'steps': 2}
  config.optim.schedule.warmup = None
  for each in (config.checkpoint, config.evals, config.pictures):
    each.every = {'steps': 2}
  return config


def test_it_trains_and_samples(pictures, tmp_path, capsys):
  config = configured('folder_tokenizer', pictures).lock()
  train(config, tmp_path / 'tokenizer')
  # The usage of every scale stands in the line that the console shows.
  scales = len(config.tokenizer.scales)
  said = ''.join(capsys.readouterr())
  assert re.search(rf'  usage( \d\.\d\d){{{scales}}}  ', said)
  config = configured('folder', pictures)
  config.frozen.tokenizer = str(tmp_path / 'tokenizer')
  config.condition.classes = None
  train(config.lock(), tmp_path / 'var')
  stored = json.loads((tmp_path / 'var' / 'config.json').read_text())
  assert stored['condition']['classes'] == 3
  run = load_run(tmp_path / 'var')
  images, _ = run.sample_fn(seed=0)(np.arange(3), np.arange(3))
  assert images.shape == (3, *run.data.shape)
  assert run.data.shape[-1] == 3
  # The same command goes on: nothing is left to do, and it is the same run.
  assert train(config.lock(), tmp_path / 'var').step == 2


def test_a_folder_that_is_not_named():
  config = load_config('configs/var/folder_tokenizer.py')
  with pytest.raises(DataError, match='config.data.source.path is empty'):
    train(config, 'never')
