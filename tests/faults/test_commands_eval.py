"""`arvision reference`, and `arvision eval` of images, samples and sweeps."""

import json

import numpy as np
import pytest
from PIL import Image

from arvision.commands import run_flags
from arvision.commands.main import main
from tests.faults.test_commands_runs import (  # noqa: F401  (fixtures)
  Toy,
  config,
  fails,
  generator,
  tokenizer,
)

NETWORK = '--extractor=tests.parts.evals_toys.Toy:'


@pytest.fixture
def place(tmp_path, monkeypatch):
  """A folder with images, and a file that stands for weights."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  draws = np.random.default_rng(0)
  (tmp_path / 'a').mkdir()
  for i in range(12):
    pixels = draws.integers(0, 255, (4, 4, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a' / f'{i:03d}.png')
  (tmp_path / 'w').write_text('weights')
  return tmp_path


def read(path):
  return json.loads(path.read_text())


def short(record):
  return {k.split('/')[0]: v for k, v in record['metrics'].items()}


def test_a_reference_of_a_config_and_scores_of_an_npz(
  generator,  # noqa: F811
  place,
  capsys,
):
  network = f'{NETWORK}{place}/w'
  flags = [network, f'--output={place}/ref.npz', '--features=300']
  assert main(['reference', '--config=var/digits', *flags]) == 0
  said = capsys.readouterr().out
  assert 'digits' in said and 'train' in said
  argv = ['sample', f'--workdir={place}', '--labels=all', '--number=16']
  assert main([*argv, f'--npz={place}/all.npz', '--seed=4', '--no-png']) == 0
  argv = ['eval', f'--images={place}/all.npz', network]
  argv += ['--figures=fid,precision,inception_score']
  assert main([*argv, f'--reference={place}/ref.npz']) == 0
  record = read(place / 'all.eval.json')
  figures = short(record)
  assert figures.keys() == record['headline'].keys()
  # The samples are training images.
  assert 0 <= figures['fid'] < 0.01 and figures['precision'] > 0.8
  facts = record['protocols']
  assert {name.split('/')[1] for name in record['metrics']} == facts.keys()
  orders = {f['order'] for f in facts.values()}
  assert orders == {'', 'shuffled'}
  one = next(f for f in facts.values() if f['reference'] == 'digits')
  assert (one['split'], one['labels'], one['seed']) == ('train', 'balanced', 4)


def test_a_run_and_its_file_have_the_same_scores(generator, place):  # noqa: F811
  network = f'{NETWORK}{place}/w'
  network = [network, '--figures=fid,recall,inception_score']
  flags = ['--samples=160', '--which=fid', *network]
  assert main(['eval', f'--workdir={place}', *flags]) == 0
  record = read(place / 'eval.json')
  assert record['not_available'] == {}
  argv = ['sample', f'--workdir={place}', '--labels=all', '--number=16']
  assert main([*argv, f'--npz={place}/all.npz', '--name=x']) == 0
  argv = ['reference', '--config=var/digits', network[0]]
  assert main([*argv, f'--output={place}/ref.npz']) == 0
  argv = ['eval', f'--images={place}/all.npz', *network]
  assert main([*argv, f'--reference={place}/ref.npz']) == 0
  other = read(place / 'all.eval.json')
  # The same images of every class, so the very same protocols.
  assert record['metrics'].keys() == other['metrics'].keys()


def test_a_reference_of_other_sources(place, capsys):
  network = f'{NETWORK}{place}/w'
  for source in (f'--images={place}/a', f'--images={place}/a.npz'):
    if source.endswith('npz'):
      images = [
        np.asarray(Image.open(p)) for p in sorted((place / 'a').iterdir())
      ]
      np.savez(place / 'a.npz', arr_0=np.stack(images))
    argv = ['reference', source, network, f'--output={place}/out.npz']
    assert main(argv) == 0
    with np.load(place / 'out.npz') as arrays:
      facts = json.loads(str(arrays['facts']))
    assert (facts['name'], facts['images'], facts['split']) == ('a', 12, '')
    digests = facts['digest'], facts['weights']
  assert all(len(digest) == 64 for digest in digests)
  assert '12 images are few' in capsys.readouterr().out


def test_a_sweep_is_a_table(generator, place, capsys):  # noqa: F811
  argv = ['eval', f'--workdir={place}', '--samples=40', '--which=fid']
  argv += [f'{NETWORK}{place}/w', '--figures=fid,precision']
  assert main([*argv, '--sweep=guidance=1,1.5', '--sweep=seed=0,1']) == 0
  record = read(place / 'eval.json')
  points = [one['settings'] for one in record['sweep']]
  assert points == [
    {'guidance': g, 'seed': s} for g in (1.0, 1.5) for s in (0, 1)
  ]
  assert record['chosen'] == 'the smallest fid of 4'
  distances = [one['headline']['fid'] for one in record['sweep']]
  assert record['headline']['fid'] == min(distances)
  asked = [(a['guidance'], a['seed']) for a in generator.asked]
  assert asked == [(1.0, 0), (1.0, 1), (1.5, 0), (1.5, 1)]
  assert len({one['sampling']['guidance'] for one in record['sweep']}) == 2
  rows = read(place / 'sweep.json')['rows']
  assert [row['settings'] for row in rows] == points
  assert (place / 'sweep.svg').read_text().startswith('<svg')
  said = capsys.readouterr().out
  head = next(x for x in said.splitlines() if 'guidance  seed' in x)
  assert head.split() == ['guidance', 'seed', 'fid', 'precision']


def test_a_sweep_over_averages_loads_every_one(place, monkeypatch):
  loaded = []

  def load(workdir, ema, *_):
    loaded.append(ema)
    return Toy(config(generator=False), ema=ema)

  monkeypatch.setattr(run_flags, 'load_run', load)
  argv = ['eval', f'--workdir={place}', '--sweep=ema=raw,0.99']
  assert main([*argv, '--sweep=seed=1,2']) == 0
  assert loaded == ['raw', '0.99']
  record = read(place / 'eval.json')
  assert [one['ema'] for one in record['sweep']] == [
    *['raw'] * 2,
    *['0.99'] * 2,
  ]
  # Tokenizers do not sample: the second seed repeats the figures of the first.
  assert all('psnr_db' in one['headline'] for one in record['sweep'])


@pytest.mark.parametrize(
  ('flags', 'said'),
  [
    ([], 'wanted --workdir=DIR or --images=PATH'),
    (['--images={0}/a', '--workdir={0}'], 'wanted --workdir=DIR or --images'),
    (['--images={0}/a'], '--extractor=inception-adm:FILE'),
    (['--images={0}/a', '{1}'], 'wanted --reference=PATH'),
    (['--images={0}/a', '{1}', '--guidance=2'], '--guidance is for --workdir'),
    (['--images={0}/a', '{1}', '--config.x=2'], '--config.x is for --workdir'),
    (['--images={0}/a', '{1}', '--reference={0}/a'], 'sorted by class'),
    (['--images={0}/b', '{1}', '--reference={0}/a'], "no file '"),
    (['--images={0}/w', '{1}', '--reference={0}/a'], 'not an .npz file'),
    (
      ['--images={0}/a', '{1}', '--reference={0}/w', '--order=file'],
      'not an .npz file',
    ),
    (
      ['--images={0}/a', '{1}', '--reference={0}/a', '--output={0}'],
      'wanted a file',
    ),
    (
      ['--images={0}/a', '--extractor=inception-adm'],
      'wanted inception-adm:FILE',
    ),
    (['--images={0}/a', '--extractor=incption-adm:x'], "mean 'inception-adm'"),
    (['--images={0}/a', '--extractor=json.dumps:{0}/w'], '--extractor'),
    (
      ['--images={0}/a', '--extractor=data.digits.Digits:{0}/w'],
      '--extractor',
    ),
    (['--workdir={0}', '--order=file'], '--order is for --images'),
    (['--workdir={0}', '--reference={0}/a'], 'give --extractor=NAME:FILE too'),
    (['--workdir={0}', '--figures=fid'], 'give --extractor=NAME:FILE too'),
    (['--workdir={0}', '{1}', '--figures=fidd'], "Did you mean 'fid'?"),
    (['--workdir={0}', '--sweep=guidance'], 'wanted guidance=A,B,...'),
    (['--workdir={0}', '--sweep=guidance=1,x'], '--guidance=x: wanted'),
    (['--workdir={0}', '--sweep=guidanc=1'], "Did you mean 'guidance'?"),
    (['--workdir={0}', '--sweep=seed=1', '--sweep=seed=2'], 'wanted once'),
    (
      ['--workdir={0}', f'--sweep=seed={",".join(map(str, range(2000)))}'],
      'more than 1000 combinations',
    ),
  ],
)
def test_what_cannot_be_evaluated_is_said_in_a_line(
  generator,  # noqa: F811
  place,
  capsys,
  flags,
  said,
):
  before = sorted(p.name for p in place.iterdir())
  flags = [flag.format(place, f'{NETWORK}{place}/w') for flag in flags]
  error = fails(capsys, 'eval', *flags)
  assert said in error and len(error.splitlines()) == 1
  assert generator.calls == []
  assert sorted(p.name for p in place.iterdir()) == before


@pytest.mark.parametrize(
  ('flags', 'said'),
  [
    (['--config=var/digits', '--images={0}/a'], 'one source'),
    ([], 'one source'),
    (['--images={0}/a', '--output={0}'], 'wanted a file'),
    (['--images={0}/a', '--config.seed=1'], '--config.KEY is for'),
    (['--images={0}/nowhere'], "no file '"),
    (['--workdir={0}'], 'no config.json'),
    (
      [
        '--config=var/digits',
        '--split=held-out',
        '--config.data.held_out_share=0',
      ],
      'no held-out images',
    ),
  ],
)
def test_what_gives_no_reference_is_said_in_a_line(place, capsys, flags, said):
  flags = [flag.format(place) for flag in flags]
  if not any(flag.startswith('--output') for flag in flags):
    flags.append(f'--output={place}/out.npz')
  error = fails(capsys, 'reference', f'{NETWORK}{place}/w', *flags)
  assert said in error and len(error.splitlines()) == 1
  assert not (place / 'out.npz').exists()
