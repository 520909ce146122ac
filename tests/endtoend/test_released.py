"""Weights out in the official form, and in again, by the commands."""

import importlib

import jax
import numpy as np
import pytest

from arvision.commands import run_flags
from arvision.commands.main import main
from arvision.errors import ConfigError
from arvision.importers import files
from arvision.runs import memory
from arvision.runs.trained import load_run
from arvision.training import weights
from tests.endtoend.conftest import SHORT
from tests.parity.case import CASES, Case


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_out_and_in_again_is_the_same_run(digits_runs, tmp_path, suffix):
  tok, var = tmp_path / f'vae{suffix}', tmp_path / f'var{suffix}'
  for workdir, file in (('tok', tok), ('var', var)):
    assert not main(
      ['export', f'--workdir={digits_runs}/{workdir}', f'--output={file}']
    )
  assert not main(
    [
      'import',
      '--config=var/digits_tokenizer',
      f'--source={tok}',
      f'--workdir={tmp_path}/tok',
    ]
  )
  assert not main(
    [
      'import',
      '--config=var/digits',
      f'--source={var}',
      f'--workdir={tmp_path}/var',
      f'--config.frozen.tokenizer={tmp_path}/tok',
      '--config.backbone.depth=2',
    ]
  )
  before, after = load_run(digits_runs / 'var'), load_run(tmp_path / 'var')
  assert before.ema == '0.99' and after.ema == 'raw'
  same(before.params, after.params)
  same(before.variables, after.variables)
  labels, index = np.arange(3), np.arange(3)
  same(
    before.sample_fn(seed=5)(labels, index),
    after.sample_fn(seed=5)(labels, index),
  )


def test_the_dtype_of_a_run_may_be_changed(digits_runs):
  run = load_run(digits_runs / 'var')
  config = run.config.copy_and_resolve_references()
  with config.unlocked():
    config.backbone.dtype = 'bfloat16'
  half = run_flags.with_config(run, config, 'run')
  assert half.model.backbone.dtype == 'bfloat16'
  images, _ = half.sample_fn(seed=1)(np.arange(2), np.arange(2))
  exact, _ = run.sample_fn(seed=1)(np.arange(2), np.arange(2))
  assert images.shape == exact.shape and np.isfinite(images).all()
  with config.unlocked():
    config.backbone.width = 8
  with pytest.raises(ConfigError, match='width: .* there, 8 here'):
    run_flags.with_config(run, config, 'run')


def test_calls_of_any_size_draw_the_same(digits_runs, monkeypatch):
  run = load_run(digits_runs / 'var')
  labels, index = np.arange(3), np.arange(3)
  images, tokens = run.sample_fn(seed=3)(labels, index)
  said = []
  tight = load_run(digits_runs / 'var', say=said.append)
  monkeypatch.setattr(memory, 'free', lambda placement: 1)
  one, same_tokens = tight.sample_fn(seed=3)(labels, index)
  np.testing.assert_array_equal(tokens, same_tokens)
  np.testing.assert_allclose(images, one, atol=1e-5)
  assert {line.split(':')[0] for line in said} == {
    'sampling 1 at once',
    'decoding 1 at once',
  }


def test_the_file_has_the_official_keys_and_shapes(tmp_path):
  """A released file, in and out again: the same file."""
  case = Case(CASES / 'var_vqvae')
  weights = case.weights()
  files.write(tmp_path / 'vae.pth', weights)
  args = case.args
  flags = [
    '--config=var/tokenizer',
    f'--config.tokenizer.quantizer.vocab_size={args["vocab_size"]}',
    f'--config.tokenizer.quantizer.channels={args["z_channels"]}',
    f'--config.tokenizer.scales={tuple(args["v_patch_nums"])}',
    f'--config.tokenizer.encoder.z_channels={args["z_channels"]}',
    '--config.data.size=(20, 20)',
  ]
  for half in ('encoder', 'decoder'):
    flags += [
      f'--config.tokenizer.{half}.ch={args["ch"]}',
      f'--config.tokenizer.{half}.ch_mult={tuple(args["ch_mult"])}',
      f'--config.tokenizer.{half}.res_blocks={args["num_res_blocks"]}',
    ]
  run, out = tmp_path / 'run', tmp_path / 'out.pth'
  assert not main(
    ['import', f'--source={tmp_path}/vae.pth', f'--workdir={run}', *flags]
  )
  assert not main(['export', f'--workdir={run}', f'--output={out}'])
  found = files.read(out)
  assert {*found} == {*weights}
  same(dict(found), weights)


def test_training_goes_on_from_imported_weights(digits_runs, tmp_path, capsys):
  file = tmp_path / 'vae.safetensors'
  main(
    ['export', f'--workdir={digits_runs}/tok', '--ema=raw', f'--output={file}']
  )
  flags = ['--config=var/digits_tokenizer', f'--workdir={tmp_path}/run', *SHORT]
  assert not main(['import', f'--source={file}', *flags])
  assert not main(['train', '--stop_at=2', *flags])
  assert 'imported weights' in capsys.readouterr().out
  start = weights.load_params(digits_runs / 'tok', 'raw')[1]
  step = weights.load_params(tmp_path / 'run', 'raw')[1]
  change = jax.tree.map(lambda a, b: np.abs(a - b).max(), start, step)
  # The first rate is 0, and a step of Adam moves numbers by about the rate.
  assert 0 < max(jax.tree.leaves(change)) < 4e-3


def test_errors_are_told(digits_runs, tmp_path, capsys):
  def fails(*argv):
    assert main([*argv]) == 2
    return capsys.readouterr().err

  file = tmp_path / 'vae.pth'
  main(['export', f'--workdir={digits_runs}/tok', f'--output={file}'])
  into = f'--workdir={tmp_path}/new'
  config, source = '--config=var/digits', f'--source={file}'
  tokenizer = f'--config.frozen.tokenizer={digits_runs}/tok'
  text = fails('import', config, source, into, tokenizer)
  assert 'none of the keys of this network' in text
  assert 'looks like a VAR tokenizer, which --config=var/tokenizer' in text
  text = fails('import', '--config=llamagen/digits_tokenizer', source, into)
  assert 'not the weights of this LlamaGen tokenizer' in text
  assert 'looks like a VAR tokenizer' in text
  text = fails(
    'import', '--config=var/digits_tokenizer', source, into, '--weights=ema'
  )
  assert "no weights under 'ema'" in text
  text = fails(
    'import',
    '--config=var/digits_tokenizer',
    source,
    f'--workdir={digits_runs}/tok',
  )
  assert 'holds a run already' in text
  assert not (tmp_path / 'new').exists()


def test_the_commands_are_listed():
  for name in ('import', 'export'):
    module = importlib.import_module(f'arvision.commands.{name}')
    assert module.__doc__
