"""Images per second of the Inception network of FID, ours and PyTorch's.

    python -m benchmarks.features --threads=2
    python -m benchmarks.features --json=out.json

Needs torch and torch-fidelity (`pip install -e '.[evals-test]'`). Ours is
`evals.inception.Inception` with the variant of torch-fidelity, whole: from
uint8 images on the host to features and logits on the host. PyTorch's is the
extractor of torch-fidelity, in the faster of its two memory layouts. Both read
one file of random weights. The three are timed in turns. `ours`, `torch` and
`last` (channels last) are images per second by the median time, `ratio` is ours
over the faster of the others. `cpu` is the same ratio of CPU times: with
--threads=1 it is robust to other load; with more threads it includes PyTorch's
busy waiting.
"""

import functools
import importlib
import pathlib
import statistics
import tempfile
from typing import Any

from benchmarks import common

COLUMNS = {
  'network': 'network:<14s',
  'side': 'px:4d',
  'batch': 'batch:5d',
  'ours': 'ours/s:7.2f',
  'torch': 'torch/s:7.2f',
  'last': 'last/s:7.2f',
  'ratio': 'ratio:6.2f',
  'cpu': 'cpu:6.2f',
  'first': '1st call s:10.1f',
}


def random_weights(path: pathlib.Path, seed: int = 0) -> None:
  """Writes a state dict of the network whose activations keep their scale."""
  import numpy as np

  from arvision.evals import inception
  from arvision.importers import files
  from arvision.importers.inception import torch_layer
  from arvision.importers.table import paths

  rng = np.random.default_rng(seed)
  found = {}
  for name, shape in paths(inception.shapes()).items():
    if not name.endswith('/kernel'):
      continue
    layer = torch_layer(name.removesuffix('/kernel'))
    for key, size in layer.shapes(shape).items():
      noise = rng.standard_normal(size, np.float32)
      if key == layer.kernel:
        found[key] = noise * np.float32(2 / np.prod(size[1:])) ** 0.5
      elif key.endswith(('bn.weight', 'running_var')):
        found[key] = np.exp(noise / 10)
      else:
        found[key] = noise / 10
  files.write(path, found)


@functools.cache
def import_torchvision() -> Any:
  """Imports torchvision, where its wheel is for GPUs and that of torch is not.

  Its operators are then missing, and it looks for two of them.
  """
  import torch

  try:
    return importlib.import_module('torchvision')
  except RuntimeError:
    library = torch.library.Library('torchvision', 'DEF')
    for name in ('nms', 'qnms'):
      library.define(f'{name}(Tensor a, Tensor b, float c) -> Tensor')
    # The definitions live as long as the library.
    return importlib.import_module('torchvision'), library


def their_network(path: pathlib.Path) -> Any:
  """torch-fidelity's extractor: uint8 (b, 3, H, W) -> pool and logits."""
  import_torchvision()
  from torch_fidelity.feature_extractor_inceptionv3 import (
    FeatureExtractorInceptionV3,
  )

  return FeatureExtractorInceptionV3(
    'inception', ['2048', 'logits_unbiased'], str(path)
  )


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
  parser = common.parser(__doc__)
  parser.add_argument('--batch', type=int, default=32, help='images per call')
  parser.add_argument('--side', type=int, default=256, help='of the images')
  args = parser.parse_args(argv)
  common.use_threads(args.threads)
  about = common.use_torch(args.threads, args.repeats)
  import numpy as np
  import torch

  from arvision.evals.inception import Inception

  if args.quick:
    args.batch, args.side, args.repeats = 1, 32, 1
  table = common.Table(COLUMNS, **about)
  shape = (args.batch, args.side, args.side, 3)
  images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  theirs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'weights.pth'
    random_weights(path)
    ours = Inception(str(path), 'torch-fidelity', batch=args.batch)
    plain, last = their_network(path), their_network(path)
    last = last.to(memory_format=torch.channels_last)

    def run(network):
      with torch.inference_mode():
        return [x.numpy() for x in network(theirs)]

    runs = {
      'ours': lambda: ours(images).pool,
      'torch': lambda: run(plain),
      'last': lambda: run(last),
    }
    timed = common.interleaved(runs, args.repeats)
  wall, cpu = (
    {
      name: args.batch / statistics.median(getattr(t, kind) for t in times)
      for name, (_, times) in timed.items()
    }
    for kind in ('wall', 'cpu')
  )
  table.add(
    network='inception-2015',
    side=args.side,
    batch=args.batch,
    ratio=wall['ours'] / max(wall['torch'], wall['last']),
    cpu=cpu['ours'] / max(cpu['torch'], cpu['last']),
    first=timed['ours'][0].wall,
    **wall,
  )
  table.save(args.json)
  return table.rows


if __name__ == '__main__':
  main()
