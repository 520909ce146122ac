"""Batches: shapes, order, shards of processes, resuming, splits."""

import hashlib

import grain
import numpy as np
import orbax.checkpoint as ocp
import pytest

from arvision.data.base import Source
from arvision.data.digits import Digits
from arvision.data.pipeline import Images
from arvision.data.split import hold_out
from arvision.data.stream import Order
from arvision.errors import DataError


class Numbers(Source):
  """Picture i is full of the number i; one class for every third."""

  def __init__(self, count, side=4):
    self.count = count
    self.side = side

  @property
  def classes(self):
    return ('zero', 'one', 'two')

  @property
  def labels(self):
    return np.arange(self.count, dtype=np.int32) % 3

  def __len__(self):
    return self.count

  def __getitem__(self, i):
    image = np.full((self.side, self.side + 1, 1), i % 256, np.uint8)
    image[0, 0] = 255 - image[0, 0]
    return {'image': image, 'label': i % 3, 'caption': f'number {i}'}


def images(count=40, **changes):
  fields = {'size': (4, 4), 'channels': 1, 'threads': 0, 'held_out_share': 0.1}
  return Images(Numbers(count), **{**fields, **changes})


def take(iterator, count):
  return [next(iterator) for _ in range(count)]


def assert_equal(one, other):
  assert one.keys() == other.keys()
  for key in one:
    np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def test_batch_format():
  data = images(channels=3)
  batch = next(data.train(8, seed=0))
  assert batch['image'].shape == (8, 4, 4, 3)
  assert batch['image'].dtype == np.float32
  assert np.abs(batch['image']).max() <= 1
  assert batch['label'].dtype == batch['index'].dtype == np.int32
  assert batch['label'].tolist() == (batch['index'] % 3).tolist()
  assert batch['caption'][0] == f'number {batch["index"][0]}'
  assert data.shape == (4, 4, 3)
  assert data.classes == ('zero', 'one', 'two') and data.num_classes == 3


def test_an_epoch_shows_every_example_once_in_a_new_order():
  data = images(36, held_out_share=0)
  iterator = data.train(6, seed=0)
  seen = np.concatenate([b['index'] for b in take(iterator, 12)])
  first, second = seen[:36], seen[36:72]
  assert sorted(first) == sorted(second) and len(set(first)) == 36
  assert first.tolist() != second.tolist()


def test_the_seed_decides():
  take_two = lambda seed: take(images(flip=True).train(8, seed), 2)
  one, again, other = take_two(1), take_two(1), take_two(2)
  for a, b in zip(one, again):
    assert_equal(a, b)
  assert one[0]['index'].tolist() != other[0]['index'].tolist()


def test_a_picture_is_cut_anew_in_every_epoch():
  data = images(12, size=(2, 2), resize=None, crop='random', held_out_share=0)
  iterator = data.train(12, seed=0)
  views = {
    b['image'][list(b['index']).index(5)].tobytes() for b in take(iterator, 24)
  }
  assert len(views) > 1


@pytest.mark.parametrize('processes', [2, 4])
def test_processes_share_the_same_global_batches(processes):
  data = images(flip=True, crop='random', size=(3, 3))
  whole = take(data.train(8, seed=3), 7)
  parts = [take(data.train(8, 3, p, processes), 7) for p in range(processes)]
  for k, batch in enumerate(whole):
    joined = {
      key: np.concatenate([part[k][key] for part in parts]) for key in batch
    }
    assert_equal(batch, joined)


def test_an_epoch_is_whole_though_processes_come_and_go():
  data = images(held_out_share=0)
  seen, state = [], None
  for processes, steps in ((2, 2), (4, 1), (1, 2)):
    parts = [data.train(8, 3, p, processes) for p in range(processes)]
    for part in parts if state else ():
      part.set_state(state)
    for _ in range(steps):
      shards = [next(part)['index'] for part in parts]
      assert [len(shard) for shard in shards] == [8 // processes] * processes
      seen += np.concatenate(shards).tolist()
    [state] = {tuple(part.get_state().items()) for part in parts}
    state = dict(state)
  assert sorted(seen) == list(range(40))
  alone = take(data.train(8, seed=3), 5)
  assert seen == np.concatenate([b['index'] for b in alone]).tolist()


@pytest.mark.parametrize('threads', [0, 2])
def test_resume_in_the_middle_of_an_epoch(threads):
  data = images(threads=threads, flip=True)
  iterator = data.train(8, seed=0)
  take(iterator, 3)
  state = iterator.get_state()
  wanted = take(iterator, 6)
  fresh = images(threads=threads, flip=True).train(8, seed=0)
  fresh.set_state(state)
  assert fresh.get_state() == state
  for a, b in zip(wanted, take(fresh, 6)):
    assert_equal(a, b)
  iterator.set_state(state)
  assert_equal(next(iterator), wanted[0])


def test_worker_processes_give_the_same_batches_and_resume():
  iterator = images(flip=True).train(8, seed=0)
  take(iterator, 2)
  state = iterator.get_state()
  workers = images(flip=True, workers=1, threads=1).train(8, seed=0)
  workers.set_state(state)
  for a, b in zip(take(iterator, 2), take(workers, 2)):
    assert_equal(a, b)
  assert workers.get_state() == iterator.get_state()
  workers.close()


def test_checkpoint_through_orbax(tmp_path):
  iterator = images().train(8, seed=0)
  take(iterator, 5)
  with ocp.CheckpointManager(tmp_path / 'run') as manager:
    args = ocp.args.Composite(data=grain.checkpoint.CheckpointSave(iterator))
    manager.save(0, args=args)
    manager.wait_until_finished()
    wanted = next(iterator)
    fresh = images().train(8, seed=0)
    args = ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(fresh))
    manager.restore(0, args=args)
  assert_equal(next(fresh), wanted)


def test_cache_changes_nothing_but_the_speed():
  for crop in ('center', 'random', 'adm'):
    fields = {'crop': crop, 'flip': True, 'size': (3, 3)}
    plain, kept = (images(cache=c, **fields) for c in (False, True))
    for a, b in zip(take(plain.train(8, 0), 3), take(kept.train(8, 0), 3)):
      assert_equal(a, b)
    for a, b in zip(plain.train_pass(8), kept.train_pass(8)):
      assert_equal(a, b)


def test_passes_show_everything_once_and_pad_with_weight_zero():
  data = images(40)
  count = len(held_out_by_hand([f'numbers[{i}]' for i in range(40)], 0.1))
  assert count > 1
  passes = {
    'held_out': (data.held_out, count),
    'train': (data.train_pass, 40 - count),
  }
  for start, count in passes.values():
    batches = list(start(7))
    weight = np.concatenate([b['weight'] for b in batches])
    index = np.concatenate([b['index'] for b in batches])
    assert all(len(b['index']) == 7 for b in batches)
    assert weight.dtype == np.float32 and weight.sum() == count
    assert len(set(index[weight > 0])) == count
  both = [
    {i for b in start(8) for i in b['index']} for start, _ in passes.values()
  ]
  assert not both[0] & both[1]
  assert both[0] | both[1] == set(range(40))


def test_processes_share_a_pass():
  data = images(40)
  whole = list(data.train_pass(8))
  parts = [list(data.train_pass(8, p, 2)) for p in range(2)]
  assert len(parts[0]) == len(parts[1]) == len(whole)
  for batch, a, b in zip(whole, *parts):
    assert_equal(batch, {k: np.concatenate([a[k], b[k]]) for k in batch})


def test_passes_with_views():
  data = images(resize=6)
  batch = next(data.train_pass(4, views='ten_crop'))
  assert batch['image'].shape == (4, 10, 4, 4, 1)
  plain = next(data.train_pass(4))
  np.testing.assert_array_equal(batch['image'][:, 0], plain['image'])
  assert next(data.held_out(2, views='flip'))['image'].shape[1] == 2


def test_no_held_out_examples():
  data = images(held_out_share=0)
  assert data.held_out_examples == 0 and data.examples == 40
  assert list(data.held_out(4)) == []


def held_out_by_hand(names, share):
  """Indices of the names whose first 64 bits of BLAKE2b are below a share."""
  bits = [hashlib.blake2b(n.encode(), digest_size=8).hexdigest() for n in names]
  return [i for i, b in enumerate(bits) if int(b, 16) < share * 16**16]


class Named(Numbers):
  """Pictures with names of their own."""

  def __init__(self, names):
    super().__init__(len(names))
    self.names = names

  def name(self, i):
    return self.names[i]


def held_out_names(names, share=0.2):
  source = Named(names)
  return {source.name(i) for i in hold_out(source, share)[1]}


def test_the_hash_of_a_name_holds_it_out():
  names = [f'class {i % 7}/{i}.png' for i in range(2000)]
  train, held = hold_out(Named(names), 0.2)
  assert held.tolist() == held_out_by_hand(names, 0.2)
  assert sorted([*train, *held]) == list(range(2000))
  assert 340 <= len(held) <= 460  # 400 and three standard deviations
  assert hold_out(Named(names), 0)[0].tolist() == list(range(2000))


def test_a_picture_stays_in_its_split_whatever_else_there_is():
  names = [f'class {i % 7}/{i}.png' for i in range(400)]
  held = held_out_names(names)
  assert held_out_names(names[::-1]) == held
  assert held_out_names(['class 0/!.png', *names]) - {'class 0/!.png'} == held
  assert held_out_names(names[:57]) == held & set(names[:57])
  # A class that gets another name moves nobody else.
  renamed = [n.replace('class 3', 'klasse') for n in names]
  assert held_out_names(renamed) & set(names) == held & set(renamed)
  # A larger share holds out all that a smaller one does.
  assert held < held_out_names(names, 0.3)
  # Some file systems take accents apart.
  assert len(held_out_names(['caf\u00e9', 'cafe\u0301'], 0.5)) in (0, 2)


def test_the_split_is_described():
  names = [*'abcdefghi']
  held = held_out_by_hand(names, 0.2)
  data = Images(Named(names), (4, 4), 1, held_out_share=0.2)
  said = data.describe()
  assert f'{9 - len(held)} training and {len(held)} held-out' in said
  assert f'{len(held) / 9:.4f} of all (config.data.held_out_share=0.2)' in said
  lost = [data.classes[c] for c in range(3) if c not in {i % 3 for i in held}]
  assert lost == ['zero']
  assert said.endswith('no held-out picture of 1 of 3 classes: zero')
  assert 'none' not in images(held_out_share=0).describe()
  assert 'enlarged' not in said
  said = images(size=(8, 8)).describe()
  assert said.endswith('are enlarged to 8 x 8 px, from 4 x 5 at the least')


def test_a_label_without_a_class_is_found_at_the_start():
  class Wrong(Numbers):
    @property
    def labels(self):
      return np.where(np.arange(self.count) == 37, 3, super().labels)

  data = Images(Wrong(40), (4, 4), 1, held_out_share=0)
  with pytest.raises(DataError, match=r'wrong\[37\]: label 3, .* 3 classes'):
    data.train(8, 0, 1, 4)
  assert Images(Wrong(40), (4, 4), 1, conditional=False).num_classes == 1


def test_unconditional_is_one_class():
  data = images(conditional=False)
  assert data.num_classes == 1
  assert next(data.train(8, 0))['label'].tolist() == [0] * 8


def test_digits_batches():
  data = Images(Digits(), (8, 8), channels=1, cache=True, threads=0)
  assert data.examples + data.held_out_examples == 1797
  assert 162 <= data.held_out_examples <= 198  # 180 and a tenth
  batch = next(data.train(16, 0))
  digit = Digits()[int(batch['index'][3])]
  restored = np.rint((batch['image'][3] + 1) * 127.5)
  np.testing.assert_array_equal(restored, digit['image'])


def test_order_is_a_function_of_the_position():
  order = Order(10, seed=4)
  far = order(np.arange(95, 105))
  fresh = Order(10, seed=4)
  np.testing.assert_array_equal(fresh(np.arange(100, 105)), far[5:])
  assert sorted(fresh(np.arange(90, 100))) == list(range(10))
