"""Command lines and configs that are wrong in some place."""

import argparse
import functools
import importlib

from hypothesis import strategies as st

from tests.configs import ALL, TINY, TOKENIZERS, family, module

# Those that the tests can afford, of every paper. FlexVAR's tokenizers take up to
# ten seconds for a trace; VAR's are like them.
NAMES = sorted(TINY) + sorted(
  name
  for name in TOKENIZERS
  if module(name).startswith(('digits', 'tiny')) and family(name) != 'flexvar'
)
# Of every paper, those that are traced soonest.
QUICK = [
  *(
    'ablations/tiny:masked',
    'flexvar/tiny',
    'flowar/tiny:S',
    'infinity/tiny',
    'llamagen/tiny:B',
  ),
  *(
    'mar/tiny:causal',
    'maskgit/tiny',
    'nar/tiny',
    'rar/tiny',
    'titok/tiny:L-32',
  ),
  *(
    'token_shuffle/tiny:class',
    'tokenbridge/tiny',
    'var/tiny:d36',
    'xar/tiny:image',
  ),
  *('acdit/tiny', 'arflow/tiny', 'ecar/tiny:one', 'himar/tiny'),
  'hmar/tiny:nsp',
  *('mvar/tiny:d16', 'recap/tiny:mar', 'smdm/tiny', 'vq_diffusion/tiny:class'),
  *('axial/tiny', 'meap/tiny', 'vfp/tiny:class', 'vq_ddm/tiny'),
  *(
    n for n in TOKENIZERS if n.endswith('/digits_tokenizer') and 'flex' not in n
  ),
]
# What does not change the trace of a step.
NOT_IN_STEP = ('checkpoint', 'evals', 'log', 'pictures', 'release', 'sampler')
NOT_IN_STEP += (
  'data.cache',
  'data.source',
  'seed',
  'train',
)
RUNS = {'tokenizer': 'llamagen/tiny_tokenizer', 'generator': 'llamagen/tiny:B'}

TYPICAL = ('1', '2', '3', '4', '8', '0.1', '0.5', '0.9', 'true', 'false')
EDGES = ('0', '-1', '', 'none', '1.0', '1e-30', '-0.5', '()', '0.999999', '1,2')
HOSTILE = (
  *('nan', 'inf', '-inf', '1e400', '1e-46', '-0.0', '0x10', '1_000', ' 3 '),
  *('10' * 6, str(2**31), str(2**32), str(2**63), '9' * 5000),
  *('x', 'None', '[', '(' * 300, '{}', "{'type': 'nowhere.X'}", '(1, 2, 3)'),
  *("('a', 1)", 'lambda: 1', 'a' * 5000, 'é', '\udcff', 'a\nb', 'a\0b'),
  *('/dev/null', '/dev/null/x', '../..', '/proc/self/mem', '.', '~', '--', '='),
)
TYPES = (
  *(
    'process.logits.LogitsFilter',
    'layers.norm.LayerNorm',
    'layouts.grid.raster',
  ),
  *('heads.categorical.Categorical', 'builtins.int', 'collections.OrderedDict'),
  *(
    'nowhere.Nothing',
    'os',
    'layouts.grid',
    'random.Draw',
    'json.dumps',
    '..',
  ),
)
TOY = 'tests.parts.evals_toys.Toy:OUT/file'
FLAGS = {
  '--diff': (*NAMES, 'digits', 'OUT/file'),
  '--config': (*NAMES, 'digits', 'var/digits:x', 'configs', __file__),
  '--mesh': ('data=-1', 'data=0', 'data=2', 'fsdp=-1,data=-1', f'data={2**70}'),
  '--labels': ('all', '3', '-1', '10', '3,x', ',', '0,' * 50),
  '--name': ('a', '../a', '.', 'a' * 300, 'a/b'),
  '--box': (
    '0,0,1,1',
    '0,0,0,0',
    'nan,0,1,1',
    '0.9,0.9,1,1',
    '1,2,3',
    'inf,0,1,1',
  ),
  '--ema': ('raw', '0.99', '1', 'fast'),
  '--topology': (
    'v5e:4x4',
    'v5e:0x4',
    'v9:4',
    f'v5e:{10**12}x4',
    'v5e',
    'v5e:4x',
  ),
  '--which': ('generation', 'reconstruction', 'x', ','),
  '--images': ('OUT', 'OUT/file', 'OUT/images.npz', '/dev/null', 'nowhere'),
  '--reference': ('OUT', 'OUT/file', 'OUT/images.npz', '/dev/zero'),
  '--extractor': (
    *(TOY, 'inception-adm:OUT/file'),
    *('inception-adm', 'efficientnet-lite0', 'x:OUT/file', 'os.x:OUT/file'),
    *('inception-torch-fidelity:OUT', 'inception-pytorch-fid:/dev/zero'),
  ),
  '--figures': ('fid', 'fid,kid', 'inception_score', 'fid,', 'x'),
  '--order': ('shuffle', 'file'),
  '--npz': ('OUT/x.npz', 'OUT', 'OUT/file', '/proc/x'),
  '--sweep': (
    *('guidance=1,1.5', 'ema=raw', 'seed=0,1', 'top_k=', 'x=1', 'seed'),
    *('step=best,x', 'guidance=nan', '=', 'temperature=1,1,1'),
    *('optim.learning_rate=1e-3,2e-3', 'variant=a,(b', 'optim=1,2'),
  ),
  '--eval': ('none', '--samples=8', '--samples', "'", '--workdir=OUT'),
  '--slurm': ('--gpus=2', '--gpus=x', '--nodes', "'"),
  '--seeds': ('0,1', '0,0', ',', '0-3'),
  '--output': ('OUT/a.safetensors', 'OUT/a.pth', 'OUT/new', 'OUT', '/proc/x'),
}


# ------------------------------------------------------------- the strategies


def walk(value, path=()):
  """'key.of.block' -> value of all fields of a block."""
  if hasattr(value, 'items') and len(value):
    return {
      k: v for n, b in value.items() for k, v in walk(b, (*path, n)).items()
    }
  return {'.'.join(map(str, path)): value}


@functools.cache
def leaves(name):
  """'key.of.block' -> value of all fields of a config."""
  return walk(ALL[name]())


@functools.cache
def every_leaf():
  """'key.of.block' -> value in one of all configs that state it."""
  return {k: v for name in ALL for k, v in leaves(name).items()}


@functools.cache
def options(command):
  """The flags of a command, but those of the config's keys."""
  parser = importlib.import_module(f'arvision.commands.{command}').parser()
  return [
    action
    for action in parser._actions
    if action.option_strings
    and not isinstance(action, argparse._HelpAction)
    and action.option_strings[-1]
    not in ('--config.KEY', '--debug', '--workdir')
  ]


def _values(*own):
  pools = [st.sampled_from(pool) for pool in (TYPICAL, EDGES, HOSTILE, HOSTILE)]
  return st.one_of(*pools, *(st.sampled_from(pool) for pool in own if pool))


def near(value):
  """Values of the kind that a field has."""
  if isinstance(value, bool):
    return (True, False)
  if isinstance(value, int):
    return (value, value + 1, 2 * value)
  if isinstance(value, float):
    return (value, value / 2, 2 * value)
  if isinstance(value, tuple):
    return (value, value[:-1], value + value[-1:], value[::-1])
  return (value, None) if value is None or value == '' else (value,)


@st.composite
def likely_keys(draw, name):
  """A field of a config; not often one that a step has to be traced anew for."""
  keys = sorted(leaves(name))
  if draw(st.integers(0, 15)):
    keys = [
      key
      for key in keys
      if key.startswith(NOT_IN_STEP) or isinstance(leaves(name)[key], float)
    ]
  return draw(st.sampled_from(keys))


@st.composite
def overrides(draw, name, wild=True):
  """'--config.key=value', and at times a key that is not there."""
  fields = leaves(name)
  if wild and draw(st.integers(0, 7)) == 0:
    fields = every_leaf()
  keys = st.sampled_from(sorted(fields)) if wild else likely_keys(name)
  key = draw(keys)
  value = fields[key]
  kind = tuple(map(str, near(value)))
  if not wild:
    return f'--config.{key}={draw(st.sampled_from(kind))}'
  text = draw(_values(TYPES, TYPES) if key.endswith('type') else _values(kind))
  change = draw(st.sampled_from((*['same'] * 9, 'mistyped', 'deeper', 'outer')))
  if change == 'mistyped':
    key = key[:-1] + draw(st.sampled_from(('', 'x', '.', '[0]', ' ')))
  elif change == 'deeper':
    key += draw(st.sampled_from(('.x', '.steps', '.type', '.')))
  elif change == 'outer':
    key = key.rpartition('.')[0]
  return f'--config.{key}={text}'


@st.composite
def flags(draw, command):
  """A flag of a command with some value, or one that it does not have."""
  action = draw(st.sampled_from(options(command)))
  name = action.option_strings[-1]
  if draw(st.integers(0, 15)) == 0:
    name = name[:-1]
  if action.nargs == 0:
    return [name] if draw(st.booleans()) else [f'{name}=1']
  text = draw(_values(FLAGS.get(name, ()), action.choices or ()))
  return [name, text] if draw(st.booleans()) else [f'{name}={text}']


@st.composite
def command_lines(draw, command):
  """A command with what it needs, and up to four things that may be wrong."""
  parts = []
  kind = draw(st.sampled_from(sorted(RUNS)))
  # Most configs to train have values that are likely, so that they are traced.
  wild = command != 'train' or draw(st.integers(0, 5)) == 0
  name = RUNS[kind]
  if command == 'train':
    name = draw(st.sampled_from(NAMES if wild else QUICK))
  for action in options(command):
    flag = action.option_strings[-1]
    good = {
      '--config': name,
      '--extractor': TOY,
      '--source': 'OUT/x.pth',
      '--topology': 'v5e:4x4',
    }
    if action.required and (not wild or draw(st.integers(0, 15))):
      parts.append([f'{flag}={good.get(flag, "OUT/new")}'])
  new = ('train', 'import', 'sweep')
  where = 'OUT/new' if command in new else f'RUN/{kind}'
  if wild and draw(st.integers(0, 11)) == 0:
    where = draw(_values(('OUT', 'OUT/file', 'OUT/file/x')))
  if command == 'config':
    parts.append([draw(st.sampled_from(NAMES))])
  elif command in ('eval', 'reference') and draw(st.booleans()):
    parts.append(['--images=OUT/images.npz'])
    if command == 'eval':
      parts.append([f'--extractor={TOY}', '--reference=OUT/images.npz'])
  elif command == 'compare':
    parts.append([f'RUN/{kind}', where])
  elif command == 'completion':
    parts.append([draw(st.sampled_from(('bash', 'zsh', 'fish', 'x', '')))])
  elif command not in ('configs', 'doctor'):
    parts.append([f'--workdir={where}'])
  lines = overrides(name, wild)
  most = 4 if command == 'train' and wild else 2
  for line in draw(
    st.lists(lines, min_size=command == 'train', max_size=most, unique=True)
  ):
    parts.append([line])
  if wild and options(command):
    parts += draw(
      st.lists(flags(command), min_size=command != 'train', max_size=3)
    )
  return [command, *(word for part in parts for word in part)]


# As they may stand in a file; `math` gives the names.
VALUES = (
  *(
    '0',
    '-1',
    '1',
    '2',
    '0.5',
    '1.0',
    'nan',
    'inf',
    '10**12',
    '2**63',
    '10**400',
  ),
  *(
    'None',
    'True',
    "''",
    "'3'",
    "'x'",
    "'a\\0b'",
    '()',
    '(0,)',
    "('a', 'b')",
    '[1]',
  ),
  *('{}', "{'type': 'nowhere.X'}", "{'type': 'layers.norm.LayerNorm'}", '1j'),
  *("{'steps': 'ten'}", "{'steps': nan}", "{'epochs': -1, 'steps': 1}", "b'x'"),
  *('print', 'object()', '{1, 2}', '{3: 4}', '[[[]]]', 'Ellipsis'),
)


@st.composite
def files(draw):
  """The text of a config with some values that may be wrong, or none at all."""
  wild = draw(st.integers(0, 5)) == 0
  name = draw(st.sampled_from(NAMES if wild else QUICK))
  keys = st.sampled_from(sorted(leaves(name))) if wild else likely_keys(name)
  text = (
    'from math import inf, nan\nfrom tests.faults.lines import changed\n\n\n'
    f'def get_config():\n  return changed({name!r}'
  )
  for key in draw(st.lists(keys, min_size=1, max_size=3, unique=True)):
    values = tuple(map(repr, near(leaves(name)[key])))
    if wild:
      values = (*VALUES, 'changed')
      if draw(st.integers(0, 7)) == 0:
        key = key.rpartition('.')[0] or key
    text += f', ({key!r}, {draw(st.sampled_from(values))})'
  return f'{text})\n'


def changed(name, *pairs):
  """A config with other values under some keys; `changed` takes the key away."""
  config = ALL[name]().copy_and_resolve_references()
  with config.unlocked():
    for key, value in pairs:
      *path, last = key.split('.')
      block = config
      for part in path:
        block = block.get(part) if hasattr(block, 'get') else None
      if not hasattr(block, 'keys') or last not in block:
        continue
      del block[last]
      if value is not changed:
        block[last] = value
  return config
