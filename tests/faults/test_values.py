"""Every number has a range and a type where it is read."""

import dataclasses
import importlib
import inspect
import math
import pkgutil
import re
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arvision
from arvision import ranges
from arvision.build import Checked, build
from arvision.commands import main
from arvision.commands.sample import parse_labels, read_labels
from arvision.errors import ConfigError
from arvision.process.guidance import Constant
from arvision.process.logits import LogitsFilter
from arvision.runs import trained
from arvision.tasks import settings
from arvision.training import schedule
from arvision.training.optim import Optimizer
from tests.configs import ALL
from tests.faults import first_program, lines

NAN, INF = math.nan, math.inf
KINDS = [
  # kind, values of it, values that are not
  (
    ranges.Count,
    [1, 2**31 - 1, np.int64(3)],
    [0, -1, 1.0, True, '1', None, NAN, 2**31, 10**400],
  ),
  (ranges.Natural, [0, 7], [-1, 0.5, False, 2**63]),
  (ranges.Seed, [0, 2**32 - 1], [-1, 2**32, 1.5, INF]),
  (ranges.Share, [0, 0.5, 1, np.float32(1)], [-1e-9, 1.1, NAN, True, '0.5']),
  (ranges.Below1, [0.0, 0.9999], [1, 1.0, -0.1, INF]),
  (ranges.AtLeast0, [0, 1e-8, 1e30], [-1e-30, NAN, INF, 1e39, 10**400]),
  (ranges.Positive, [1e-12, 3], [0, 0.0, -1.0, NAN]),
  (ranges.Temperature, [0, 1e-6, 1.0], [1e-7, 1e-46, -1, NAN, INF, 1e7]),
  (ranges.Guidance, [0, 1.5], [-1, NAN, INF, 1e5]),
  (
    ranges.Dtype,
    ['float32', 'bfloat16', jnp.float32, np.dtype('float16')],
    ['float33', 'int8', 3, None],
  ),
  (float, [0, -1.5, 3e38], [NAN, INF, 'x', True, None]),
  (int, [-3, 0], [1.0, True, 2**63]),
  (bool, [True], [1, 0, 'true', None]),
  (
    schedule.Constant,
    [schedule.Constant()],
    [{'steps': 1}, {}, [], {1}, b'x', 1j, ..., 3, None],
  ),
  (str, ['', 'é'], ['a\0b', 3, None]),
  (ranges.Side | None, [None, 3], [0, 'x']),
  (ranges.Side | str | None, [None, 3, 'fit'], [0, 2.5, 'a\0']),
  (
    tuple[ranges.Side, ranges.Side],
    [(1, 2), [1, 2]],
    [(1,), (1, 2, 3), (0, 1), 3, 'ab'],
  ),
  (tuple[ranges.Below1, ...], [(), (0.5,)], [(1.0,), 0.5, ('x',), (NAN,)]),
  (ranges.Fews, [(1,), [2, 3]], [(), [], (0,), 3, 'ab']),
  (typing.Literal['a', 'b'], ['a'], ['c', 1, None]),
]


@pytest.mark.parametrize(
  ('kind', 'good', 'bad'), KINDS, ids=lambda x: str(x)[:40]
)
def test_values_of_a_kind(kind, good, bad):
  for value in good:
    assert not ranges.fault(value, kind), value
  for value in bad:
    assert ranges.fault(value, kind).startswith('wanted '), value


def test_traced_values_pass():
  seen = []
  jax.eval_shape(lambda x: seen.append(ranges.fault(x, ranges.Share)), 0.5)
  assert seen == ['']


def _parts():
  for module in pkgutil.walk_packages(arvision.__path__, 'arvision.'):
    room = module.name.split('.')[1]
    if room in (
      '__main__',
      'configs',
      'importers',
      'commands',
      'plan',
      'evals',
    ):
      continue
    for value in vars(importlib.import_module(module.name)).values():
      if inspect.isclass(value) and value.__module__ == module.name:
        yield value


# Numbers that have no range, with their reasons.
DURATIONS = {'duration', 'every', 'keep_every', 'until', 'warmup'}
FREE = {
  'darkest',  # of a tokenizer's pixels, -1 or 0
  'high',  # of `Levels`, in units of the latents
  'low',
  'mean',  # of a normal law
  'shift',  # of latents
}
# Tuples that may be empty, though their default is not.
EMPTY = {
  *('biases', 'decays', 'ema', 'even', 'taps', 'thin'),
  *('allocation', 'order', 'weights'),  # their length follows another field
  # Of what code makes and no config.
  *('features', 'folders', 'grids', 'names', 'single', 'train', 'variants'),
}
# What code makes and no config.
MADE = {
  'Account',
  'BlockInputs',
  'Hooks',
  'Looked',
  'Cache',
  'Clock',
  'Collective',
  'Column',
  'Fit',
  'Header',
  'Network',
  'Picture',
  'Paired',
  'Point',
  'Prediction',
  'Result',
  'Ready',
  'Row',
  'Sample',
  'Speeds',
  'Run',
  'Slots',
  'Query',
  'Mean',
  'Split',
  'Step',
  'Study',
  'TokenSpec',
  'TrainedRun',
  '_TokenSplit',
  'Array',
  'Instruction',
  'Draw',
  'Replay',
  'Picked',
  'Term',
}


def test_every_number_of_every_part_has_a_range():
  bare = re.compile(r"<class '(int|float)'>|\b(int|float)\b(?!\s*,\s*Range)")
  found = []
  for part in _parts():
    if part.__name__ in MADE or not dataclasses.is_dataclass(part):
      continue
    own = part.__dict__.get('__annotations__', {})
    for field in dataclasses.fields(part):  # traits of the class are none
      if field.name not in own:
        continue
      name, kind = field.name, own[field.name]
      text = re.sub(r'Annotated\[[^\]]*\)\]', '', str(kind))
      if name not in FREE | DURATIONS | {'image_shape'} and bare.search(text):
        found.append(f'{part.__module__}.{part.__name__}.{name}: {kind}')
  assert not found


def test_every_tuple_of_every_part_says_whether_it_may_be_empty():
  found = []
  for part in _parts():
    if part.__name__ in MADE or not dataclasses.is_dataclass(part):
      continue
    own = part.__dict__.get('__annotations__', {})
    for field in dataclasses.fields(part):
      kind = own.get(field.name)
      plain = typing.get_origin(kind) is tuple and ... in typing.get_args(kind)
      if plain and field.default != () and field.name not in EMPTY:
        found.append(f'{part.__module__}.{part.__name__}.{field.name}: {kind}')
  assert not found


def test_every_number_of_a_command_line_has_a_range():
  found = [
    f'{command} {action.option_strings}'
    for command in main.commands()
    for action in lines.options(command)
    if action.type in (int, float)
  ]
  assert not found


@pytest.mark.parametrize(
  ('block', 'said'),
  [
    (
      {'type': 'process.logits.LogitsFilter', 'temperature': NAN},
      'config.x.temperature=nan: ',
    ),
    (
      {'type': 'layers.blocks.GELU', 'hidden': 0},
      'config.x.hidden=0: wanted 1 to',
    ),
    (
      {'type': 'layers.blocks.GELU', 'hidden': True},
      'config.x.hidden=True: wanted a whole',
    ),
    (
      {'type': 'layouts.grid.raster', 'height': 10**12, 'width': 2},
      'config.x.height=',
    ),
    (
      {'type': 'training.optim.Optimizer', 'learning_rate': 1, 'b1': 1.0},
      'config.x.b1=1.0: ',
    ),
    (
      {'type': 'training.optim.Optimizer', 'learning_rate': 1, 'eps': 0.0},
      'config.x.eps=0.0: ',
    ),
    (
      {'type': 'training.optim.Optimizer', 'learning_rate': INF},
      'config.x.learning_rate=inf: ',
    ),
    ({'type': 'data.folder.Folder', 'path': 'a\0b'}, 'config.x.path='),
  ],
)
def test_a_config_names_its_key(block, said):
  with pytest.raises(ConfigError, match=re.escape(said)):
    build(block, 'x')


def test_parts_made_in_python_are_looked_at_too():
  for make in (
    lambda: LogitsFilter(temperature=NAN),
    lambda: Constant(scale=INF),
    lambda: Constant().scaled_to(NAN),
    lambda: Optimizer(1.0, b2=1.0),
    lambda: schedule.WarmupCosine(final=-1.0),
  ):
    with pytest.raises(ConfigError, match='wanted'):
      make()
  assert issubclass(LogitsFilter, Checked)


@pytest.mark.parametrize(
  'duration',
  [
    'ten',
    3,
    None,
    {'steps': 'x'},
    {'steps': True},
    {'epochs': NAN},
    {'epochs': 1e30},
    {'steps': (1,)},
  ],
)
def test_durations_are_numbers(duration):
  with pytest.raises(ConfigError, match=r'config\.log\.every'):
    schedule.steps(duration, batch_size=4, examples=10, key='log.every')


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('seed', -1),
    ('seed', 2**32),
    ('seed', 1.5),
    ('ema', (1.0,)),
    ('ema', 0.9),
    ('checkpoint.keep', 0),
    ('pictures.count', '3'),
    ('mesh', None),
    ('train.duration', 'x'),
  ],
)
def test_settings_of_a_config(key, value):
  config = ALL['llamagen/digits_tokenizer']().copy_and_resolve_references()
  with config.unlocked():
    *path, last = key.split('.')
    block = config
    for name in path:
      block = block[name]
    del block[last]
    block[last] = value
  with pytest.raises(ConfigError, match=f'config.{key}='):
    settings.check_settings(config)


# ------------------------------------------------------------------- from Python


@pytest.fixture(scope='module')
def run():
  return first_program._run('generator')


@pytest.fixture
def traced(monkeypatch):
  """Programs stop where they would be compiled."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(trained.Rows, '__call__', _reached)
    yield


def _reached(*args):
  raise first_program.Reached


@pytest.mark.parametrize(
  ('labels', 'index', 'said'),
  [
    ([-1], None, 'labels: wanted 0 to 9, got -1'),
    ([3, -11], None, 'labels: wanted 0 to 9, got -11'),
    ([10], None, 'labels: wanted 0 to 9, got 10'),
    ([2**40], None, 'labels: wanted 0 to 9'),
    ([0.5], None, 'labels: wanted a list of integers'),
    ([True], None, 'labels: wanted a list of integers'),
    (['cat'], None, 'labels: wanted a list of integers'),
    ([], None, 'labels: wanted a list of integers'),
    (3, None, 'labels: wanted a list of integers'),
    ([3], [-1], 'index: wanted 0 to 2147483647, got -1'),
    ([3], [2**31], 'index: wanted 0 to 2147483647'),
    ([3, 4], [0], 'labels has 2 elements and index has 1'),
  ],
)
def test_labels_and_numbers_of_images(run, traced, labels, index, said):
  with pytest.raises(ConfigError, match=said):
    run.sample_fn()(labels, index)
  with pytest.raises(first_program.Reached):
    run.sample_fn()(labels=[9, 0])


def test_an_edit_may_have_no_class(run, traced):
  images = np.zeros((1, *run.data.shape), np.float32)
  keep = np.ones(images.shape[:3], bool)
  with pytest.raises(first_program.Reached):
    run.edit_fn()([10], [0], images, keep)
  for label in (-1, -11, 11):
    with pytest.raises(ConfigError, match='labels: wanted 0 to 10'):
      run.edit_fn()([label], [0], images, keep)


@pytest.mark.parametrize(
  'given',
  [
    {'seed': -1},
    {'seed': 2**32},
    {'seed': 0.5},
    {'guidance': NAN},
    {'guidance': -1.0},
    {'temperature': NAN},
    {'temperature': INF},
    {'temperature': '1'},
    {'top_k': -1},
    {'top_k': 2.0},
    {'top_p': 1.5},
    {'top_p': NAN},
  ],
)
def test_sampling_values_are_named(run, given):
  [(name, value)] = given.items()
  for make in (run.sample_fn, run.edit_fn):
    with pytest.raises(ConfigError, match=f'^{name}='):
      make(**given)


def test_load_run_uses_the_compilation_cache(monkeypatch, tmp_path):
  used = []
  monkeypatch.setattr(
    trained.host, 'use_compilation_cache', lambda: used.append(1)
  )
  with pytest.raises(ConfigError):
    trained.load_run(tmp_path)
  assert used


# -------------------------------------------------------------- names of classes

CLASSES = (
  'tench, Tinca tinca',
  'dog',
  'great white shark, white shark',
  '3',
  'a',
  'a, b',
  'b',
)


@pytest.mark.parametrize(
  ('text', 'wanted'),
  [
    ('tench, Tinca tinca', [0]),
    ('tench,Tinca tinca', [0]),
    ('dog, tench, Tinca tinca, great white shark, white shark', [1, 0, 2]),
    ('3', [3]),
    ('4,6', [4, 6]),
    ('a,b', [5]),
    ('b,a', [6, 4]),
    ('dog,0,dog', [1, 0, 1]),
  ],
)
def test_names_with_commas_can_be_asked_for(text, wanted):
  assert read_labels(text, CLASSES) == wanted
  assert parse_labels(text, CLASSES) == list(dict.fromkeys(wanted))


@pytest.mark.parametrize(
  'text', ['tench', 'Tinca tinca', '7', '-1', ',', 'dog,', '9' * 5000]
)
def test_what_is_no_class(text):
  with pytest.raises(ConfigError, match='--labels='):
    read_labels(text, CLASSES)
