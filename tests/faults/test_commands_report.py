"""report: the page and the summary, from whole and from poor folders."""

import html.parser
import json
import math
import os
import re
import shutil

import numpy as np
import pytest

from arvision.commands.main import main
from arvision.evals import plots
from arvision.runs import courses, page, readings, sweep
from arvision.runs.folder import Folder
from arvision.training import pictures

METRICS = {
  'psnr_db/held-out-digits-8px': 26.125,
  'codebook_usage/held-out-digits-8px/1x1': 0.375,
  'codebook_usage/held-out-digits-8px/2x2': 1.0,
  'codebook_reach/held-out-digits-8px/1x1': 0.5,
  'bit_usage/held-out-digits-8px/1x1': 0.75,
  'bit_entropy/held-out-digits-8px/1x1': 0.5,
}
HEADLINE = {
  'psnr_db': 26.125,
  'codebook_usage': {'1x1': 0.375, '2x2': 1.0},
  'codebook_reach': {'1x1': 0.5, '2x2': 1.0},
  'bit_usage': {'1x1': 0.75},
  'bit_entropy': {'1x1': 0.5},
}


@pytest.fixture
def folders(tmp_path):
  tokenizer, generator = tmp_path / 'tok', tmp_path / 'var'
  for folder, extra in ((tokenizer, {}), (generator, {'backbone': {}})):
    folder.mkdir()
    source = {'type': 'data.digits.Digits'}
    block = {'seed': 12345, 'data': {'source': source}, **extra}
    (folder / 'config.json').write_text(json.dumps(block))
  lines = [
    {'step': s, 'examples': 10 * s, 'loss': 1 / s, 'images_per_second': 20.0}
    for s in range(1, 301)
  ]
  lines.append({'step': 300, 'examples': 3000, 'held_out/loss': 0.5})
  lines.append({'step': 300, 'examples': 3000, 'loss': math.nan})
  text = '\n'.join(json.dumps(line) for line in lines)
  (tokenizer / 'log.jsonl').write_text(text + '\n{"step": 301, "lo')
  record = {'step': 300, 'metrics': METRICS, 'headline': HEADLINE, 'seconds': 5}
  (tokenizer / 'eval.json').write_text(json.dumps(record))
  record = {
    'step': 9,
    'metrics': {'class_accuracy/classifier-digits-8px-1000': 0.9715},
    'headline': {'class_accuracy': 0.9715, 'memorised': 0.0},
    'seconds': 7,
    'sampling': {'guidance': 1.5, 'top_k': None},
  }
  (generator / 'eval.json').write_text(json.dumps(record))
  image = np.zeros((4, 8, 8, 1), np.float32)
  for name in ('images_0000010', 'images_0000200', 'first_batch'):
    sheet = pictures.sheet({'a': image})
    pictures.save(tokenizer / 'pictures' / f'{name}.png', sheet)
  grid = pictures.sheet({'0': image, '1': image})
  pictures.save(generator / 'samples' / 'seed0' / 'grid.png', grid)
  return tokenizer, generator


class Checker(html.parser.HTMLParser):
  """Open tags must be closed, and nothing may be fetched from elsewhere."""

  VOID = ('meta', 'img', 'br', 'link')

  def __init__(self):
    super().__init__()
    self.stack, self.counts, self.sources = [], {}, []

  def handle_starttag(self, tag, attributes):
    self.counts[tag] = self.counts.get(tag, 0) + 1
    values = dict(attributes)
    self.sources += [values[k] for k in ('src', 'href') if k in values]
    self.counts['alt'] = self.counts.get('alt', 0) + bool(values.get('alt'))
    if tag not in self.VOID:
      self.stack.append(tag)

  def handle_startendtag(self, tag, attributes):
    self.counts[tag] = self.counts.get(tag, 0) + 1

  def handle_endtag(self, tag):
    assert self.stack.pop() == tag


def run(folders, *flags):
  argv = [f'--workdir={folder}' for folder in folders]
  assert main(['report', *argv, *flags]) == 0
  text = (folders[-1] / 'report.html').read_text(encoding='utf-8')
  checker = Checker()
  checker.feed(text)
  assert not checker.stack
  kinds = [re.match('data:image/(png|svg)', s)[1] for s in checker.sources]
  counts = checker.counts | {
    'img': kinds.count('png'),
    'svg': kinds.count('svg'),
  }
  assert counts['alt'] == len(kinds)
  assert 'script' not in counts and 'link' not in counts
  summary = json.loads((folders[-1] / 'summary.json').read_text())
  return text, counts, summary


def test_page_and_summary_hold_the_figures(folders):
  text, counts, summary = run(folders, '--seconds=61')
  assert summary['class_accuracy'] == 0.9715
  assert summary['psnr_db'] == 26.125
  assert summary['memorised'] == 0.0
  assert summary['codebook_usage'] == {'1x1': 0.375, '2x2': 1.0}
  assert summary['bit_entropy'] == {'1x1': 0.5}
  assert 'Bars of bit_usage: 1x1 75.0 %' in text
  assert summary['classifier_accuracy'] is None  # nobody measured it
  assert summary['seconds'] == 61
  assert summary['paths']['generator']['samples'] == [
    str(folders[1] / 'samples' / 'seed0' / 'grid.png')
  ]
  assert summary['paths']['report'] == str(folders[1] / 'report.html')
  for wanted in ('97.2 %', '26.1 dB', '12345', 'guidance 1.5'):
    assert wanted in text, wanted
  assert 'arvision: digits' in text and '1 min 1 s' in text
  assert 'top_k' not in text
  # Two pictures of the tokenizer, of which one is the newest, and a grid.
  assert counts['img'] == 3
  assert 'images_0000200.png' in text and 'images_0000010.png' not in text


def test_two_generators_are_told_apart(folders):
  first, second = folders
  shutil.copy(second / 'config.json', first / 'config.json')
  text, _, summary = run((first, second))
  assert 'Figures of the generator tok' in text
  assert 'Figures of the generator var' in text
  assert 'Training of the generator tok' in text
  assert summary['class_accuracy'] == 0.9715 and summary['psnr_db'] is None
  assert summary['runs']['generator tok']['psnr_db'] == 26.125
  assert {*summary['paths']} == {'generator tok', 'generator var', 'report'}


def test_a_rise_of_the_held_out_loss_is_said(folders):
  losses = [3.0, 2.0, 1.5, 1.6, 1.8]
  lines = [
    {'step': 10 * i, 'examples': i, 'held_out/ema_0.9/loss': y, 'loss': 3 - i}
    for i, y in enumerate(losses)
  ]
  assert courses.rise(lines).startswith(
    'The held-out loss was lowest after step 20, 1.5, and ends at 1.8 while the '
    'training loss falls: the run overfits.'
  )
  assert courses.rise(lines[:3]) == courses.rise([]) == ''
  text = '\n'.join(map(json.dumps, lines))
  (folders[1] / 'log.jsonl').write_text(text)
  assert 'the run overfits' in run(folders)[0]


def test_the_first_points_do_not_flatten_a_curve(folders):
  points = [(i, 9.0 if i < 4 else 2 - i / 100) for i in range(100)]
  low, high = courses.focus({'training': points, 'held out': points[50::10]})
  assert low == pytest.approx(1.01) and 1.9 < high < 2.5
  said = courses.cut_text({'a': points}, (low, high))
  assert said == 'cut axis: of 100 points 4 above it, up to 9'
  for whole in ([], points[4:], points[:9], [(i, 10.0**-i) for i in range(30)]):
    assert courses.focus({'a': whole}) is None
  [axes] = plots.lines({'a': points}, 'x', 'y', within=(low, high)).axes
  assert axes.get_ylim()[1] < 2.6
  lines = [{'step': x, 'examples': x, 'loss': y} for x, y in points]
  (folders[1] / 'log.jsonl').write_text('\n'.join(map(json.dumps, lines)))
  assert said in run(folders)[0]


def test_figures_stand_beside_their_protocol_number_and_interval(folders):
  facts = {'extractor': 'net', 'images': 180, 'rounding': '<b>'}
  record = {
    'metrics': {
      'frechet/p': 2.5,
      'frechet_low/q': 2.25,
      'frechet_high/q': 3.0,
      'frechet_of_held_out/classifier-digits-8px-150': 2.75,
    },
    'headline': {'frechet': 2.5, 'frechet_of_held_out': 2.75},
    'protocols': {'p': facts, 'q': facts | {'method': 'bootstrap'}},
  }
  (folders[1] / 'eval.json').write_text(json.dumps(record))
  text, counts, _ = run(folders)
  label = 'classifier features, 180 images, 95 %: 2.25 to 3; held-out images '
  assert label + 'score 2.75, 150 images' in text
  assert 'frechet_low' not in text and '<small>2.25 to 3</small>' in text
  assert '<summary>Protocol <code>p</code></summary>' in text
  assert '&lt;b&gt;' in text and 'rounding' in text


def test_environment_and_speed_are_shown(folders):
  versions = {'jax': '1.2.3', 'numpy': None}
  block = {'devices': '4 x TPU v5', 'versions': versions, 'mesh': {}}
  (folders[0] / 'environment.json').write_text(json.dumps(block))
  text, _, _ = run(folders)
  for wanted in ('4 x TPU v5', 'versions.jax', '1.2.3', '20 (median of 300'):
    assert wanted in text, wanted
  (folders[0] / 'environment.json').write_text('[1]')
  assert 'environment.json is damaged' in run(folders)[0]


def test_a_sweep_is_a_table_and_a_chart(folders):
  records = [
    {
      'settings': {'guidance': guidance, 'ema': '0.99'},
      'headline': {'fid': fid},
      'metrics': {'fid/p': fid, 'fid_low/p': fid - 1, 'fid_high/p': fid + 1},
    }
    for guidance, fid in ((1.0, 7.5), (1.5, 5.25))
  ]
  record = records[1] | {'sweep': records, 'chosen': 'the smallest fid of 2'}
  before = run(folders)[1]['svg']
  (folders[1] / 'eval.json').write_text(json.dumps(record))
  text, counts, _ = run(folders)
  assert 'those of the smallest fid of 2' in text and 'Chart of fid' in text
  assert '7.5<small>6.5 to 8.5</small>' in text
  [bars] = sweep.chart(records).axes[0].collections
  assert [list(s[:, 1]) for s in bars.get_segments()] == [
    [6.5, 8.5],
    [4.25, 6.25],
  ]
  assert counts['svg'] == before + 1


def test_an_evaluation_of_images_needs_no_config(tmp_path):
  block = {'metrics': {'fid/p': 5.5}, 'headline': {'fid': 5.5}}
  (tmp_path / 'eval.json').write_text(json.dumps(block))
  assert 'Figures of the images' in run([tmp_path])[0]


def test_seconds_come_from_the_logs(folders):
  # 3000 examples at 20 a second, and two evaluations.
  assert run(folders)[2]['seconds'] == pytest.approx(150 + 5 + 7)


def test_a_folder_with_a_config_alone(tmp_path):
  (tmp_path / 'config.json').write_text('{}')
  text, counts, summary = run([tmp_path])
  assert counts['img'] == counts['svg'] == 0
  assert summary['psnr_db'] is None


def test_text_of_a_config_is_escaped(tmp_path):
  (tmp_path / 'config.json').write_text('{"a": "<script>x</script>"}')
  text, counts, _ = run([tmp_path])
  assert '&lt;script&gt;' in text


@pytest.mark.parametrize('content', [None, '{"torn'])
def test_report_refuses(tmp_path, capsys, content):
  if content:
    (tmp_path / 'config.json').write_text(content)
  assert main(['report', f'--workdir={tmp_path}']) == 2
  assert str(tmp_path) in capsys.readouterr().err
  assert not (tmp_path / 'report.html').exists()


def test_curves_are_sorted_into_charts():
  log = [
    {'step': 1, 'loss': 2.0, 'loss/step_0': 1.0, 'loss/step_1': 3.0},
    {'step': 1, 'epoch': 0.1, 'gradient_norm/tokenizer': 1.0, 'psnr': 9.0},
    {'step': 2, 'held_out/loss': 1.5, 'held_out/ema_0.999/loss': 1.4},
    {'step': 2, 'held_out/loss/step_0': 1.0, 'usage/scale_1x1': 0.5},
  ]
  charts = readings.curves(log)
  assert list(charts) == [
    'loss',
    'loss by step',
    'psnr',
    'usage by scale',
    'gradient norm by part',
  ]
  assert set(charts['loss']) == {
    'training',
    'held out',
    'held out ema 0.999',
  }
  assert charts['loss by step']['step 1'] == [(1.0, 3.0)]


@pytest.mark.parametrize(
  'value, text',
  [
    (0.0, '0'),
    (26.123, '26.12'),
    (0.5, '0.5'),
    (1234567.0, '1.23e+06'),
    (1500.4, '1,500'),
    (2e-5, '2e-05'),
    (math.nan, 'nan'),
  ],
)
def test_numbers_are_short(value, text):
  assert page.number(value) == text


# --------------------------------------------------------------- damaged files


@pytest.fixture
def undrawn(monkeypatch):
  """Charts are made and not drawn, which takes most of the time."""
  monkeypatch.setattr(plots, 'svg', lambda figure: '<svg/>')


def cut(path):
  path.write_bytes(path.read_bytes()[:-20])


def flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def to_folder(path):
  path.unlink()
  path.mkdir()


def to_nothing(path):
  path.unlink()
  path.symlink_to('nowhere')


def to_pipe(path):
  path.unlink()
  os.mkfifo(path)


@pytest.mark.parametrize(
  'damage',
  [
    cut,
    flip,
    to_folder,
    to_nothing,
    to_pipe,
    lambda path: path.write_bytes(b''),
    lambda path: path.write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n(x) print\n'),
  ],
)
def test_a_broken_picture_is_named_and_the_rest_is_made(
  folders, capsys, undrawn, damage
):
  path = folders[0] / 'pictures' / 'images_0000200.png'
  damage(path)
  text, counts, summary = run(folders)
  assert counts['img'] == 2
  assert f'{path}' in capsys.readouterr().err
  assert 'Left out' in text and text.count(str(path)) >= 1
  assert summary['psnr_db'] == 26.125


@pytest.mark.parametrize(
  'text',
  [
    '[]',
    '7',
    'null',
    '{"torn',
    '\udcff',
    '[' * 100_000,
    '{"headline": 3, "metrics": []}',
    '{"headline": {"psnr_db": "26"}}',
    '{"headline": {"psnr_db": {"a": 1}}}',
    '{"headline": {"codebook_usage": {"1x1": null}}}',
    '{"headline": {"codebook_usage": 3}}',
    '{"metrics": {"a/b": [1]}}',
    '{"metrics": {"a/b": ' + '9' * 400 + '}}',
    '{"seconds": "5"}',
    '{"seconds": null}',
    '{"seconds": NaN}',
    '{"sampling": [1]}',
    '{"sweep": 3}',
    '{"sweep": [{"settings": {"a": [1]}, "headline": {}, "metrics": {}}]}',
    '{"sweep": [{"settings": {}, "headline": {"fid": "x"}, "metrics": {}}]}',
    '{"protocols": 3}',
    '{"protocols": {"p": 3}}',
  ],
)
def test_an_odd_evaluation_is_named_and_the_rest_is_made(
  folders, capsys, undrawn, text
):
  path = folders[0] / 'eval.json'
  path.write_bytes(text.encode('utf-8', 'surrogateescape'))
  _, counts, summary = run(folders)
  assert str(path) in capsys.readouterr().err
  assert counts['svg'] >= 1 and counts['img'] == 3
  assert summary['class_accuracy'] == 0.9715
  assert summary['psnr_db'] is None


@pytest.mark.parametrize(
  'line',
  [
    b'\xff\xfe',
    b'7',
    b'[1]',
    b'{"step": "1"}',
    b'{"loss": 1}',
    b'{"step": null}',
    b'{"step": 1' + b'0' * 400 + b'}',
    b'[' * 100_000,
  ],
)
def test_damaged_lines_of_a_log_are_counted(folders, capsys, undrawn, line):
  path = folders[0] / 'log.jsonl'
  path.write_bytes(line + b'\n' + path.read_bytes())
  assert run(folders)[2]['seconds'] == pytest.approx(150 + 5 + 7)
  assert f'{path}: 1 damaged lines' in capsys.readouterr().err


@pytest.mark.parametrize(
  'line',
  [
    b'{"step": 1, "loss": "x", "images_per_second": "fast"}',
    b'{"step": 1, "loss": 1e308, "psnr": -1e308, "images_per_second": 5}',
    b'{"step": 1e300, "loss": 1, "images_per_second": NaN}',
    b'{"step": 1, "loss": 5e-324}',
    b'{"step": 1, "examples": true, "images_per_second": 5}',
    b'{"step": 1, "changed": {"config.data.batch_size": [16, 8]}}',
  ],
)
def test_odd_values_of_a_log_make_no_curves(folders, capsys, line):
  path = folders[0] / 'log.jsonl'
  path.write_bytes(line + b'\n' + path.read_bytes())
  assert run(folders)[2]['seconds'] == pytest.approx(150 + 5 + 7)
  assert not capsys.readouterr().err


@pytest.mark.parametrize(
  'config', ['[]', 'null', '3', '[' * 100_000, '\udcff', '']
)
def test_report_refuses_a_config_of_another_shape(tmp_path, capsys, config):
  path = tmp_path / 'config.json'
  path.write_bytes(config.encode('utf-8', 'surrogateescape'))
  assert main(['report', f'--workdir={tmp_path}']) == 2
  [said] = capsys.readouterr().err.splitlines()
  assert str(path) in said


@pytest.mark.parametrize('data', [None, 3, [], {'source': 3}, {'source': []}])
def test_data_that_has_no_name(tmp_path, data):
  (tmp_path / 'config.json').write_text(json.dumps({'data': data}))
  assert '<h1>arvision</h1>' in run([tmp_path])[0]


def test_pictures_of_an_earlier_evaluation_are_left_out(tmp_path):
  (tmp_path / 'config.json').write_text('{}')
  (tmp_path / 'eval').mkdir()
  (tmp_path / 'eval' / 'neighbours.png').write_bytes(b'')
  for named, shown in ((['neighbours'], 1), ([], 0), (7, 0)):
    content = json.dumps({'metrics': {'a/b': 1.0}, 'pictures': named})
    (tmp_path / 'eval.json').write_text(content)
    assert len(Folder(tmp_path).evaluated()) == shown
