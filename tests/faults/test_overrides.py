"""Any field of a part can be set, and is what it would be in the file."""

import pathlib
import re

import pytest

from arvision.build import REQUIRED, fields, is_part, resolve
from arvision.commands import common, overrides
from arvision.commands.main import main
from arvision.errors import ConfigError
from arvision.training import differences, workdir
from tests.configs import ALL

ROOT = pathlib.Path(__file__).parents[2]
VAR = 'var/digits'
PICTURES = 'var/folder_tokenizer'
GENERATION = 'evals.generation.Generation'
VALUES = [
  (VAR, 'data.flip=true', True),
  (VAR, 'data.flip=False', False),
  (VAR, 'data.held_out_share=0', 0.0),
  (VAR, 'data.broken_share=0.5', 0.5),
  (VAR, 'data.resize=fit', 'fit'),
  (VAR, 'data.resize=72', 72),
  (VAR, 'data.resize=none', None),
  ('llamagen/imagenet256:B', 'data.resize=fit', 'fit'),  # where a number stands
  (VAR, 'data.filter=box', 'box'),
  (VAR, 'data.crop=random', 'random'),
  (VAR, 'data.threads=3', 3),
  (VAR, 'data.workers=2', 2),
  ('llamagen/digits', 'data.size=4,8', (4, 8)),
  (PICTURES, 'data.source.held_out_path=x', 'x'),
  (PICTURES, 'data.source.only=cat,dog', ('cat', 'dog')),
  (PICTURES, "data.source.only=('cat','dog')", ('cat', 'dog')),
  (PICTURES, 'data.source.only=cat', ('cat',)),
  (PICTURES, 'data.source.only=1,2', ('1', '2')),
  (PICTURES, 'data.source.only=()', ()),
  (PICTURES, 'data.source.background=0,1,2', (0, 1, 2)),
  (VAR, 'checkpoint.best=held_out/loss', 'held_out/loss'),
  (VAR, 'rules.small=10', 10),
  (VAR, 'rules.embed=None', None),
  (VAR, 'rules.mlp=fsdp,tensor', ('fsdp', 'tensor')),
  (VAR, 'backbone.dtype=bfloat16', 'bfloat16'),
  (VAR, 'optim.weight_decay_end=0.1', 0.1),
  (VAR, 'optim.weight_decay_end=1', 1.0),
  (VAR, 'optim.weight_decay_end=none', None),
  (VAR, 'ema=0.9', (0.9,)),
  (VAR, 'ema=0.9,0.99', (0.9, 0.99)),
  (VAR, 'backbone.remat=none', 'none'),  # text, not None
  ('mar/digits_tokenizer', 'tokenizer.quantizer.shift=1,2.5', (1.0, 2.5)),
  ('mar/digits_tokenizer', 'tokenizer.quantizer.shift=2', 2.0),
  ('var/tokenizer', 'tokenizer.scales=1,2,(4,4)', (1, 2, (4, 4))),
  (VAR, 'optim.schedule.warmup.steps=3', {'steps': 3}),
  (VAR, 'evals.generation.samples=50', 50),
  (VAR, 'evals.generation.every.steps=9', {'steps': 9}),
  (VAR, f'evals.own.type={GENERATION}', GENERATION),
]


def at(config, key):
  for name in key.split('.'):
    config = config[name]
  return config


@pytest.mark.parametrize(('name', 'text', 'value'), VALUES)
def test_a_key_gets_the_value_that_a_file_would_state(name, text, value):
  config = common.load_config(name, [text])
  key = text.partition('=')[0].removesuffix('.steps')
  found = at(config, key)
  found = found.to_dict() if isinstance(value, dict) else found
  assert found == value and type(found) is type(value)
  assert config.is_locked
  stated = ALL[name]().copy_and_resolve_references().to_dict()
  *path, last = key.split('.')
  block = stated
  for part in path:
    block = block.setdefault(part, {})
  block[last] = value
  assert config.to_dict() == stated


def test_blocks_that_are_left_out_can_be_described():
  config = common.load_config(
    VAR,
    [
      'data.text.channels=6',
      'data.text.length=4',
      'data.text.type=data.text.HashedWords',
      'sampler.logits_filter.top_k=3',
      'optim.decay.exempt=a,b',
    ],
  )
  assert config.data.text.to_dict() == {
    'type': 'data.text.HashedWords',
    'channels': 6,
    'length': 4,
  }
  assert config.sampler.logits_filter.top_k == 3
  assert config.optim.decay.exempt == ('a', 'b')
  none = common.load_config('llamagen/digits_t2i', ['data.text=none'])
  assert none.data.text is None


def test_a_default_part_is_written_out_where_a_field_of_it_is_set():
  config = ALL[VAR]().unlock()
  del config.optim['decay']
  made = overrides.override(config, ['optim.decay.min_ndim=1'])
  assert made.optim.decay.to_dict() == {
    'type': 'training.optim.DecayRule',
    'min_ndim': 1,
    'exempt': (),
  }
  config = ALL['llamagen/tiny:B']()
  text = 'backbone.block.attention.logits.scale=0.5'
  made = overrides.override(config, [text])
  assert made.backbone.block.attention.logits.to_dict() == {
    'type': 'layers.attention.Scaled',
    'scale': 0.5,
  }


@pytest.mark.parametrize(
  ('text', 'wanted'),
  [
    ('data.flip=maybe', 'wanted bool (true or false)'),
    ('data.threads=2.5', 'wanted int'),
    ('data.threads=none', 'wanted int'),
    ('data.held_out_share=lots', 'wanted float'),
    ('optim.learning_rate=nan', 'wanted float'),
    ('optim.weight_decay_end=x', 'wanted float or None'),
    ('data.size=8', 'wanted tuple of 2 int'),
    ('data.size=8,8,8', 'wanted tuple of 2 int'),
    ('data.size=8,a', 'wanted tuple of 2 int'),
    ('ema=x', 'wanted tuple of float'),
    ('ema=True', 'wanted tuple of float'),
    ('backbone.dtype=float33', 'float32, bfloat16'),
    ('data.source=x', 'wanted a block'),
    ('backbone.position=x', 'wanted a block'),
    ('backbone.block=x', 'wanted a block'),
    ('sampler=none', 'wanted a block'),
    ('train.duration=3', 'wanted a block'),
    ('train.duration.steps=1.5', 'wanted int'),
    ('train.duration.weeks=1', 'There are: epochs, examples'),
    ('mesh.type=data.digits.Digits', 'no such key'),
    ('optim.schedule.warmup.type=data.digits.Digits', 'no such key'),
    ('data.text.length=3', '--config.data.text.type='),
    ('data.flp=1', "Did you mean 'flip'"),
    ('rules.smal=1', "Did you mean 'small'"),
    ('data.source.type=data.digits.np', "has no 'np'"),
    ('data.source.type=nolab.x.Y', "no module 'nolab.x'"),
    ('data.source.type=data..Digits', "wanted 'module.path.Name'"),
    ('=', 'no such key'),
    ('..=1', 'no such key'),
  ],
)
def test_wrong_values_are_refused_with_the_type_that_is_wanted(text, wanted):
  with pytest.raises(ConfigError) as error:
    common.load_config(VAR, [text])
  assert wanted in str(error.value)
  assert '\n' not in str(error.value)


def unstated(block, path=()):
  """'key=default' of every field that a config leaves to its part."""
  if 'type' in block:
    where = '.'.join(path)
    for name, field in fields(resolve(block['type'], where)).items():
      simple = isinstance(field.default, (bool, int, float, str, tuple))
      if name not in block and simple and field.default is not REQUIRED:
        yield f'{where}.{name}={field.default}'
      if name not in block and field.default is None:
        yield f'{where}.{name}=none'
      if name not in block and is_part(field.default):
        for inner in fields(type(field.default)):
          value = getattr(field.default, inner)
          if isinstance(value, (bool, int, float)):
            yield f'{where}.{name}.{inner}={value}'
  for name, value in block.items():
    if hasattr(value, 'items'):
      yield from unstated(value, (*path, name))


@pytest.mark.parametrize('name', ALL)
def test_a_field_set_to_its_default_is_no_other_config(name, tmp_path):
  before = ALL[name]()
  texts = [t for t in unstated(before) if not t.startswith('task.')]
  after = overrides.override(before, texts)
  assert len(texts) > 10 and after != before
  assert differences.differences(before, after) == []
  assert differences.differences(after, before) == []
  workdir.save_config(tmp_path, before)
  differences.check_same(after, tmp_path)
  changed = overrides.override(after, ['data.flip=true', 'data.size=3,3'])
  lines = '\n'.join(differences.differences(before, changed))
  assert 'config.data.size: ' in lines


def test_fields_that_come_from_elsewhere_are_refused_by_the_build():
  from arvision.build import build

  block = {'type': 'process.logits.LogitsFilter', 'top_k': 1}
  with pytest.raises(ConfigError, match='from the rest of the config'):
    build(block, 'sampler.logits_filter', top_k=2)


def named_keys():
  """Keys that a page, a message or a docstring names."""
  files = [*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md')]
  text = '\n'.join(
    file.read_text(encoding='utf-8')
    for file in [*files, *ROOT.glob('arvision/**/*.py')]
    if 'configs' not in file.parts
  )
  # Neighbouring pieces of one message.
  text = re.sub(r"'\n\s+f?'", '', text)
  keys = set(re.findall(r'(?<![\w.])config\.([a-z_]+(?:\.[a-z_]+)+)', text))
  no_keys = ('json', 'get', 'items', 'update', 'copy_and', 'x')
  return sorted(k for k in keys if not k.rpartition('.')[2].startswith(no_keys))


# Blocks that no config of ours has as they stand.
VARIANTS = [
  (VAR, ['data.type=data.latents.CachedTokens']),
  ('llamagen/digits_t2i', ['data.text.type=data.text.Stored']),
  (VAR, ['tokenizer.type=tokenizers.autoencoder.Patched']),
  (VAR, ['tokenizer.quantizer.type=quantizers.lfq.LFQ']),
  (VAR, ['condition.type=layers.condition.Together']),
  (VAR, ['data.source.type=data.arrayrecord.ArrayRecordImages']),
  (VAR, ['data.source.type=data.parquet.Parquet']),
  (VAR, ['data.source.type=data.webdataset.WebDataset']),
  (VAR, ['writers.wandb.type=training.wandb.Wandb']),
]


@pytest.fixture(scope='module')
def all_configs():
  made = [make() for make in ALL.values()]
  return made + [common.load_config(name, texts) for name, texts in VARIANTS]


@pytest.mark.parametrize('key', named_keys())
def test_every_key_that_is_named_can_be_set(key, all_configs):
  def known(config):
    try:
      overrides.override(config, [f'{key}=none'])
    except ConfigError as error:
      return 'wanted' in str(error)
    return True

  assert any(known(config) for config in all_configs)


def test_many_keys_are_named():
  assert len(named_keys()) > 50


# ------------------------------------------------------------------- names


@pytest.mark.parametrize('name', sorted({n.partition(':')[0] for n in ALL}))
def test_variants_that_do_not_exist_are_refused(name):
  with pytest.raises(ConfigError) as error:
    common.load_config(f'{name}:foo')
  assert name in str(error.value) and 'foo' in str(error.value)
  assert '\n' not in str(error.value)


def test_configs_without_a_parameter_have_no_variants(tmp_path):
  file = tmp_path / 'mine.py'
  head = 'from ml_collections import ConfigDict\n\n\n'
  file.write_text(f"{head}def get_config():\n  return ConfigDict({{'a': 1}})\n")
  assert common.load_config(str(file)).a == 1
  with pytest.raises(ConfigError, match="no variant 'foo'"):
    common.load_config(f'{file}:foo')
  free = f"{head}def get_config(arg='x'):\n  return ConfigDict({{'a': arg}})\n"
  file.write_text(free)
  assert common.load_config(f'{file}:x').a == 'x'
  assert common.load_config(f'{file}:any').a == 'any'


@pytest.mark.parametrize('name', ['var/digts', 'var', 'titok/part', 'nothing'])
def test_a_wrong_name_shows_few_that_are_near(name):
  with pytest.raises(ConfigError) as error:
    common.load_config(name)
  said = str(error.value)
  assert len(re.findall(r"'\w+/\w+'", said)) <= 7 and len(said) < 300
  assert 'parts' not in said.replace(name, '') and 'common' not in said
  assert 'arvision configs' in said


@pytest.mark.parametrize(
  ('old', 'new'),
  [
    ('digits/var', 'var/digits'),
    ('configs/digits/tokenizer.py', 'var/digits_tokenizer'),
    ('digits/vq', 'vq_diffusion/digits'),
    ('digits/kl', 'mar/digits_tokenizer'),
    ('digits/pyramid_vq', 'flexvar/digits_tokenizer'),
    ('digits/maskgit_vq:few', 'maskgit/digits_tokenizer'),
    ('digits/llamagen_t2i', 'llamagen/digits_t2i'),
    ('digits/mar:causal', 'mar/digits'),
    ('digits/titok_warmup', 'titok/digits_tokenizer'),
    ('digits/titok_legacy', 'titok/digits_tokenizer'),
    ('digits/titok_uvit', 'titok/digits'),
    ('digits/heads:flow', 'ablations/heads'),
    ('fashion_mnist/vq', 'llamagen/fashion_mnist_tokenizer'),
    ('emoji/tokenizer', 'var/emoji_tokenizer'),
    ('folder/var', 'var/folder'),
  ],
)
def test_the_words_of_a_name_find_it_in_any_order(old, new):
  with pytest.raises(ConfigError, match=f"Did you mean .*'{new}'"):
    common.load_config(old)


def test_help_names_the_command_that_lists_all_configs(capsys):
  from arvision.commands import train

  assert 'arvision configs' in train.parser().format_help()
  assert main(['configs']) == 0
  listed = capsys.readouterr().out
  assert not [n for n in ALL if n.partition(':')[0] not in listed]


@pytest.mark.parametrize(
  'text',
  [
    'x = (',
    'raise SystemError("a\\nb")',
    'import nothing_here',
    'y',
    'get_config = 3',
  ],
)
def test_a_config_that_fails_is_said_in_a_line(tmp_path, text):
  file = tmp_path / 'mine.py'
  file.write_text(text)
  with pytest.raises(ConfigError) as error:
    common.load_config(str(file))
  assert 'mine.py' in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('texts', 'expected'),
  [
    (['data.size=128,128'], (16, (6, 8), 1, 512)),
    (['data.size=64,96'], (8, ((6, 9), (8, 12)), 2, 512)),
    (['data.size=96,64'], (8, ((9, 6), (12, 8)), 2, 512)),
    (['data.size=128,128', 'tokenizer.scales=1,4,16'], (8, (4, 16), 1, 512)),
    (['tokenizer.encoder.ch_mult=1,1'], (4, (6, 8), 1, 512)),
    (['tokenizer.quantizer.vocab_size=99'], (8, (6, 8), 1, 99)),
    # What is set follows nothing.
    (
      ['data.size=128,128', 'tokenizer.decoder.patch=3', 'head.vocab_size=7'],
      (3, (6, 8), 1, 7),
    ),
  ],
)
def test_one_key_changes_the_resolution(texts, expected):
  before = ALL['var/folder']()
  config = overrides.override(before, texts)
  assert before == ALL['var/folder']()
  patch, last, prefix, vocab_size = expected
  assert config.tokenizer.decoder.patch == patch
  assert config.tokenizer.scales[-2:] == config.layout.scales[-2:] == last
  assert config.condition.prefix == prefix
  assert config.head.vocab_size == vocab_size
  assert config == config.copy_and_resolve_references()
