"""Tiny configs stand for all others: same parts, same options."""

import pytest

from tests.configs import ALL, GENERATORS, TINY, family, is_published, module
from tests.laws.structure import structure, tiny_of

PUBLISHED = [name for name in ALL if is_published(name)]
OTHERS = [n for n in GENERATORS if not is_published(n) and n not in TINY]


def nearest(wanted, names, strict):
  """The structure, of those of some configs, that differs in fewest blocks."""
  found = [structure(ALL[name](), strict) for name in names]
  return min(found, key=lambda s: sum(s[k] != wanted[k] for k in wanted))


@pytest.mark.parametrize('name', PUBLISHED)
def test_a_published_size_has_a_tiny_config_of_its_structure(name):
  wanted = structure(ALL[name]())
  assert wanted == nearest(wanted, tiny_of(name), strict=True)


@pytest.mark.parametrize('name', OTHERS)
def test_blocks_of_other_generators_are_those_of_tiny_configs(name):
  """Of their paper; a study of parts of others has all blocks of one of them."""
  wanted = structure(ALL[name](), strict=False)
  if family(name) == 'ablations' or not tiny_of(name):
    assert wanted == nearest(wanted, TINY, strict=False)
    return
  for key, block in wanted.items():
    some = [structure(ALL[n](), strict=False)[key] for n in tiny_of(name)]
    assert block in some, key


def test_every_tiny_config_stands_for_another():
  others = [structure(ALL[n](), strict=False) for n in (*PUBLISHED, *OTHERS)]
  for name in ALL:
    if module(name).startswith('tiny'):
      assert structure(ALL[name](), strict=False) in others, name


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('backbone.position.entities', False),  # an option
    ('backbone.block.mlp.type', 'layers.blocks.SwiGLU'),
    ('backbone.block.attention.biases', ('q', 'v')),
    ('sampler.logits_filter.top_k', 0),  # switched off
    ('condition.classes', None),
    ('release', None),
  ],
)
def test_what_differs_is_seen(key, value):
  wanted = structure(ALL['var/imagenet256:d16']())
  config = ALL['var/tiny:d16']().copy_and_resolve_references().unlock()
  assert structure(config) == wanted
  *path, last = key.split('.')
  block = config
  for name in path:
    block = block[name]
  block[last] = value
  assert structure(config) != wanted
