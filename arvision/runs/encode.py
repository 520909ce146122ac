"""Encodes a data set with the tokenizer of a run."""

import pathlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from arvision.data.latents import write_tokens
from arvision.runs import measure
from arvision.training.frozen import fingerprint


def encode(
  run: Any, output: pathlib.Path, views: str, batch_size: int, shards: int
) -> dict[str, int]:
  """Encodes both splits of a run's data.

  Args:
    run: run with the tokenizer and the data.
    output: a new or empty folder.
    views: name of `VIEWS` for training images; held-out images are centre
      crops.
    batch_size: views per call.
    shards: files per split.

  Returns:
    split -> number of examples.

  Raises:
    DataError: the folder is not empty, or the images cannot be read.
  """
  data, description = measure.images_of(run)
  spec = run.tokenizer.spec
  facts = {
    'classes': list(data.classes),
    'shape': list(data.shape),
    'views': views,
    'data': description,
    'tokenizer': {
      'config': measure.plain(run.config.tokenizer),
      'step': int(run.step),
      'ema': run.ema,
      'fingerprint': fingerprint(run.variables),
      'grids': [list(grid) for grid in spec.grids],
      'size': spec.size,
      'parts': spec.parts,
    },
  }
  count = {'center': 1, 'flip': 2, 'ten_crop': 10}[views]
  images = max(1, batch_size // count)

  def examples():
    batches = data.train_pass(images, views=views)
    yield from _examples(run, batches, False, data.examples)
    if data.held_out_examples:
      # The same number of views per call: both splits share one program.
      batches = data.held_out(images * count, views='center')
      yield from _examples(run, batches, True, data.held_out_examples)

  counts = write_tokens(str(output), facts, examples(), shards)
  if data.broken.count:
    print(f'{data.broken.count} broken images were left out')
  return counts


def _examples(run, batches, held_out, total) -> Iterator[dict[str, Any]]:
  name = 'held-out' if held_out else 'training'
  begin = reported = time.time()
  done = 0
  for batch in batches:
    image = batch['image']
    b, views = image.shape[:2]
    values = run.store(image.reshape(b * views, *image.shape[2:]))
    values = np.asarray(values)
    values = values.reshape(b, views, *values.shape[1:])
    for i in np.flatnonzero(batch['weight'] > 0):
      done += 1
      yield {
        'tokens': values[i],
        'label': int(batch['label'][i]),
        'caption': str(batch['caption'][i]),
        'index': int(batch['index'][i]),
        'held_out': held_out,
      }
    if time.time() - reported > 10:
      reported = time.time()
      speed = done / (reported - begin)
      print(f'{done} of {total} {name} images, {speed:.0f} images/s')
