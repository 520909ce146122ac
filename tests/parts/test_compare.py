"""compare: variants, columns, protocols, the text, and what is refused."""

import json
import types

import pytest

from arvision.commands.main import main
from arvision.runs import compare, variants
from arvision.runs.folder import Folder

FACTS = {'extractor': 'inception-adm', 'images': 1000, 'seed': 0}


def make(folder, seed=0, metrics=None, protocols=None, log=(), **config):
  folder.mkdir(parents=True)
  block = {'seed': seed, 'backbone': {}, **config}
  (folder / 'config.json').write_text(json.dumps(block))
  if metrics:
    record = {'metrics': metrics, 'protocols': protocols or {}}
    (folder / 'eval.json').write_text(json.dumps(record))
  text = ''.join(json.dumps(line) + '\n' for line in log)
  (folder / 'log.jsonl').write_text(text)
  return folder


def found(root):
  return variants.group([Folder(p) for p in sorted(root.iterdir())])


def table(root):
  return {(c.figure, c.protocol): c for c in compare.columns(found(root))}


def test_runs_that_differ_in_the_seed_are_a_variant(tmp_path):
  for seed in (0, 1, 2):
    make(tmp_path / f'a_seed{seed}', seed, {'fid/p': 1.0 + seed}, depth=2)
  make(tmp_path / 'b', 0, {'fid/p': 1.5}, depth=3)
  a, b = found(tmp_path)
  assert (a.name, b.name) == ('a', 'b')
  assert (a.overrides, b.overrides) == ({'depth': 2}, {'depth': 3})
  assert len(a.folders) == 3
  [column] = table(tmp_path).values()
  assert column.values == ((1.0, 2.0, 3.0), (1.5,))
  assert (column.better, column.best) == ('lower', 1.5)
  assert main(['compare', f'{tmp_path}']) == 0
  text = (tmp_path / 'compare.html').read_text()
  assert '2 ± 1' in text and 'n = 3' in text and 'depth=3' in text
  assert text.count('<small>best</small>') == 1


def test_names_leave_out_the_hidden_folders_of_copies():
  named = lambda *paths: variants.short_names(
    [types.SimpleNamespace(path=path) for path in paths]
  )
  assert named('/c/.0a.partial/tok', '/t/whole') == ['tok', 't/whole']
  assert named('/r/var/digits', '/r/rar/digits') == ['var/digits', 'rar/digits']
  assert named('/r/.a/x', '/r/.b/x') == ['.a/x', '.b/x']


def test_the_same_run_twice_is_no_pair_of_seeds(tmp_path):
  make(tmp_path / 'new'), make(tmp_path / 'old')
  assert [v.name for v in found(tmp_path)] == ['new', 'old']


def test_another_type_hides_the_fields_that_follow(tmp_path):
  make(tmp_path / 'a', head={'type': 'x.A', 'width': 3})
  make(tmp_path / 'b', head={'type': 'x.B', 'depth': 4})
  assert [v.overrides for v in found(tmp_path)] == [
    {'head.type': 'x.A'},
    {'head.type': 'x.B'},
  ]


def test_a_default_equals_a_field_left_out_and_nothing_foreign_is_imported(
  tmp_path,
):
  block = {'type': 'layouts.sequence.Sequence', 'length': 4}
  make(tmp_path / 'a', layout=block)
  make(tmp_path / 'b', layout=block, head={'type': 'antigravity.Head'})
  assert [v.overrides for v in found(tmp_path)] == [
    {'head.type': 'absent'},
    {'head.type': 'antigravity.Head'},
  ]


def test_protocols_have_columns_of_their_own(tmp_path):
  make(tmp_path / 'a', 0, {'fid/p': 1.0}, {'p': FACTS}, depth=1)
  make(tmp_path / 'b', 0, {'fid/q': 2.0}, {'q': FACTS | {'images': 9}}, depth=2)
  make(tmp_path / 'c', 0, {'fid/q': 3.0}, {'q': FACTS | {'images': 9}}, depth=3)
  columns = table(tmp_path)
  assert columns['fid', 'p'].values == ((1.0,), (), ())
  assert columns['fid', 'p'].best is None and columns['fid', 'q'].best == 2.0
  assert main(['compare', f'{tmp_path}']) == 0
  assert 'images: 1000, 9' in (tmp_path / 'compare.html').read_text()


def test_figures_of_different_protocols_are_never_in_one_row(tmp_path, capsys):
  log = [{'step': 1, 'examples': 8, 'loss': 2.0}]
  log.append({'step': 2, 'examples': 16, 'loss': 1.0})
  own, other = {'p': FACTS}, {'q': FACTS | {'images': 9}}
  both = {'is/s': 4.0}
  make(tmp_path / 'a', 0, {'fid/p': 1.0, **both}, own, log, depth=1)
  make(tmp_path / 'b', 0, {'fid/q': 2.0, 'is/s': 5.5}, other, log, depth=2)
  names = [f'{tmp_path / name}' for name in 'ab']
  assert main(['compare', *names]) == 0
  out = capsys.readouterr().out.splitlines()
  rows = [line.split() for line in out if line]
  assert ['depth', '1', '2'] in rows
  assert ['fid', 'p', '1', '–', 'lower', 'is', 'better'] in rows
  assert ['fid', 'q', '–', '2', 'lower', 'is', 'better'] in rows
  assert ['is', 's', '4', '5.5', '(Δ', '+1.5)'] in rows
  page = (tmp_path / 'b' / 'compare.html').read_text()
  assert 'images: 1000, 9' in page and 'loss, training' in page
  assert 'a ends at 1, b ends at 1' in page


def test_differences_are_paired_by_seed(tmp_path):
  for name, values in (('a', (1.0, 2.0, 9.0)), ('b', (1.5, 2.7))):
    for seed, value in enumerate(values):
      where = tmp_path / f'{name}_seed{seed}'
      make(where, seed, {'fid/p': value}, depth=name)
  [column] = table(tmp_path).values()
  assert column.against_first(0) is None
  assert column.against_first(1).values == pytest.approx((0.5, 0.7))
  assert compare.difference_text(column, 1) == 'Δ +0.6 ± 0.14'


def test_a_comparison_needs_two_runs(tmp_path, capsys):
  make(tmp_path / 'a')
  for folder in (tmp_path / 'a', tmp_path):
    assert main(['compare', f'{folder}']) == 2
    assert 'two runs or more' in capsys.readouterr().err


def test_a_tokenizer_and_a_generator_are_not_compared(tmp_path, capsys):
  tokenizer = make(tmp_path / 'tok')
  block = json.loads((tokenizer / 'config.json').read_text())
  del block['backbone']
  (tokenizer / 'config.json').write_text(json.dumps(block))
  generator = make(tmp_path / 'var')
  assert main(['compare', f'{generator}', f'{tokenizer}']) == 2
  said = capsys.readouterr().err
  assert f"'{tokenizer}' holds a tokenizer" in said
  assert f'report --workdir={tokenizer} --workdir={generator}' in said
  assert not (tokenizer / 'compare.html').exists()


def test_losses_and_speeds_are_compared_where_they_can_be(tmp_path):
  log = [
    {'step': 1, 'examples': 8, 'held_out/loss': 2.0, 'images_per_second': 5.0},
    {'step': 2, 'examples': 16, 'held_out/loss': 1.5, 'images_per_second': 7.0},
  ]
  make(tmp_path / 'a', log=log, depth=1)
  make(tmp_path / 'b', log=log, depth=2)
  columns = table(tmp_path)
  assert columns['loss', 'held out'].values == ((1.5,), (1.5,))
  speed = columns['images_per_second', 'training on unknown devices']
  assert speed.values == ((6.0,), (6.0,))
  make(tmp_path / 'c', log=log, depth=3, head={'type': 'x.A'})
  assert ('loss', 'held out') not in table(tmp_path)


def test_every_figure_knows_what_is_better():
  better = lambda name: compare.Column(name, 'p', ()).better
  assert better('fid') == better('cer') == better('rfid') == 'lower'
  assert better('detail_psnr_db') == better('ms_ssim') == 'higher'
  for neutral in ('cer_of_originals', 'frechet_of_held_out', 'psnr_of_mean_db'):
    assert better(neutral) == ''
