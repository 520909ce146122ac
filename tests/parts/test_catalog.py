"""What configs say of themselves, the commands that print it, docs/papers.md."""

import importlib.util
import re

import pytest

from arvision import catalog
from arvision.commands.main import main
from arvision.commands.overrides import override
from tests.configs import ALL, ROOT

SPEC = importlib.util.spec_from_file_location(
  'papers', ROOT.parent / 'launch' / 'papers.py'
)
papers = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(papers)

KEYS = {'name', 'title', 'source', 'group', 'repository', 'status'}
ENTRIES = {entry.name: entry for entry in catalog.entries()}


def test_every_folder_is_a_paper_or_a_study_of_several():
  folders = {p.parent.name for p in ROOT.glob('*/*.py')}
  assert folders - {*catalog.papers()} == {'ablations'}


@pytest.mark.parametrize('folder', catalog.papers())
def test_a_paper_says_what_it_is(folder):
  paper = catalog.papers()[folder]
  assert {*paper} == KEYS and paper['group'] in papers.GROUPS
  name = paper['name'].lower()
  assert folder in (name.replace('-', '_'), name.replace('-', ''))
  assert re.fullmatch(r'arXiv \d{4}\.\d{5}', paper['source'])
  generators = (ROOT / folder).glob('imagenet*.py')
  for path in generators:
    text = path.read_text(encoding='utf-8')
    assert paper['source'] in text and paper['repository'] in text


def test_nothing_is_planned_that_is_here():
  names = [name for _, name, _ in papers.planned()]
  assert len({*names}) == len(names)
  assert {group for group, _, _ in papers.planned()} <= {*papers.GROUPS}
  assert not {*names} & {paper['name'] for paper in catalog.papers().values()}


def test_the_page_of_papers_is_up_to_date():
  """`python launch/papers.py` writes it."""
  assert papers.PAGE.read_text(encoding='utf-8') == papers.page()
  for paper in catalog.papers().values():
    assert f'**{paper["name"]}**' in papers.page()


@pytest.mark.parametrize('name', ENTRIES)
def test_a_config_shows_the_command_that_trains_it(name):
  entry = ENTRIES[name]
  assert entry.title.endswith('.') and entry.command
  variants = {n.partition(':')[2] for n in ALL if n.partition(':')[0] == name}
  assert {*entry.variants} == variants - {''}


def test_what_a_docstring_says():
  entry = ENTRIES['var/imagenet256']
  assert entry.cost == '2.5 days on 16 A100 (d16)'
  assert entry.figures.startswith('FID 3.55 / 2.95')
  assert entry.deviations.startswith('bfloat16 where')
  assert ENTRIES['rar/imagenet256'].deviations == ''
  assert ENTRIES['mar/digits_tokenizer'].deviations.endswith('are noise')


def test_all_configs_are_listed(capsys):
  assert main(['configs']) == 0
  said = capsys.readouterr().out
  assert 'VAR (arXiv 2404.02905)\n' in said
  assert '  var/imagenet256:{d16,d20,d24,d30}\n' in said
  assert '    cost: 2.1 minutes on two cores of an AMD EPYC\n' in said
  assert all(f'  {name}' in said for name in ENTRIES)


def test_a_config_is_printed_as_its_flags_take_it(capsys):
  argv = ['config', 'var/tiny:d36', '--config.head.label_smoothing=0.25']
  assert main(argv) == 0
  lines = capsys.readouterr().out.splitlines()
  assert "config.head.type='heads.categorical.Categorical'" in lines
  assert 'config.head.label_smoothing=0.25' in lines
  plain = ALL['var/tiny:d36']()
  texts = [line.removeprefix('config.') for line in lines]
  texts = [t.replace("='", '=').removesuffix("'") for t in texts]
  again = override(plain, texts).copy_and_resolve_references().to_dict()
  assert again == override(plain, ['head.label_smoothing=0.25']).to_dict()


def test_a_difference_shows_only_what_differs(capsys):
  assert main(['config', 'var/tiny:d36', '--diff=var/tiny:d16']) == 0
  lines = capsys.readouterr().out.splitlines()
  keys = {line.split(':')[0] for line in lines}
  block = 'config.backbone'
  assert keys == {
    f'{block}.block.adaln.std',
    f'{block}.block.adaln.type',
    f'{block}.shared_adaln',
    f'{block}.shared_adaln.std',
    f'{block}.shared_adaln.type',
  }
  shown = f"{block}.shared_adaln: 'absent', None in var/tiny:d16"
  assert shown in lines
  assert main(['config', 'var/tiny', '--diff=var/tiny']) == 0
  assert capsys.readouterr().out == ''


@pytest.mark.parametrize(
  'argv', [['config'], ['config', 'no/such'], ['config', 'var/tiny', 'x']]
)
def test_a_wrong_name_is_one_line(argv, capsys):
  assert main(argv) == 2
  said = capsys.readouterr().err
  assert said.startswith('arvision: error: ') and said.count('\n') == 1
