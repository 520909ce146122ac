"""Error rates of text, pictures of text, and the program tesseract."""

import shutil

import numpy as np
import pytest

from arvision.errors import ConfigError, DataError
from arvision.evals.text import (
  Tesseract,
  cer,
  characters,
  distance,
  picture,
  wer,
  words,
)


@pytest.mark.parametrize(
  'a, b, wanted',
  [
    ('', '', 0),
    ('abc', '', 3),
    ('', 'abc', 3),
    ('kitten', 'sitting', 3),
    ('flaw', 'lawn', 2),
    ('abcdef', 'azced', 3),
  ],
)
def test_distances_of_strings(a, b, wanted):
  assert distance(a, b) == distance(b, a) == wanted


def slow_distance(a, b):
  if not a or not b:
    return len(a) + len(b)
  return min(
    slow_distance(a[1:], b) + 1,
    slow_distance(a, b[1:]) + 1,
    slow_distance(a[1:], b[1:]) + (a[0] != b[0]),
  )


def test_distances_equal_the_recursion():
  generator = np.random.default_rng(0)
  for _ in range(20):
    a, b = (
      list(generator.integers(0, 3, n)) for n in generator.integers(0, 6, 2)
    )
    assert distance(a, b) == slow_distance(a, b)


def test_rates_of_empty_references():
  assert cer('', '') == wer('', '') == 0
  assert cer('', 'ab c') == 4 and wer('', 'ab c') == 2
  assert cer('ab', '') == wer('ab', '') == 1


def test_rates_may_exceed_one_and_ignore_line_breaks():
  assert cer('ab', 'xxxx') == 2
  assert cer('a b', 'a\n  b ') == 0 and wer('a b\n', 'a  b') == 0
  assert wer('one two three', 'one too three four') == pytest.approx(2 / 3)


def test_chinese_and_japanese_characters_are_words():
  assert words('今日は good 天気') == ['今', '日', 'は', 'good', '天', '気']
  assert wer('你好世界', '你们世界') == cer('你好世界', '你们世界') == 1 / 4
  # Korean has spaces.
  assert words('좋은 아침') == ['좋은', '아침']


def test_combining_marks_belong_to_their_letter():
  assert characters('e\u0301a') == ['é', 'a']
  assert cer('é', 'e\u0301') == 0
  assert characters('नि') == ['नि'] and len(characters('हिन्दी')) == 3
  assert cer('हि', 'ह') == 1


def test_pictures_of_text_break_lines_and_refuse_what_does_not_fit():
  one = picture('abc', (40, 200, 3))
  assert one.shape == (40, 200, 3) and one.dtype == np.uint8
  assert one[0, 0, 0] == 255 and one.min() < 100
  two = picture('abcdef ghijkl', (60, 70, 1))
  ink = (two[..., 0] < 128).any(1)
  assert np.count_nonzero(np.diff(ink.astype(int)) == 1) >= 2  # two lines
  with pytest.raises(DataError, match='does not fit into 8 x 8 px'):
    picture('too long', (8, 8, 1))
  with pytest.raises(DataError, match=r"font='nowhere\.ttf' cannot be opened"):
    picture('a', (40, 40, 1), 'nowhere.ttf')


def test_without_tesseract_there_is_a_clear_error(monkeypatch):
  monkeypatch.setattr(shutil, 'which', lambda name: None)
  with pytest.raises(ConfigError, match='apt-get install tesseract-ocr'):
    Tesseract()(np.zeros((8, 8, 1), np.uint8))


def program(folder, monkeypatch, text):
  path = folder / 'tesseract'
  path.write_text(f'#!/bin/sh\n{text}\n')
  path.chmod(0o755)
  monkeypatch.setattr(shutil, 'which', lambda name: str(path))


def test_tesseract_is_given_a_png_and_its_text_is_taken(tmp_path, monkeypatch):
  program(tmp_path, monkeypatch, 'head -c 4 | tail -c 3; echo " $*"')
  ocr = Tesseract('eng+deu', enlarge=2)
  assert ocr.name == 'tesseract-eng-deu'
  for channels in (1, 3):
    text = ocr(np.zeros((8, 9, channels), np.uint8))
    assert text == 'PNG stdin stdout -l eng+deu --psm 6\n'


def test_tesseract_that_fails_says_why(tmp_path, monkeypatch):
  image = np.zeros((8, 8, 1), np.uint8)
  program(tmp_path, monkeypatch, 'echo "no language xyz" >&2; exit 1')
  with pytest.raises(ConfigError, match='-l xyz --psm 6 failed: no language'):
    Tesseract('xyz')(image)
  program(tmp_path, monkeypatch, 'exec sleep 9')
  with pytest.raises(ConfigError, match='more than 1 s'):
    Tesseract(seconds=1)(image)


@pytest.mark.skipif(not shutil.which('tesseract'), reason='needs tesseract')
def test_tesseract_reads_a_picture():
  image = picture('Hello world 2026', (60, 400, 1), size=32)
  assert cer('Hello world 2026', Tesseract()(image)) < 0.1
