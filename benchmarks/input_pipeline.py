"""Images per second of the data pipeline, and an upper bound.

    python -m benchmarks.input_pipeline
    python -m benchmarks.input_pipeline --threads=2 --json=out.json

Writes a folder of JPEGs of about 500 x 375 px. Rows:

    decoder   Pillow alone, with one thread per core: opens, decodes, resizes, crops
              256 px and converts to float32
    images    `data.pipeline.Images` over `data.folder.Folder`: the same work with
              shuffling and batches
    fast      the same with simplejpeg, if it is installed
    tokens    `data.latents.CachedTokens`, 256 codes each, ten views

`share` is images/s over those of `decoder`; the rows are timed in turns. `cpu
ms` is CPU time of this process per image, which other load hardly changes. The
files are in the page cache: the disk is not measured.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from PIL import Image

from benchmarks import common

COLUMNS = {
  'row': 'row:<10s',
  'threads': 'threads:7d',
  'workers': 'workers:7d',
  'batch': 'batch:6d',
  'per_second': 'images/s:10.0f',
  'share': 'share:6.2f',
  'cpu_ms': 'cpu ms:7.3f',
}


@dataclasses.dataclass(frozen=True)
class Sizes:
  """The amount of work.

  Attributes:
    files: number of JPEGs.
    side: side of the crops in pixels.
    batch: images per batch.
    batches: batches per timing.
    tokens: examples of cached tokens.
  """

  files: int = 400
  side: int = 256
  batch: int = 64
  batches: int = 8
  tokens: int = 20_000


QUICK = Sizes(files=24, side=32, batch=8, batches=2, tokens=64)


def picture(rng: np.random.Generator) -> Image.Image:
  """Smooth colours with noise: its JPEG is about as large as a photograph's."""
  height, width = 375 + rng.integers(-40, 40), 500 + rng.integers(-40, 40)
  coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
  smooth = Image.fromarray(coarse).resize((width, height), 3)
  noise = rng.normal(0, 12, (height, width, 3))
  array = np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)
  return Image.fromarray(array)


def write_pictures(root: pathlib.Path, count: int) -> None:
  """Writes a folder of two classes."""
  rng = np.random.default_rng(0)
  for i in range(count):
    folder = root / f'class_{i % 2}'
    folder.mkdir(parents=True, exist_ok=True)
    picture(rng).save(folder / f'{i:05d}.jpg', quality=90)


def write_codes(root: pathlib.Path, count: int) -> None:
  """Writes cached tokens of `count` images, ten views of 256 codes."""
  from arvision.data.latents import write_tokens

  rng = np.random.default_rng(0)
  examples = (
    {
      'tokens': rng.integers(0, 16384, (10, 256), np.int32),
      'label': i % 1000,
      'index': i,
    }
    for i in range(count)
  )
  classes = [str(i) for i in range(1000)]
  write_tokens(
    str(root), {'classes': classes, 'shape': (256, 256, 3)}, examples, shards=4
  )


def decode_alone(path: pathlib.Path, side: int) -> np.ndarray:
  """Decodes a picture with Pillow alone: (side, side, 3) float32."""
  with Image.open(path) as image:
    image = image.convert('RGB')
    scale = side / min(image.size)
    size = tuple(max(side, round(n * scale)) for n in image.size)
    image = image.resize(size, Image.Resampling.LANCZOS)
    left, top = ((n - side) // 2 for n in image.size)
    array = np.asarray(image.crop((left, top, left + side, top + side)))
  return array / np.float32(127.5) - np.float32(1)


class Rate(NamedTuple):
  """Images per second, and milliseconds of CPU time per image."""

  per_second: float
  cpu_ms: float


def rate(count: int, wall: float, cpu: float) -> Rate:
  """The rate since `perf_counter` was `wall` and `process_time` was `cpu`."""
  wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
  return Rate(count / wall, 1e3 * cpu / count)


def best(rates: list[Rate]) -> dict[str, float]:
  """The best of each figure."""
  speed = max(r.per_second for r in rates)
  return {'per_second': speed, 'cpu_ms': min(r.cpu_ms for r in rates)}


def decoder(paths: list[pathlib.Path], sizes: Sizes, cores: int) -> Rate:
  """`decode_alone` in threads."""
  count = sizes.batch * sizes.batches
  chosen = [paths[i % len(paths)] for i in range(count)]
  with concurrent.futures.ThreadPoolExecutor(cores) as pool:
    clocks = time.perf_counter(), time.process_time()
    for _ in pool.map(lambda path: decode_alone(path, sizes.side), chosen):
      pass
    return rate(count, *clocks)


def pipeline(make: Callable[[], Iterator[Any]], sizes: Sizes) -> Rate:
  """The rate of an endless iterator, after its prefetch buffer is full."""
  batches = make()
  ahead = 4
  for _ in range(ahead):
    next(batches)
  clocks = time.perf_counter(), time.process_time()
  for _ in range(sizes.batches):
    next(batches)
  reached = rate(sizes.batch * sizes.batches, *clocks)
  batches.close()
  return reached


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
  parser = common.parser(__doc__)
  args = parser.parse_args(argv)
  common.use_threads(args.threads)
  from absl import flags

  from arvision.data import jpeg
  from arvision.data.folder import Folder
  from arvision.data.latents import CachedTokens
  from arvision.data.pipeline import Images

  flags.FLAGS.mark_as_parsed()  # Grain reads one in its worker processes
  sizes = QUICK if args.quick else Sizes()
  table = common.Table(COLUMNS)
  cores = common.hardware()['cores']
  with tempfile.TemporaryDirectory() as name:
    root = pathlib.Path(name)
    write_pictures(root / 'pictures', sizes.files)
    write_codes(root / 'tokens', sizes.tokens)
    paths = sorted((root / 'pictures').glob('*/*.jpg'))
    np.random.default_rng(0).shuffle(paths)

    def images(threads, workers):
      data = Images(
        source=Folder(str(root / 'pictures')),
        size=(sizes.side, sizes.side),
        batch_size=sizes.batch,
        held_out_share=0.0,
        threads=threads,
        workers=workers,
      )
      return data.train(sizes.batch, seed=0)

    def tokens():
      data = CachedTokens(str(root / 'tokens'), batch_size=sizes.batch)
      return data.train(sizes.batch, seed=0)

    settings = [(cores, 0), (2 * cores, 0)]
    if not args.quick:
      settings.append((1, cores))
    fast = jpeg.package() is not None
    for threads, workers in settings:
      alone: list[Rate] = []
      make = functools.partial(images, threads, workers)
      both = fast and not workers  # workers see no patch
      names = ['images', 'fast'] if both else ['fast' if fast else 'images']
      ours: dict[str, list[Rate]] = {name: [] for name in names}
      for _ in range(args.repeats):
        alone.append(decoder(paths, sizes, cores))
        for name, rates in ours.items():
          with contextlib.ExitStack() as stack:
            if name == 'images':
              stack.enter_context(
                mock.patch.object(jpeg, 'package', lambda: None)
              )
            rates.append(pipeline(make, sizes))
      limit = best(alone)
      table.add(row='decoder', threads=cores, workers=0, batch=1, **limit)
      for row, rates in ours.items():
        reached = best(rates)
        if workers:
          del reached['cpu_ms']  # spent in other processes
        table.add(
          row=row,
          threads=threads,
          workers=workers,
          batch=sizes.batch,
          share=reached['per_second'] / limit['per_second'],
          **reached,
        )
    many = dataclasses.replace(sizes, batches=25 * sizes.batches)
    reached = best([pipeline(tokens, many) for _ in range(args.repeats)])
    table.add(row='tokens', threads=2, workers=0, batch=sizes.batch, **reached)
  table.save(args.json)
  return table.rows


if __name__ == '__main__':
  main()
