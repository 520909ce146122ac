"""What a wheel and an sdist hold, and what an installed arvision can do."""

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile

import pytest

import arvision

ROOT = pathlib.Path(__file__).parents[2]
# What a copy of the repository need not have to be built.
_LARGE = ('.*', 'images', 'parity', '__pycache__', '*.egg-info')
_BUILD = """
import sys
from setuptools import build_meta

getattr(build_meta, sys.argv[1])(sys.argv[2])
"""
NAME = f'arvision-{arvision.__version__}'


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  """Folder with the wheel and the sdist, and a copy that they are built from."""
  copy = tmp_path_factory.mktemp('copy')
  for path in ROOT.iterdir():
    if path.is_file():
      shutil.copy(path, copy)
  ignored = shutil.ignore_patterns(*_LARGE)
  for name in ('arvision', 'configs', 'benchmarks', 'docs', 'launch', 'tests'):
    shutil.copytree(ROOT / name, copy / name, ignore=ignored)
  folder = tmp_path_factory.mktemp('dist')
  for kind in ('build_sdist', 'build_wheel'):
    done = subprocess.run(
      [sys.executable, '-c', _BUILD, kind, str(folder)],
      cwd=copy,
      capture_output=True,
      text=True,
    )
    assert done.returncode == 0, done.stderr
  return folder


def files(*folders):
  """Files of the repository, without what Python has compiled."""
  found = (path for f in folders for path in (ROOT / f).rglob('*'))
  return {
    str(path.relative_to(ROOT))
    for path in found
    if path.is_file() and path.suffix != '.pyc' and 'egg-info' not in str(path)
  }


def test_a_wheel_holds_the_package_and_the_configs_alone(built):
  with zipfile.ZipFile(built / f'{NAME}-py3-none-any.whl') as wheel:
    names = {name for name in wheel.namelist() if not name.endswith('/')}
    about = {n for n in names if n.startswith(f'{NAME}.dist-info/')}
    facts = wheel.read(f'{NAME}.dist-info/METADATA').decode()
  configs = {f'arvision/{name}' for name in files('configs')}
  assert names - about == files('arvision') | configs
  assert {pathlib.Path(name).name for name in about} == {
    *('METADATA', 'WHEEL', 'RECORD', 'LICENSE', 'entry_points.txt'),
    'top_level.txt',
  }
  assert f'\nVersion: {arvision.__version__}\n' in facts
  assert '\nLicense: Apache-2.0\n' in facts


def test_an_sdist_holds_what_the_wheel_is_built_from(built):
  with tarfile.open(built / f'{NAME}.tar.gz') as archive:
    names = {member.name for member in archive if member.isfile()}
  names = {name.removeprefix(f'{NAME}/') for name in names}
  extra = {name for name in names if name.startswith('arvision.egg-info/')}
  beside = {'CHANGELOG.md', 'CITATION.cff', 'LICENSE', 'MANIFEST.in'}
  beside |= {'README.md', 'pyproject.toml', 'setup.py', 'setup.cfg', 'PKG-INFO'}
  assert names - extra == files('arvision', 'configs') | beside


def test_one_version_and_one_licence():
  citation = (ROOT / 'CITATION.cff').read_text(encoding='utf-8')
  assert f'\nversion: {arvision.__version__}\n' in citation
  changes = (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8')
  assert f'\n## {arvision.__version__}' in changes
  assert 'Apache License' in (ROOT / 'LICENSE').read_text(encoding='utf-8')


def test_the_import_is_cheap_and_touches_no_accelerator():
  code = """
import sys, time
start = time.process_time()
import arvision
alone = time.process_time() - start
from arvision.commands import main
main.main(['--version'])
main.main(['--help'])
main.main(['completion', 'bash'])
print(alone, time.process_time() - start, 'jax' in sys.modules)
"""
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT
  )
  alone, seconds, jax = done.stdout.splitlines()[-1].split()
  assert done.stdout.startswith(f'arvision {arvision.__version__}\n')
  assert jax == 'False' and float(alone) < 0.3 and float(seconds) < 2


@pytest.mark.slow  # installs twice, from the network or the cache of pip
@pytest.mark.parametrize('kind', ['*.whl', '*.tar.gz'])
def test_an_installed_package_trains_from_any_folder(built, tmp_path, kind):
  venv.create(tmp_path / 'env', with_pip=True)
  python = tmp_path / 'env' / 'bin' / 'python'
  (archive,) = built.glob(kind)
  away = tmp_path / 'elsewhere'
  away.mkdir()
  env = {k: v for k, v in os.environ.items() if not k.startswith('PYTHON')}

  def run(*words):
    done = subprocess.run(
      words, cwd=away, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

  run(str(python), '-m', 'pip', 'install', '--quiet', str(archive))
  program = str(python.with_name('arvision'))
  assert run(program, '--version') == f'arvision {arvision.__version__}\n'
  assert 'All is well' in run(program, 'doctor')
  assert 'var/digits' in run(program, 'configs')
  tokenizer = ['--config=var/digits_tokenizer', '--workdir=tokenizer']
  run(program, 'train', *tokenizer, '--stop_at=3')
  generator = ['--config=var/digits', '--workdir=var', '--stop_at=3']
  run(program, 'train', *generator, '--config.frozen.tokenizer=tokenizer')
  run(program, 'sample', '--workdir=var', '--labels=3', '--number=2')
  assert (away / 'var' / 'samples' / 'seed0' / 'grid.png').is_file()
