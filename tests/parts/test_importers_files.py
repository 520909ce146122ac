"""Weight files: read without running them, and found however wrapped."""

import json
import pathlib
import pickle
import re
import zipfile

import ml_dtypes
import numpy as np
import pytest

from arvision.errors import ConfigError, DataError
from arvision.importers import families, files, torch_file
from tests.parity.case import CASES

# Cases of what `arvision import` reads, and not of networks and figures of evals.
OF_MODELS = sorted(
  path
  for path in CASES.glob('*/meta.json')
  if not path.parent.name.startswith(('inception', 'math'))
)
WEIGHTS = {
  'a.weight': np.arange(6, dtype=np.float32).reshape(2, 3),
  'b.bias': np.array([1.5, -2.0], np.float16),
  'c': np.array(7, np.int64),
  'd': np.array([1.0, 3.0], ml_dtypes.bfloat16),
  'empty': np.zeros((0, 4), np.float32),
}


@pytest.mark.parametrize('suffix', files.SUFFIXES)
def test_what_is_written_is_read(tmp_path, suffix):
  path = tmp_path / f'w{suffix}'
  files.write(path, WEIGHTS, wrapping='model')
  _, found = files.find_weights(files.read(path), WEIGHTS)
  assert {*found} == {*WEIGHTS}
  for key, w in WEIGHTS.items():
    assert found[key].dtype == w.dtype
    np.testing.assert_array_equal(found[key], w)
  assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_torch_files_keep_what_is_no_array(tmp_path):
  tree = {'epoch': 3, 'lr': 1e-4, 'args': [None, True, 'x', (1, -300)], 'w': {}}
  torch_file.write(tmp_path / 'w.pth', tree)
  assert torch_file.read(tmp_path / 'w.pth') == tree


@pytest.mark.slow
def test_torch_agrees(tmp_path):
  import torch

  torch_file.write(tmp_path / 'ours.pth', {'model': WEIGHTS})
  loaded = torch.load(tmp_path / 'ours.pth', weights_only=True)['model']
  for key, w in WEIGHTS.items():
    np.testing.assert_array_equal(
      loaded[key].float().numpy(), w.astype(np.float32)
    )
  base = torch.arange(12.0).reshape(3, 4)
  state = {'t': base.T, 'part': base[1:, 2], 'half': base.half()}
  for legacy in (False, True):
    path = tmp_path / f'theirs{legacy}.pth'
    torch.save(
      {'model': state, 'args': {'depth': 2}},
      path,
      _use_new_zipfile_serialization=not legacy,
    )
    found = torch_file.read(path)
    assert found['args'] == {'depth': 2}
    for key, value in state.items():
      np.testing.assert_array_equal(found['model'][key], value.numpy())


def legacy(tree_pickle: bytes, keys, data: bytes) -> bytes:
  """A file of torch before 1.6 around a pickle."""
  parts = [pickle.dumps(x, 2) for x in (torch_file._MAGIC, 1001, {})]
  return b''.join(parts) + tree_pickle + pickle.dumps(keys, 2) + data


def test_the_format_from_before_zip_files(tmp_path):
  arrays = []
  body = b'\x80\x02' + torch_file._pickled({'w': WEIGHTS['a.weight']}, arrays)
  # The older format has a sixth entry for views of a storage.
  body = body.replace(b'tQ', b'NtQ') + b'.'
  data = (6).to_bytes(8, 'little') + arrays[0].tobytes()
  path = tmp_path / 'old.pth'
  path.write_bytes(legacy(body, ['0'], data))
  np.testing.assert_array_equal(torch_file.read(path)['w'], WEIGHTS['a.weight'])
  path.write_bytes(legacy(body, ['0'], data[:-4]))
  with pytest.raises(DataError, match='damaged or cut off'):
    torch_file.read(path)


class Evil:
  def __reduce__(self):
    return eval, ("open('/tmp/arvision_was_here', 'w')",)


@pytest.mark.parametrize('zipped', [True, False])
def test_code_is_refused_by_name_and_not_run(tmp_path, zipped):
  path = tmp_path / 'evil.pth'
  body = pickle.dumps({'w': Evil()}, 2)
  if zipped:
    with zipfile.ZipFile(path, 'w') as archive:
      archive.writestr('archive/data.pkl', body)
  else:
    path.write_bytes(legacy(body, [], b''))
  with pytest.raises(DataError, match=r'would call \w+\.eval'):
    files.read(path)


def test_a_file_that_is_cut_off(tmp_path):
  for suffix in ('.pth', '.safetensors'):
    path = tmp_path / f'w{suffix}'
    files.write(path, WEIGHTS)
    whole = path.read_bytes()
    for size in (0, 5, 40, len(whole) // 2, len(whole) - 4):
      path.write_bytes(whole[:size])
      with pytest.raises(DataError, match='cut off'):
        files.read(path)


def test_an_array_larger_than_its_storage(tmp_path):
  arrays = []
  body = b'\x80\x02' + torch_file._pickled(WEIGHTS, arrays) + b'.'
  path = tmp_path / 'w.pth'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', body)
    for i in range(len(arrays)):
      archive.writestr(f'archive/data/{i}', b'')
  with pytest.raises(DataError, match='damaged'):
    files.read(path)


@pytest.mark.parametrize(
  ('content', 'problem'),
  [
    (b'<!DOCTYPE html><html>', 'web page'),
    (b'version https://git-lfs.github.com/spec/v1\noid', 'git-lfs'),
    (b'\x89PNG\r\n', 'neither a .safetensors file'),
  ],
)
def test_downloads_that_did_not_succeed(tmp_path, content, problem):
  path = tmp_path / 'w.pth'
  path.write_bytes(content)
  with pytest.raises(DataError, match=problem):
    files.read(path)


def test_a_file_that_is_not_there(tmp_path):
  with pytest.raises(DataError, match='no file'):
    files.read(tmp_path / 'w.pth')


W = {'x.weight': np.zeros(2), 'y.weight': np.zeros(3)}


@pytest.mark.parametrize(
  ('content', 'place'),
  [
    (W, ''),
    ({'model': W}, 'model'),
    ({'module': W, 'epoch': 3}, 'module'),
    ({'state_dict': {f'module.{k}': w for k, w in W.items()}}, 'state_dict'),
    (
      {'trainer': {'var_wo_ddp': W, 'vae_local': {'z': W['x.weight']}}},
      'trainer.var_wo_ddp',
    ),
    ({'model': W, 'model_ema': W, 'optimizer': {}}, 'model_ema'),
    ({'model': W, 'ema': {'x.weight': np.zeros(2)}}, 'model'),
  ],
)
def test_every_wrapping_is_found(content, place):
  name, found = files.find_weights(content, W)
  assert name == place
  assert {*found} == {*W}


def under(prefix, weights=W):
  return {f'{prefix}{k}': w for k, w in weights.items()}


E = {k: w + 1 for k, w in W.items()}
ONE = np.zeros(1)
# LitEma takes the dots out of what it averages.
DOTLESS = {k.replace('.', ''): w for k, w in E.items()}


@pytest.mark.parametrize(
  ('content', 'place'),
  [
    ({'model': W, 'ema': E}, 'ema'),
    ({'model': W, 'ema': {'shadow': E}}, 'ema.shadow'),
    ({'model': W, 'ema_0.999': E}, 'ema_0.999'),
    ({'model': W, 'modelEMA': E}, 'modelEMA'),
    ({'model': W, 'swa': {'n_averaged': ONE, **under('module.', E)}}, 'swa'),
    ({'net': W, 'best': {'n_averaged': ONE, **under('module.', E)}}, 'best'),
    ({**under('model.'), **under('model_ema.', E)}, 'model_ema'),
    ({**W, **under('ema.', E), 'ema.decay': ONE}, 'ema'),
    (
      {
        'state_dict': {
          **under('model.'),
          **under('model_ema.', DOTLESS),
          'model_ema.decay': ONE,
        }
      },
      'state_dict.model_ema',
    ),
    (
      {'ema': {**under('online_model.'), **under('ema_model.', E)}},
      'ema.ema_model',
    ),
  ],
)
def test_averages_are_found_by_structure(content, place):
  name, found = files.find_weights(content, W)
  assert name == place
  assert {*W} <= {*found}
  for key in W:
    np.testing.assert_array_equal(found[key], E[key])


@pytest.mark.parametrize(
  ('content', 'place'),
  [
    ({'model': W, 'semantic_model': E}, 'model'),
    ({'model': W, 'model_without_ema': E}, 'model'),
    ({'state_dict': {**under('model.'), **under('loss.')}}, 'state_dict.loss'),
    (
      {'state_dict': {**under('model.'), 'loss.y.weight': ONE}},
      'state_dict.model',
    ),
    ({'state_dict': under('module.model.')}, 'state_dict.model'),
    ({'a': under('_orig_mod.module.')}, 'a'),
  ],
)
def test_what_is_beside_a_network_is_left_out(content, place):
  name, found = files.find_weights(content, W)
  assert name == place
  assert {*found} == {*W}


def test_mappings_in_themselves_end():
  content = {'model': W}
  content['again'] = content
  assert files.find_weights(content, W)[0] == 'model'
  laughs = W
  for _ in range(40):
    laughs = dict.fromkeys('abc', laughs)
  with pytest.raises(DataError, match='mappings'):
    files.find_weights(laughs, W)


@pytest.mark.parametrize('case', OF_MODELS, ids=lambda p: p.parent.name)
def test_families_are_told_by_their_keys(case):
  keys = json.loads(case.read_text()).get('weights', {})
  name = case.parent.name
  family = name.removeprefix('train_').split('_')[0]
  # The first stage of HMAR has VAR's keys, and ReCAP's MAR is MAR.
  others = {
    'mar_vae': 'klautoencoder',
    'train_hmar_nsp': 'var',
    'recap_mar': 'mar',
    'recap_maskgit': 'maskgitr',
  }
  seems = families.looks_like(keys)
  start = re.sub(r'\W', '', seems).lower()
  assert start.startswith(others.get(name, family))
  assert ('tokenizer reads' in seems) == bool(
    re.search(r'_vq(?!_diff)|_vae|_bae|_tokenizer|titok(_nonlegacy)?$', name)
  )
  pathlib.Path(f'configs/{seems.split("=")[1].split()[0]}.py').stat()


def broken(header, size=16):
  data = json.dumps(header).encode() if isinstance(header, dict) else header
  return len(data).to_bytes(8, 'little') + data + bytes(size)


ENTRY = {'dtype': 'F32', 'shape': [4], 'data_offsets': [0, 16]}


@pytest.mark.parametrize(
  'content',
  [
    broken({'a': ENTRY | {'shape': [5]}}),
    broken({'a': ENTRY | {'shape': [-2, -2]}}),
    broken({'a': ENTRY | {'shape': [2**64 + 4]}}),
    broken({'a': ENTRY | {'shape': '4'}}),
    broken({'a': ENTRY | {'shape': [1] * 99}}),
    broken({'a': ENTRY | {'data_offsets': [4, 20]}}),
    broken({'a': ENTRY | {'data_offsets': [-16, 0]}}),
    broken({'a': ENTRY | {'data_offsets': [0]}}),
    broken({'a': ENTRY, 'b': ENTRY}),
    broken({'a': ENTRY}, 20),
    broken({'a': ENTRY}, 12),
    broken({'a': {}}),
    broken({'a': 1}),
    broken(b'{"a":{},"a":{}}'),
    broken(b'{' + b'[' * 10**5),
    broken(b'{"a":' * 10**5),
    broken(b'{"a":"' + b'x' * 2**22 + b'"}'),
    (2**26).to_bytes(8, 'little') + b'{"a":1}',
  ],
)
def test_headers_that_lie(tmp_path, content):
  path = tmp_path / 'w.safetensors'
  path.write_bytes(content)
  with pytest.raises(DataError, match='w.safetensors.*damaged'):
    files.read(path)


def test_what_numpy_lacks_is_refused_when_it_is_used(tmp_path):
  path = tmp_path / 'w.safetensors'
  path.write_bytes(broken({'a': ENTRY | {'dtype': 'F4'}}))
  content = files.read(path)
  with pytest.raises(DataError, match="'a' holds a tensor of a dtype"):
    files.find_weights(content, ['a'])
  with pytest.raises(DataError, match='w.safetensors'):
    np.asarray(content['a'])


def test_a_place_that_is_asked_for():
  content = {'model': W, 'model_ema': W}
  assert files.find_weights(content, W, 'model')[0] == 'model'
  with pytest.raises(ConfigError, match="under 'ema'.*model, model_ema"):
    files.find_weights(content, W, 'ema')


def test_nothing_of_the_network_in_the_file():
  with pytest.raises(DataError, match='it holds q, '):
    files.find_weights({'q': np.zeros(1)}, W)
  with pytest.raises(DataError, match='no arrays at all'):
    files.find_weights([1, 2], W)


def test_a_suffix_that_is_not_known(tmp_path):
  with pytest.raises(ConfigError, match='ends in .safetensors'):
    files.write(tmp_path / 'w.npz', W)


def test_a_write_that_fails_leaves_nothing(tmp_path):
  with pytest.raises(ValueError, match='no dtype like'):
    torch_file.write(tmp_path / 'w.pth', {'w': np.zeros(2, 'M8[s]')})
  assert not [*tmp_path.iterdir()]


def test_numpy_scalars_and_namespaces_are_read(tmp_path):
  import argparse

  body = pickle.dumps(
    {'lr': np.float64(0.5), 'args': argparse.Namespace(depth=3)}, 2
  )
  path = tmp_path / 'old.pth'
  path.write_bytes(legacy(body, [], b''))
  read = torch_file.read(path)
  assert read['lr'] == 0.5
  assert read['args'].state == {'depth': 3}
