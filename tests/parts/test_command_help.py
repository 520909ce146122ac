"""Help texts, completion, doctor and dry runs: what a user meets first."""

import argparse
import functools
import importlib
import json
import subprocess

import pytest

from arvision.commands import main, shells
from arvision.runs import doctor, hardware
from tests.configs import ALL

COMMANDS = sorted(main.commands())


@functools.cache
def parser(command):
  return importlib.import_module(f'arvision.commands.{command}').parser()


def test_the_first_help_shows_every_command_in_a_group(capsys):
  assert main.main([]) == 2
  said = capsys.readouterr().out
  assert main.main(['--help']) == 0 and capsys.readouterr().out == said
  for name, line in main.commands().items():
    assert f'  {name}' in said and line in said
  grouped = [name for names in main.GROUPS.values() for name in names]
  assert {*COMMANDS} <= {*grouped} and '\nmore\n' not in said
  assert all(len(line) <= 100 for line in said.splitlines())


@pytest.mark.parametrize('command', COMMANDS)
def test_every_help_begins_with_what_is_required_and_an_example(
  command, capsys
):
  assert main.main(['help', command]) == 0
  said = capsys.readouterr().out
  usage, about = said.split('\n', 1)
  assert usage.startswith(f'usage: arvision {command}')
  assert usage.endswith('[flags]')
  for action in parser(command)._actions:
    name = action.option_strings[-1] if action.option_strings else ''
    assert not action.required or name in usage
  assert f'arvision {command}' in about, 'no example'


@pytest.mark.parametrize('command', COMMANDS)
def test_completion_knows_the_flags_of_the_parser(command):
  """It reads them from the source, without importing JAX."""
  known = {o.name: o for o in shells.options(command)}
  for action in parser(command)._actions:
    if isinstance(action, argparse._HelpAction):
      continue
    for name in action.option_strings or [action.dest]:
      if name == '--config.KEY':
        continue
      option = known.pop(name)
      assert option.valued == (action.nargs != 0)
      assert not option.choices or option.choices == tuple(action.choices)
  assert not known


# Words as bash splits them, and one completion of the last.
TYPED = [
  ('arvision tr', 'train'),
  ('arvision train --work', '--workdir='),
  ('arvision train --config = var/dig', 'var/digits'),
  ('arvision sample --config mvar/dig', 'mvar/digits'),
  ('arvision config xar/d', 'xar/digits'),
  ('arvision edit --mode = o', 'outpaint'),
  ('arvision completion z', 'zsh'),
]


def test_bash_completes_commands_flags_and_configs():
  tries = '\n'.join(
    f'COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n'
    '_arvision arvision "${COMP_WORDS[COMP_CWORD]}" 2>/dev/null\n'
    'echo "${COMPREPLY[*]}"'
    for line, _ in TYPED
  )
  done = subprocess.run(
    ['bash', '-c', f'{shells.script("bash")}\n{tries}'],
    capture_output=True,
    text=True,
    check=True,
  )
  found = [line.split() for line in done.stdout.splitlines()]
  assert len(found) == len(TYPED) and not done.stderr
  for (line, wanted), words in zip(TYPED, found):
    assert wanted in words, line
    assert all(word.startswith(wanted[:2]) for word in words), line


@pytest.mark.parametrize('shell', ['zsh', 'fish'])
def test_other_shells_get_every_command(shell):
  text = shells.script(shell)
  assert all(f'{command}' in text for command in COMMANDS)
  assert '--workdir' in text or '-l workdir' in text
  assert 'var/digits' in text and 'ten_crop' not in text.split('flags=')[0]


# --------------------------------------------------------------------- doctor


@pytest.fixture
def machine(monkeypatch, tmp_path):
  """A machine on which nothing is amiss."""
  monkeypatch.setattr(hardware, 'matmul_peak', lambda *_: 1234.0)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
  return monkeypatch


def test_doctor_says_that_all_is_well(machine, capsys):
  assert main.main(['doctor']) == 0
  said = capsys.readouterr().out
  assert said.splitlines()[-1].startswith('All is well')
  for part in ('jax', 'cpu', '1.2 TFLOP/s', 'cores', 'digits', 'cache'):
    assert part in said
  assert main.main(['doctor', '--json']) == 0
  found = json.loads(capsys.readouterr().out)
  assert found['well'] and found['verdict'] == said.splitlines()[-1]
  for finding in found['findings']:
    assert finding['state'] == 'ok' or finding['advice']


@pytest.mark.parametrize(
  ('variable', 'value', 'state', 'said'),
  [
    ('JAX_PLATFORMS', 'cpu', 'ok', 'alone'),
    ('JAX_NUM_PROCESSES', '2', 'problem', 'no JAX_COORDINATOR_ADDRESS'),
    ('SLURM_STEP_NUM_TASKS', '4', 'ok', 'a SLURM step of 4 tasks'),
    ('SLURM_STEP_NUM_TASKS', 'x', 'problem', 'wanted a number'),
    ('JAX_COORDINATOR_ADDRESS', 'host:1', 'ok', 'host:1'),
  ],
)
def test_doctor_waits_for_no_other_process(
  machine, variable, value, state, said
):
  machine.setenv(variable, value)
  (line,) = [f for f in doctor.examine() if f.name == 'processes']
  assert line.state == state and said in line.text


def test_doctor_names_what_is_wrong(machine, tmp_path):
  cache = tmp_path / 'shared' / 'arvision'
  cache.mkdir(parents=True)
  cache.chmod(0o777)
  machine.setenv('XDG_CACHE_HOME', str(cache.parent))
  machine.setattr(doctor, 'EMOJI', '/nowhere/font.ttf')
  machine.setattr(doctor, 'PACKAGES', (*doctor.PACKAGES, 'no-such-package'))
  found = doctor.examine()
  assert doctor.verdict(found) == 'NOT well: look at no-such-package, cache'
  lines = doctor.text(found).splitlines()
  assert any(f'chmod go-w {cache}' in line for line in lines)
  (line,) = [line for line in lines if '/nowhere/font.ttf' in line]
  assert line.startswith('- emoji') and 'apt install' in line


def test_doctor_looks_where_the_configs_do():
  source = ALL['var/fashion_mnist_tokenizer']().data.source
  assert source.folder == doctor.FASHION_MNIST
  assert ALL['var/emoji_tokenizer']().data.source.font == doctor.EMOJI


# -------------------------------------------------------------------- dry run


def test_a_dry_run_shows_the_run_and_writes_nothing(capsys, tmp_path):
  run = tmp_path / 'run'
  argv = ['train', '--config=var/digits_tokenizer', f'--workdir={run}']
  argv += ['--dry_run', '--config.train.duration.steps=120', '--stop_at=7']
  argv += ['--config.optim.schedule.warmup.steps=100']
  assert main.main(argv) == 0
  said = capsys.readouterr().out
  assert not list(tmp_path.iterdir())
  assert '\nconfig.optim.schedule.warmup.steps=100\n' in said
  assert '120 of 64 images' in said and 'stops at 7' in said
  assert ' parameters on ' in said and ' training and ' in said
  assert 'the warm-up of the learning rate takes 100 of 120 steps' in said
  assert main.main([*argv, '--config.optim.schedule.warmup.steps=130']) == 2
  said = capsys.readouterr().err
  assert '--config.optim.schedule.warmup.fraction=0.1' in said


def test_a_dry_run_without_its_tokenizer_says_so(capsys, tmp_path):
  argv = ['train', '--config=var/digits', '--workdir=run', '--dry_run']
  argv += [f'--config.frozen.tokenizer={tmp_path}/none']
  assert main.main(argv) == 2
  assert f'{tmp_path}/none' in capsys.readouterr().err
