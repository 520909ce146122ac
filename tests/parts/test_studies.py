"""The variants of every study fit the tokenizer that they share."""

import importlib.util
import pkgutil

import pytest

import arvision.quantizers
from arvision.build import build, fields
from arvision.commands import overrides
from arvision.commands.common import load_config
from arvision.quantizers.base import Quantizer
from arvision.sweeps.runs import Runs
from arvision.training import differences
from tests.configs import ROOT


def script(name):
  """A script of launch/ as a module."""
  launch = ROOT.parent / 'launch'
  spec = importlib.util.spec_from_file_location(name, launch / f'{name}.py')
  module = importlib.util.module_from_spec(spec)
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(launch))
    spec.loader.exec_module(module)
  return module


@pytest.fixture(scope='module')
def studies():
  """name of a study -> [(config of the tokenizer, config of a variant)]."""
  module = script('ablations')
  found = {}
  for name, study in module.STUDIES.items():
    own = study.tokenizer
    found[name] = [
      (own if isinstance(own, str) else own[variant], config)
      for variant, config in study.variants.items()
    ]
  return found


def test_variants_of_studies_take_their_tokenizer(studies):
  """Before the first of them has been trained for an hour."""
  for name, pairs in studies.items():
    for tokenizer, variant in pairs:
      there, here = load_config(tokenizer), load_config(variant)
      differ = differences.other_weights(
        there.tokenizer, here.tokenizer, 'tokenizer'
      )
      assert not differ, (name, variant, differ)


def test_samplers_that_reuse_take_their_generators(tmp_path):
  reuse = script('reuse')
  found = reuse.jobs(Runs(tmp_path))
  for tokenizer, generator in zip(found[::2], found[1::2]):
    assert generator.needs == (tokenizer.name,)
    own, there = (
      load_config(job.train[0].removeprefix('--config='))
      for job in (generator, tokenizer)
    )
    assert not differences.other_weights(
      there.tokenizer, own.tokenizer, 'tokenizer'
    )
    steps = set()
    for step in generator.after:
      key = '--config.'
      flags = [x.removeprefix(key) for x in step.words if x.startswith(key)]
      sampler = overrides.override(own, flags).sampler
      steps.add(build(sampler, 'sampler').steps)
    assert len(steps) == 1 and len(generator.after) == 6


def test_points_of_sweeps_take_the_runs_that_they_need():
  found = 0
  for path in sorted(ROOT.rglob('*.py')):
    if 'def get_sweep' not in path.read_text():
      continue
    name = str(path.relative_to(ROOT).with_suffix(''))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for point in module.get_sweep():
      variant = load_config(f'{name}:{point["variant"]}')
      for config in point.get('needs', {}).values():
        found += 1
        differ = differences.other_weights(
          load_config(config).tokenizer, variant.tokenizer, 'tokenizer'
        )
        assert not differ, (name, point, differ)
  assert found > 10


def test_how_bits_are_cut_into_ids_is_no_matter_of_weights():
  cut = []
  for module in pkgutil.iter_modules(arvision.quantizers.__path__):
    found = importlib.import_module(f'arvision.quantizers.{module.name}')
    for value in vars(found).values():
      own = isinstance(value, type) and issubclass(value, Quantizer)
      if own and 'ids' in (fields(value) or {}):
        cut.append(value.__name__)
        assert 'ids' in value.adjustable, value
  assert {*cut} >= {'FSQ', 'SymmetricFSQ', 'LFQ', 'BSQ', 'Bernoulli'}
