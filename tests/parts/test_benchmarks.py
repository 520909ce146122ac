"""What the benchmarks count, choose and print; with torch, that rows run."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import common, convolutions, profile, report, twins


def test_flops_of_loops_and_convolutions():
  w = jnp.zeros((8, 8))

  def loop(x):
    return jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=3)[0]

  assert common.flops(jax.jit(loop), jnp.zeros((4, 8))) == 3 * 2 * 4 * 8 * 8
  image, kernel = jnp.zeros((1, 5, 5, 2)), jnp.zeros((3, 3, 2, 7))

  def conv(x, k):
    numbers = ('NHWC', 'HWIO', 'NHWC')
    return jax.lax.conv_general_dilated(
      x, k, (1, 1), 'SAME', dimension_numbers=numbers
    )

  assert common.flops(conv, image, kernel) == 2 * 5 * 5 * 7 * 3 * 3 * 2


def test_runs_take_turns():
  called = []
  runs = {name: lambda name=name: called.append(name) for name in 'ab'}
  common.interleaved(runs, 2)
  assert called == ['a', 'b', 'a', 'b', 'b', 'a']


def test_best_row_is_of_the_better_dtype():
  shared = {'row': 'r', 'batch': 1}
  rows = [
    {**shared, 'dtype': 'float32', 'ours': 2.0, 'torch': 3.0},
    {**shared, 'dtype': 'bfloat16', 'ours': 1.0, 'torch': 1.5},
  ]
  best = twins.best_of(rows)
  assert (best['dtype'], best['ratio'], best['plain']) == ('bfloat16', 1.5, 3.0)
  assert twins.best_of(rows[:1]) is None


def test_unknown_rows_are_refused():
  assert list(twins.chosen('var.f,xar')) == ['var.forward', 'xar.generate']
  with pytest.raises(SystemExit, match='no row starts with'):
    twins.chosen('vra')


def test_page_shows_what_a_file_holds(tmp_path):
  file = tmp_path / 'compile.json'
  rows = [{'row': 'step', 'config': 'c', 'cache': 'cold', 'seconds': 1.234}]
  file.write_text(json.dumps({'cores': 2, 'rows': rows}))
  text = report.page([file])
  assert '| step | c | cold | 1.23 |' in text
  assert 'python -m benchmarks.twins --json=twins.json' in text
  # Sections without a file keep what was measured before.
  assert report.page([], text) == text
  with pytest.raises(ValueError, match='wanted files named'):
    report.page([tmp_path / 'other.json'])


def test_page_keeps_rows_of_the_same_hardware(tmp_path):
  file = tmp_path / 'compile.json'

  def page(cores, old, **seconds):
    rows = [
      {'row': name, 'config': 'c', 'cache': 'cold', 'seconds': value}
      for name, value in seconds.items()
    ]
    file.write_text(json.dumps({'cores': cores, 'rows': rows}))
    text = report.page([file], old)
    return text, [x for x in text.splitlines() if '| c | cold |' in x]

  text, _ = page(2, '', step=1.0, sample=2.0)
  text = text.strip() + '\n\nWhat the rows mean.\n'
  text, lines = page(2, text, step=3.0)
  assert lines == ['| sample | c | cold | 2.00 |', '| step | c | cold | 3.00 |']
  assert text.endswith('\n\nWhat the rows mean.\n')
  assert page(4, text, step=3.0)[1] == lines[1:]


def test_time_is_told_by_kinds():
  @jax.jit
  def layer(x, w):
    with jax.named_scope('mlp'):
      return jax.nn.softmax(jnp.dot(x, w)).T

  x, w = jnp.ones((256, 512)), jnp.ones((512, 128))
  program = layer.lower(x, w).compile().as_text()
  jax.block_until_ready(layer(x, w))
  spent = list(profile.events(lambda: layer(x, w)))
  rows = profile.rows(iter(spent), program, top=2)
  kinds = {row['kind']: row for row in rows if not row['where']}
  assert {'products', 'sums', 'copies'} <= set(kinds)
  assert set(kinds) <= {'products', *profile.KINDS, 'rest'}
  assert sum(row['share'] for row in kinds.values()) == pytest.approx(100)
  whole = sum(seconds for _, seconds in spent)
  assert sum(r['seconds'] for r in kinds.values()) == pytest.approx(whole)
  found = [row for row in rows if row['where']]
  assert len(found) == 2
  assert found[0]['seconds'] >= found[1]['seconds']
  every = profile.rows(iter(spent), program, top=99)
  (product,) = [r for r in every if r['where'].endswith('mlp/dot_general')]
  assert product['kind'] == 'products' and product['shape'] == 'f32[256,128]'


@pytest.mark.parametrize(
  ('name', 'path', 'wanted'),
  [
    ('ynn_fusion.2', 'jit(run)/attention/reduce_max', 'sums'),
    ('copy_bitcast_fusion.7', 'jit(run)/mlp/fc2/dot_general', 'copies'),
    ('dynamic-update-slice_convert_fusion.1', 'jit(run)/while', 'writes'),
    ('wrapped_broadcast.32', 'jit(run)/broadcast_in_dim', 'fills'),
    ('broadcast_divide_fusion', 'jit(run)/softmax/div', 'rest'),
    ('wrapped_convert', 'jit(run)/convert_element_type', 'casts'),
    ('add.3', '', 'rest'),
  ],
)
def test_kinds_of_operations(name, path, wanted):
  assert profile.kind(name, profile.Operation('f32[2]', path, False)) == wanted
  assert profile.kind(name, profile.Operation('', path, True)) == 'products'


def test_a_path_says_whose_gradient_it_is():
  path = 'jit(run)/transpose(jvp(M.loss))/stack/while/body/mlp/fc2/dot_general'
  assert profile.where(path) == 'd stack/mlp/fc2/dot_general'
  assert profile.where('jit(run)/mlp/add') == 'mlp/add'


@pytest.mark.slow
def test_a_row_is_profiled():
  pytest.importorskip('torch')
  # Tests compile with other options, which fuse other operations.
  options = ('XLA_FLAGS', 'JAX_DISABLE_MOST_OPTIMIZATIONS')
  env = {k: v for k, v in os.environ.items() if k not in options}
  flags = ['llamagen.train', '--quick', '--dtype=bfloat16']
  found = subprocess.run(
    [sys.executable, '-m', 'benchmarks.profile', *flags],
    env=env,
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  rows = [line for line in found.splitlines() if line.startswith('products')]
  assert any('mlp' in row for row in rows)
  assert 'row llamagen.train, dtype bfloat16' in found


@pytest.mark.slow
def test_twins_do_the_same_work(tmp_path):
  pytest.importorskip('torch')
  file = tmp_path / 'twins.json'
  twins.main(['--quick', '--repeats=1', '--dtypes=float32', f'--json={file}'])
  rows = {r['row']: r for r in json.loads(file.read_text())['rows']}
  assert set(rows) == set(twins.ROWS)
  for name, row in rows.items():
    assert row['params'] == 1, name
    # The decoder's convolutions multiply less, see `kernels.cpu.winograd`.
    least = 0.4 if name == 'var.decoder' else 0.95
    assert least < row['more'] < 1.2, name
    assert np.isfinite(row['ratio']), name


@pytest.mark.slow
def test_convolutions_are_timed_beside_both(tmp_path):
  pytest.importorskip('torch')
  file = tmp_path / 'convolutions.json'
  convolutions.main(['--quick', '--repeats=1', f'--json={file}'])
  rows = json.loads(file.read_text())['rows']
  assert [r['row'] for r in rows] == 2 * list(convolutions.PARTS)
  assert all(r[key] > 0 for r in rows for key in ('ours', 'xla', 'torch'))
  with pytest.raises(SystemExit, match='wanted sides among'):
    convolutions.main(['--only=7'])


@pytest.mark.parametrize(
  ('preload', 'tunables', 'said'),
  [
    ('', '', 'glibc'),
    ('', 'glibc.malloc.hugetlb=1', 'glibc with large pages'),
    ('/lib/libtcmalloc_minimal.so.4', '', 'tcmalloc_minimal'),
    ('libother.so /lib/libjemalloc.so.2', '', 'jemalloc'),
    ('libother.so', '', 'glibc'),
  ],
)
def test_figures_name_the_allocator(monkeypatch, preload, tunables, said):
  monkeypatch.setattr(common.platform, 'libc_ver', lambda: ('glibc', '2.36'))
  monkeypatch.setenv('LD_PRELOAD', preload)
  monkeypatch.setenv('GLIBC_TUNABLES', tunables)
  assert common.allocator() == said
