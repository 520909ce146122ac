"""As many rows at once as memory holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.errors import ConfigError
from arvision.parallel.host import Placement
from arvision.parallel.mesh import make_mesh
from arvision.runs import memory

WIDTH = 1000


@pytest.fixture
def placement():
  return Placement(make_mesh({'data': 1}, jax.devices()[:1]))


@pytest.fixture
def calls(monkeypatch):
  """The number of rows of every call of a program."""
  found = []
  call = memory.Rows._call

  def counted(self, held, rows, size):
    found.append(size)
    return call(self, held, rows, size)

  monkeypatch.setattr(memory.Rows, '_call', counted)
  return found


def widened(held, rows):
  """(b,) -> (b, WIDTH): 4,000 bytes of result a row."""
  return rows['x'][:, None] * held + jnp.arange(WIDTH, dtype=jnp.float32)


def rows_of(count):
  return {'x': np.arange(count, dtype=np.float32)}


def wanted(count):
  return np.arange(count)[:, None] * 2.0 + np.arange(WIDTH)


def test_a_call_is_as_large_as_what_was_asked_for(placement, calls):
  rows = memory.Rows(placement, widened, 'drawing')
  for count in (2, 5):
    found = rows(np.float32(2), rows_of(count))
    np.testing.assert_array_equal(found, wanted(count))
  assert calls == [2, 5]
  assert {size for _, size in rows._programs} == {2, 5}


@pytest.mark.parametrize('room, size', [(16_000, 3), (8_000, 2), (10, 1)])
def test_it_is_at_most_what_memory_holds(
  placement, calls, monkeypatch, room, size
):
  monkeypatch.setattr(memory, 'free', lambda placement: room)
  said = []
  rows = memory.Rows(placement, widened, 'drawing', say=said.append)
  for _ in range(2):
    found = rows(np.float32(2), rows_of(10))
    np.testing.assert_array_equal(found, wanted(10))
  assert set(calls) == {size}
  assert f'drawing {size} at once' in said[-1]
  # What was found out is remembered: the second call says nothing.
  assert len(said) == len({*said})
  assert rows.fit(np.float32(2), rows_of(1), 10) == size


def test_who_says_how_many_gets_as_many(placement, calls, monkeypatch):
  monkeypatch.setattr(memory, 'free', lambda placement: 10)
  rows = memory.Rows(placement, widened, 'drawing', at_once=4)
  np.testing.assert_array_equal(rows(np.float32(2), rows_of(10)), wanted(10))
  assert calls == [4, 4, 4]


def test_what_is_refused_by_the_compiler_is_cut(placement, monkeypatch):
  program = memory.Rows._program

  def refusing(self, held, rows, size):
    if size > 3:
      raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: HBM')
    return program(self, held, rows, size)

  monkeypatch.setattr(memory.Rows, '_program', refusing)
  rows = memory.Rows(placement, widened, 'drawing')
  np.testing.assert_array_equal(rows(np.float32(2), rows_of(10)), wanted(10))


def test_memory_that_runs_out_is_a_line_that_names_the_flag(placement):
  def huge(held, rows):
    return jnp.broadcast_to(rows[:, None], (len(rows), 1 << 44)) + 1

  rows = memory.Rows(placement, huge, 'drawing', at_once=2)
  with pytest.raises(ConfigError) as error:
    rows((), np.zeros(2, np.float32))
  assert str(error.value) == (
    'memory ran out: drawing 2 at once; a smaller --batch_size needs less'
  )


def test_other_errors_are_not_taken_for_it():
  with (
    pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL'),
    memory.explained('drawing'),
  ):
    raise jax.errors.JaxRuntimeError('INTERNAL: a fault')


@pytest.mark.parametrize(
  ('files', 'left'),
  [
    ({}, None),
    ({'proc/meminfo': 'MemTotal: 9 kB\nMemAvailable:   7 kB\n'}, 7 * 1024),
    (
      {
        'proc/meminfo': 'MemAvailable: 7000 kB\n',
        'sys/fs/cgroup/memory.max': '5000\n',
        'sys/fs/cgroup/memory.current': '4000\n',
        'sys/fs/cgroup/memory.stat': 'anon 1\ninactive_file 300\n',
      },
      1300,
    ),
    (
      {
        'proc/meminfo': 'MemAvailable: 7 kB\n',
        'sys/fs/cgroup/memory.max': 'max\n',
        'sys/fs/cgroup/memory.current': '4000\n',
      },
      7 * 1024,
    ),
    (
      {
        'proc/meminfo': 'MemAvailable: 7000 kB\n',
        'sys/fs/cgroup/memory/memory.limit_in_bytes': '5000\n',
        'sys/fs/cgroup/memory/memory.usage_in_bytes': '6000\n',
      },
      0,
    ),
  ],
)
def test_the_memory_of_a_host_is_that_of_its_group(tmp_path, files, left):
  for name, text in files.items():
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
  assert memory.host_memory(str(tmp_path)) == left
