"""Every config of the repository, by name, for the tests that run over all."""

import importlib.util
import os
import pathlib

from arvision.commands.common import load_config

ROOT = pathlib.Path(__file__).parents[1] / 'configs'
# Modules that hold fragments and no experiment.
_FRAGMENTS = {'__init__', 'common', 'parts'}


def _load(path):
  spec = importlib.util.spec_from_file_location(f'config_{path.stem}', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def every():
  """'var/digits' or 'var/imagenet256:d16' -> the function that builds it."""
  found = {}
  for path in sorted(ROOT.rglob('*.py')):
    if path.stem in _FRAGMENTS:
      continue
    module = _load(path)
    name = str(path.relative_to(ROOT).with_suffix(''))
    for size in getattr(module, 'SIZES', ('',)):
      full = f'{name}:{size}' if size else name
      found[full] = lambda m=module, size=size: m.get_config(size)
  return found


def module(name):
  """'var/imagenet256:d16' -> 'imagenet256'."""
  return name.split('/')[1].split(':')[0]


def family(name):
  """'var/imagenet256:d16' -> 'var'."""
  return name.split('/')[0]


def is_published(name):
  """Whether sizes are those of a paper, or those that it would have."""
  return module(name).startswith(('imagenet', 't2i', 'tokenizer'))


ALL = every()
GENERATORS = {k: v for k, v in ALL.items() if 'backbone' in v()}
TOKENIZERS = {k: v for k, v in ALL.items() if k not in GENERATORS}
# Those that the laws run over: generators at the size of a test, or a config of
# your own instead.
TINY = {k: v for k, v in GENERATORS.items() if module(k) == 'tiny'}
# Those whose every part stands in another one, too: their laws are slow tests.
VARIANTS = {
  'ablations/tiny:masked',
  'ablations/tiny:unmasked',
  'ablations/tiny:bits',
  'bar/tiny:L',
  'ecar/tiny:one',
  'mvar/tiny:d32',
  'titok/tiny:L-32',
  'token_shuffle/tiny:t2i',
  'xar/tiny:token',
  'xar/tiny:image',
  'xar/tiny:falling',
}
if OWN := os.environ.get('LAWS_CONFIG'):
  TINY = {OWN: lambda: load_config(OWN)}
  VARIANTS = set()
