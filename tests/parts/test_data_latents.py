"""Cached tokens: writing, reading, views."""

import json

import numpy as np
import pytest

from arvision.data.latents import CachedTokens, write_tokens

SPEC = {
  'classes': ['a', 'b'],
  'shape': (8, 12, 3),
  'tokenizer': {'type': 'tokenizers.autoencoder.Autoencoder', 'sha': 'x'},
}


def examples(count=20, views=3, floats=False):
  for i in range(count):
    tokens = 1000 * i + 10 * np.arange(views)[:, None] + np.arange(4)
    if floats:
      tokens = np.repeat(tokens[..., None], 2, -1).astype(np.float32)
    yield {
      'tokens': tokens,
      'label': i % 2,
      'caption': f'picture {i}',
      'index': 100 + i,
      'held_out': i % 5 == 0,
    }


@pytest.fixture
def folder(tmp_path):
  path = str(tmp_path / 'tokens')
  write_tokens(path, SPEC, examples(), shards=2)
  return path


def take(iterator, count):
  return [next(iterator) for _ in range(count)]


def test_facts_of_the_folder(folder):
  data = CachedTokens(folder, threads=0)
  assert (data.examples, data.held_out_examples) == (16, 4)
  assert data.classes == ('a', 'b') and data.shape == (8, 12, 3)
  assert data.spec['tokenizer'] == SPEC['tokenizer']
  assert data.broken.count == 0


@pytest.mark.parametrize('cache', [False, True])
def test_training_draws_a_view_for_every_visit(folder, cache):
  data = CachedTokens(folder, threads=0, cache=cache)
  batches = take(data.train(8, seed=0), 20)
  seen = {}
  for batch in batches:
    assert batch['tokens'].shape == (8, 4)
    assert batch['tokens'].dtype == np.int32
    for row, index, label, caption in zip(
      batch['tokens'], batch['index'], batch['label'], batch['caption']
    ):
      i = index - 100
      assert row[0] // 1000 == i and label == i % 2
      assert caption == f'picture {i}'
      seen.setdefault(int(i), set()).add(int(row[0] % 1000) // 10)
  assert len(seen) == 16
  assert set.union(*seen.values()) == {0, 1, 2}


def test_passes_give_the_first_view(folder):
  data = CachedTokens(folder, threads=0)
  for start, count in ((data.held_out, 4), (data.train_pass, 16)):
    batches = list(start(3))
    tokens = np.concatenate([b['tokens'] for b in batches])
    weight = np.concatenate([b['weight'] for b in batches])
    assert weight.sum() == count
    assert (tokens[:, 0] % 1000 == 0).all()
  held = {int(i) for b in data.held_out(2) for i in b['index']}
  assert held == {100, 105, 110, 115}


def test_continuous_tokens(tmp_path):
  path = str(tmp_path / 'latents')
  write_tokens(path, SPEC, examples(floats=True), shards=1)
  batch = next(CachedTokens(path, threads=0).train(4, 0))
  assert batch['tokens'].shape == (4, 4, 2)
  assert batch['tokens'].dtype == np.float32


def test_large_codes_survive(tmp_path):
  path = str(tmp_path / 'large')
  tokens = np.array([[70_000, 3]])
  write_tokens(path, SPEC, [{'tokens': tokens, 'label': 0, 'index': 0}], 1)
  data = CachedTokens(path, threads=0, conditional=False)
  batch = next(data.train(1, 0))
  assert batch['tokens'].tolist() == [[70_000, 3]]
  assert data.num_classes == 1


def test_resume_and_processes(folder):
  data = CachedTokens(folder, threads=0)
  iterator = data.train(4, seed=1)
  take(iterator, 3)
  state = iterator.get_state()
  wanted = next(iterator)
  fresh = data.train(4, seed=1)
  fresh.set_state(json.loads(json.dumps(state)))
  batch = next(fresh)
  halves = []
  for p in range(2):
    part = data.train(4, 1, p, 2)
    part.set_state(state)
    halves.append(next(part))
  for key in wanted:
    np.testing.assert_array_equal(batch[key], wanted[key])
    joined = np.concatenate([half[key] for half in halves])
    np.testing.assert_array_equal(joined, wanted[key])
