"""Configs that cannot be built say which key to change."""

import pytest
from ml_collections import ConfigDict

from arvision.build import build, resolve, template
from arvision.errors import ConfigError
from arvision.process.logits import LogitsFilter


def refused(match, call, *args):
  with pytest.raises(ConfigError, match=match):
    call(*args)


def test_a_block_becomes_its_part():
  block = ConfigDict({'type': 'process.logits.LogitsFilter', 'top_k': 5})
  assert build(block, 'choice') == LogitsFilter(top_k=5)


def test_a_users_own_package_resolves_by_its_full_path():
  assert resolve('collections.OrderedDict').__name__ == 'OrderedDict'


def test_blocks_inside_a_module_block_become_templates():
  made = build(
    {
      'type': 'layers.blocks.Block',
      'attention': {'type': 'layers.attention.Attention', 'heads': 2},
      'mlp': {'type': 'layers.blocks.GELU', 'hidden': 8},
      'norm': {'type': 'layers.norm.LayerNorm'},
    },
    'block',
  )
  assert made.attention().heads == 2
  assert made.attention() is not made.attention()


def test_static_blocks_inside_a_block_become_instances():
  made = build(
    {
      'type': 'samplers.entity.EntityAR',
      'logits_filter': {'type': 'process.logits.LogitsFilter', 'top_p': 0.5},
    },
    'sampler',
  )
  assert made.logits_filter == LogitsFilter(top_p=0.5)


def test_misspelt_fields_name_the_nearest():
  block = {'type': 'process.logits.LogitsFilter', 'topk': 5}
  refused(
    r'config.sampler.logits_filter.topk: LogitsFilter has no such field. Did you mean '
    "'top_k'",
    build,
    block,
    'sampler.logits_filter',
  )


def test_misspelt_types_name_the_nearest():
  refused("Did you mean 'LogitsFilter'", resolve, 'process.logits.LogitFilter')
  refused(
    "Did you mean 'process.logits'", resolve, 'process.choise.LogitsFilter'
  )
  refused("wanted 'module.path.Name'", resolve, 'LogitsFilter')


def test_missing_fields_are_named():
  refused(
    'config.head: Categorical needs vocab_size',
    build,
    {'type': 'heads.categorical.Categorical'},
    'head',
  )


def test_a_block_without_a_type_and_a_value_that_is_no_block():
  refused("no 'type'", build, {'vocab_size': 3}, 'head')
  refused('wanted a block', build, 3, 'head')


def test_values_that_a_part_refuses_carry_the_key():
  refused(
    'config.choice.top_p=3.0: wanted 0 to 1',
    build,
    {'type': 'process.logits.LogitsFilter', 'top_p': 3.0},
    'choice',
  )


def test_a_template_is_checked_before_it_is_called():
  refused(
    'config.mlp.hiden',
    template,
    {'type': 'layers.blocks.GELU', 'hiden': 8},
    'mlp',
  )
