"""`arvision edit`: parts of pictures drawn anew."""

import numpy as np
import pytest
from PIL import Image

from arvision.commands.main import main
from arvision.process.editing import kept_tokens


@pytest.fixture(scope='module')
def workdir(digits_runs):
  return digits_runs / 'var'


def edit(workdir, *flags):
  return main(['edit', f'--workdir={workdir}', '--number=1', *flags])


def read(workdir, name, part):
  return np.asarray(Image.open(workdir / 'edits' / name / f'000_{part}.png'))


def test_held_out_pictures_are_edited_within_the_region(workdir):
  flags = ['--held_out=2', '--box=0,0,0.5,1', '--composite', '--name=a']
  assert edit(workdir, '--mode=inpaint', *flags) == 0
  picture, new = (read(workdir, 'a', p) for p in ('picture', 'inpaint_1'))
  np.testing.assert_array_equal(picture[4:], new[4:])
  assert (picture[:4] != new[:4]).any()
  assert (workdir / 'edits' / 'a' / 'grid.png').is_file()


def test_another_class_has_most_of_the_picture(workdir, capsys):
  flags = ['--held_out=1', '--labels=8', '--composite', '--name=d']
  assert edit(workdir, '--mode=class', *flags) == 0
  picture, new = (read(workdir, 'd', p) for p in ('picture', 'class_1'))
  rows, columns = np.nonzero(picture != new)
  assert {*rows} | {*columns} <= {*range(1, 7)}
  assert len(rows) > 9  # more than the middle of the picture
  assert 'the region changed by' in capsys.readouterr().out


def test_outpainting_keeps_what_inpainting_draws(workdir):
  flags = ['--held_out=1', '--box=0,0,0.5,1', '--composite', '--name=b']
  assert edit(workdir, '--mode=outpaint', *flags) == 0
  picture, new = (read(workdir, 'b', p) for p in ('picture', 'outpaint_1'))
  np.testing.assert_array_equal(picture[:4], new[:4])
  assert (picture[4:] != new[4:]).any()


def test_a_file_is_edited_as_another_class(workdir, tmp_path):
  rng = np.random.default_rng(0)
  picture = rng.integers(0, 255, (20, 24), np.uint8)
  Image.fromarray(picture).save(tmp_path / 'a.png')
  mask = np.zeros((8, 8), np.uint8)
  mask[2:6, 2:6] = 255
  Image.fromarray(mask).save(tmp_path / 'mask.png')
  flags = [f'--image={tmp_path}/a.png', f'--mask={tmp_path}/mask.png']
  assert edit(workdir, '--mode=class', '--labels=3', *flags, '--name=c') == 0
  assert read(workdir, 'c', 'class_1').shape == (8, 8)


@pytest.mark.parametrize(
  ('flags', 'said'),
  [
    ([], 'wanted --image=FILE ... or --held_out=N'),
    (['--held_out=9999'], 'held-out images'),
    (['--held_out=1', '--mode=class'], '--mode=class needs --labels'),
    (['--held_out=1', '--labels=1,2'], '2 classes for 1 images'),
    (['--held_out=1', '--box=0.5,0.5,0.6,0.5'], 'wanted top,left,height,width'),
    (['--held_out=1', '--box=a'], 'wanted top,left,height,width'),
    (['--held_out=1', '--mask=nowhere.png'], 'no such file'),
    (['--image=nowhere.png'], 'no such file'),
  ],
)
def test_what_cannot_be_edited_is_refused(workdir, capsys, flags, said):
  assert edit(workdir, *flags) == 2
  assert said in capsys.readouterr().err


def test_a_token_stays_if_all_its_pixels_do():
  keep = np.ones((3, 8, 8), bool)
  keep[0, 0, 0] = False
  keep[1] = False
  found = kept_tokens(keep, ((1, 1), (2, 2), (4, 4)))
  assert found[0, 0], 'a single token says what the picture is like'
  np.testing.assert_array_equal(found[0, 5:].reshape(4, 4)[0], [0, 1, 1, 1])
  assert found[0, 5:].sum() == 15
  assert not found[1].any()
  assert found[2].all()


def test_tokens_in_a_line_cannot_be_kept_by_place():
  with pytest.raises(ValueError, match='does not tile a picture'):
    kept_tokens(np.ones((1, 8, 8), bool), ((1, 8),))
