"""How runs go on: with other values, and in folders that moved."""

import json
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict

from arvision.errors import ConfigError, DataError
from arvision.training import differences, frozen, workdir
from arvision.training.optim import Optimizer
from arvision.training.schedule import run_clock
from arvision.training.trees import save_tree
from tests.parts import training_toys as toys


def lines(folder):
  text = (folder / 'log.jsonl').read_text().splitlines()
  return [json.loads(line) for line in text]


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run of 12 steps of 16."""
  folder = tmp_path_factory.mktemp('whole')
  toys.run(toys.config(), folder)
  return folder


# ------------------------------------------------------- other values, midway


def indices(iterator, count):
  return np.concatenate([next(iterator)['index'] for _ in range(count)])


def test_another_batch_size_goes_on_at_the_same_example():
  data = toys.Data()
  wanted = indices(data.train(16, 0), 30)
  iterator = data.train(16, 0)
  found = [indices(iterator, 5)]
  state = json.loads(json.dumps(iterator.get_state()))
  for size, count in ((24, 3), (8, 2), (8, 4), (1, 7)):
    iterator.close()
    iterator = data.train(size, 0)
    iterator.set_state(state)
    found.append(indices(iterator, count))
    state = json.loads(json.dumps(iterator.get_state()))
  iterator.close()
  found = np.concatenate(found)
  np.testing.assert_array_equal(found, wanted[: len(found)])
  assert state['next_batch'] == 21
  assert state['changes'] == [[5, 80], [8, 152], [14, 200]]


def test_durations_count_the_steps_that_were_taken():
  config = toys.config(train__duration={'epochs': 4.5})  # 432 examples
  clock = run_clock(config, 96)
  assert clock.total == 27
  config.data.batch_size = 32
  # 5 steps of 16, then 352 examples in steps of 32.
  clock = run_clock(config, 96, ((5, 80),))
  assert clock.total == 5 + 11
  assert [clock.seen(k) for k in (0, 3, 5, 7)] == [0, 48, 80, 144]
  assert clock.at({'epochs': 0.5}, 'x') == 3  # before the change
  assert clock.at({'examples': 80 + 64}, 'x') == 7
  assert clock.at({'steps': 7}, 'x') == 7
  assert clock.steps({'epochs': 1}, 'x') == 3  # a period, from now on


def test_change_goes_on_with_other_values(tmp_path, capsys):
  changes = {'train__duration': {'epochs': 2}}
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  for folder in (whole, parts):
    assert toys.run(toys.config(**changes), folder, stop_at=5).total == 12
  changes |= {'data__batch_size': 8, 'optim__learning_rate': 0.01}
  with pytest.raises(ConfigError, match='add --change') as error:
    toys.run(toys.config(**changes), whole)
  assert 'config.data.batch_size: 16 there, 8 here' in str(error.value)
  # 80 of 192 examples were seen.
  result = toys.run(toys.config(**changes), whole, change=True)
  assert (result.step, result.total) == (5 + 14, 5 + 14)
  [noted] = [line for line in lines(whole) if 'changed' in line]
  assert noted['step'] == 5 and noted['examples'] == 80
  assert noted['changed']['config.data.batch_size'] == [16, 8]
  assert 'config.optim.learning_rate: 0.05 until now' in capsys.readouterr().out
  last = lines(whole)[-1]
  assert last['examples'] == 192
  assert workdir.load_config(whole).data.batch_size == 8
  # From now on the same command goes on, with the flag and without.
  toys.run(toys.config(**changes), parts, change=True, stop_at=9)
  toys.run(toys.config(**changes), parts, change=True, stop_at=11)
  toys.run(toys.config(**changes), parts)
  a, b = toys.arrays(whole), toys.arrays(parts)
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize(
  'changes', [{'optim__clip': 0.0}, {'toy__width': 6}, {'seed': 4}]
)
def test_change_is_not_advised_where_it_is_refused(whole, changes):
  for flag in (False, True):
    with pytest.raises(ConfigError) as error:
      toys.run(toys.config(**changes), whole, change=flag)
    assert '--change' not in str(error.value)


def test_every_advised_change_is_taken():
  made = Optimizer(0.1, weight_decay=0.1, clip=1.0)
  assert {
    k.rpartition('.')[2] for k in differences.TUNABLE if 'optim' in k
  } <= {*vars(made)}


def test_resume_from_with_change(whole, tmp_path):
  toys.run(toys.config(), tmp_path / 'first', stop_at=4)
  config = toys.config(data__batch_size=32)
  options = {'resume_from': tmp_path / 'first'}
  with pytest.raises(ConfigError, match='--change'):
    toys.run(config, tmp_path / 'second', **options)
  assert (
    toys.run(config, tmp_path / 'second', change=True, **options).step == 12
  )
  assert lines(tmp_path / 'second')[-1]['examples'] == 64 + 8 * 32


# ----------------------------------------------------------------- moved runs


def with_tokenizer(folder, **more):
  tokenizer = {'type': 'tokenizers.autoencoder.Autoencoder', 'quant_kernel': 3}
  return ConfigDict(
    {
      'tokenizer': tokenizer,
      'frozen': {'tokenizer': str(folder)},
      'data': {'type': 'data.pipeline.Images'},
      **more,
    }
  )


def make_tokenizer(folder, value):
  folder.mkdir(parents=True)
  workdir.save_config(folder, with_tokenizer(''))
  params = {'tokenizer': {'codes': np.full((3,), value, np.float32)}}
  save_tree(folder / 'imported', {'params': params})


@pytest.fixture
def moved(tmp_path, monkeypatch):
  """The run of a generator; its tokenizer is named by a relative path."""
  monkeypatch.chdir(tmp_path)
  make_tokenizer(tmp_path / 'tok', 1.0)
  old = with_tokenizer('tok', backbone={'type': 'backbones.decoder.Decoder'})
  frozen.claim('run', old, frozen.load(old, 'run'))
  (tmp_path / 'run' / 'log.jsonl').write_text('{"step": 1}\n')
  return tmp_path / 'run'


def test_a_moved_tokenizer_of_the_same_weights_is_the_same(moved, tmp_path):
  (tmp_path / 'tok').rename(tmp_path / 'elsewhere')
  new = with_tokenizer(
    'elsewhere', backbone={'type': 'backbones.decoder.Decoder'}
  )
  assert differences.check_same(new, moved) == {
    'config.frozen.tokenizer': ('tok', 'elsewhere')
  }
  kept = frozen.load(new, moved)
  assert kept['tokenizer']['params']['codes'].tolist() == [1, 1, 1]


def test_the_copy_serves_where_the_tokenizer_is_gone(moved, tmp_path, capsys):
  shutil.rmtree(tmp_path / 'tok')
  new = with_tokenizer(
    'elsewhere', backbone={'type': 'backbones.decoder.Decoder'}
  )
  differences.check_same(new, moved)
  assert frozen.load(new, moved)['tokenizer']['params']['codes'][0] == 1
  assert "'elsewhere' does not exist" in capsys.readouterr().out


def test_a_tokenizer_of_other_weights_is_refused(moved, tmp_path):
  make_tokenizer(tmp_path / 'other', 2.0)
  new = with_tokenizer('other', backbone={'type': 'backbones.decoder.Decoder'})
  with pytest.raises(ConfigError, match="Set it back to 'tok'"):
    frozen.load(new, moved)


def test_moved_pictures_are_told_by_their_number(tmp_path):
  class Placed(toys.Data):
    pass

  def run(path, examples, **options):
    from arvision.runs.train import train

    config = toys.config()
    config.data.source = {'path': path}
    made = {'make_task': toys.make_task}
    make_data = lambda config: Placed(examples=examples)
    return train(config, tmp_path, make_data=make_data, **made, **options)

  run('here', 96, stop_at=2)
  assert run('there', 96, stop_at=3).step == 3
  with pytest.raises(DataError, match='examples=96'):
    run('elsewhere', 97)
  assert workdir.load_config(tmp_path).data.source.path == 'there'
