"""FID in training: figures in the log, protocols beside it, the best checkpoint."""

import json

import pytest

from arvision.commands.main import main
from tests.endtoend.conftest import SHORT

CONFIG = """
from arvision.configs import common
from arvision.configs.var import digits


def get_config():
  config = digits.get_config().unlock()
  config.evals.fid = common.fid()
  config.evals.fid.extractor = common.block(
    type='tests.parts.evals_toys.Toy', path=__file__
  )
  config.evals.fid.samples = 20
  config.evals.fid.figures = ('fid', 'inception_score')
  config.evals.fid.every = common.block(steps=2)
  return config.lock()
"""


@pytest.mark.slow  # 30 seconds
def test_scores_and_their_protocols(digits_runs, tmp_path, capsys):
  (tmp_path / 'own.py').write_text(CONFIG)
  folder = tmp_path / 'run'
  argv = [
    'train',
    f'--config={tmp_path}/own.py',
    f'--workdir={folder}',
    f'--config.frozen.tokenizer={digits_runs}/tok',
    '--config.backbone.depth=2',
    *SHORT,
  ]
  assert main([*argv, '--config.checkpoint.best=evals.fid/fid']) == 0
  lines = [
    json.loads(x) for x in (folder / 'log.jsonl').read_text().split('\n')[:-1]
  ]
  found = [
    {k: v for k, v in line.items() if k.startswith('fid/')} for line in lines
  ]
  found = [line for line in found if line]
  assert len(found) == 2 and found[0].keys() == found[1].keys()
  protocols = json.loads((folder / 'protocols.json').read_text())
  [name] = found[0]
  facts = protocols[name.split('/')[1]]
  assert facts['extractor'] == 'toy' and facts['images'] == 20
  assert facts['split'] == 'train'
  argv = ['eval', f'--workdir={folder}', '--step=best', '--which=fid']
  assert main([*argv, '--allow=tests']) == 0
  record = json.loads((folder / 'eval.json').read_text())
  assert record['protocols'].keys() == protocols.keys()
  # The best checkpoint scores what the log says.
  best = min(line[name] for line in found)
  assert record['metrics'][name] == pytest.approx(best, rel=1e-5)
  argv = ['train', f'--config={tmp_path}/own.py', f'--workdir={tmp_path}/two']
  argv += [f'--config.frozen.tokenizer={digits_runs}/tok', *SHORT]
  argv += ['--config.evals.fid.extractor=none']
  assert main(argv) == 2
  assert 'config.evals.fid.every: not available' in capsys.readouterr().err
