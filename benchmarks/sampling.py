"""Sampling throughput of VAR: transformer and decoder on rows of their own.

    python benchmarks/sampling.py
    python benchmarks/sampling.py --only=digits --repeats=10
    python benchmarks/sampling.py --json=out.json

Two models with random weights, in the compute dtype of their configs: the digits
VAR, float32, and one of the size of VAR-d16 at 256 px with batch 1 and 8, whose
transformer computes in bfloat16. Every row is one compiled program; the
time is the best of the repeats, compilation is reported apart. A matmul peak,
measured in the same run, stands beside every row, since a throughput without
it says little on a shared machine.
"""

import argparse
import functools
import json
import os
import platform
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arvision.build import build
from arvision.configs.digits import var as digits
from arvision.configs.var import imagenet256
from arvision.model import sample
from arvision.structs import Draw, Tokens
from arvision.tasks import assemble


def random_like(shapes, std=0.02):
  """Host arrays of the given shapes; one row of numbers, repeated."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda s: rng.standard_normal(s.shape, np.float32) * std, shapes
  )


def best(run, repeats):
  """Seconds of the first call, and of the best of the others."""
  start = time.perf_counter()
  jax.block_until_ready(run())
  first = time.perf_counter() - start
  times = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(run())
    times.append(time.perf_counter() - start)
  return first, min(times)


def matmul_peak(size=2048, repeats=5):
  """GFLOP/s of a square float32 matmul."""
  x = jnp.ones((size, size), jnp.float32)
  f = jax.jit(jnp.matmul)
  _, seconds = best(lambda: f(x, x), repeats)
  return 2 * size**3 / seconds / 1e9


def rows(name, config, batches, repeats):
  """Transformer and decoder rows of one config."""
  model = assemble.make_model(config)
  tokenizer = assemble.make_tokenizer(config)
  sampler = build(config.sampler, 'sampler')
  shape = (*config.data.size, config.data.channels)
  key = jax.random.key(0)
  frozen = random_like(
    nn.unbox(
      jax.eval_shape(tokenizer.init, key, jnp.zeros((1, *shape), jnp.float32))
    )
  )
  tokens = Tokens(jnp.zeros((1, model.layout.tokens), jnp.int32))
  label = {'label': jnp.zeros((1,), jnp.int32)}

  def init(key):
    codec = tokenizer.bind(frozen)
    draw = Draw.create(0, jnp.arange(1))
    return model.init(
      key, tokens, label, draw, codec, train=False, method='loss'
    )

  params = random_like(nn.unbox(jax.eval_shape(init, key))['params'])
  params, frozen = jax.device_put((params, frozen))

  @jax.jit
  def transformer(params, frozen, labels, index):
    codec = tokenizer.bind(frozen)
    draw = Draw.create(0, index)
    return sample(model, params, sampler, {'label': labels}, draw, codec).values

  @jax.jit
  def decoder(frozen, codes):
    return tokenizer.bind(frozen).decode(Tokens(codes))

  for batch in batches:
    labels = jnp.arange(batch) % config.condition.classes
    codes = jnp.zeros((batch, model.layout.tokens), jnp.int32)
    calls = {
      'transformer': (transformer, params, frozen, labels, jnp.arange(batch)),
      'decoder': (decoder, frozen, codes),
    }
    for part, (run, *args) in calls.items():
      peak = matmul_peak()
      first, seconds = best(functools.partial(run, *args), repeats)
      yield {
        'model': name,
        'part': part,
        'batch': batch,
        'images_per_second': batch / seconds,
        'seconds': seconds,
        'first_call_seconds': first,
        'matmul_peak_gflops': peak,
      }


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--only', choices=('digits', 'd16'))
  parser.add_argument('--repeats', type=int, default=3)
  parser.add_argument('--json', help='file to write the rows to')
  args = parser.parse_args()
  cases = {
    'digits': ('VAR, digits', digits.get_config(), (1, 100)),
    'd16': ('VAR-d16, 256 px', imagenet256.get_config('d16'), (1, 8)),
  }
  device = jax.devices()[0]
  machine = platform.processor() or platform.machine()
  print(
    f'{device.device_kind}, {machine}, {os.cpu_count()} cores, '
    f'jax {jax.__version__}'
  )
  print(
    f'{"model":18}{"part":13}{"batch":>6}{"images/s":>11}{"seconds":>10}'
    f'{"first call":>12}{"matmul GFLOP/s":>16}'
  )
  out = []
  for key, (name, config, batches) in cases.items():
    if args.only in (None, key):
      for row in rows(name, config, batches, args.repeats):
        out.append(row)
        print(
          f'{row["model"]:18}{row["part"]:13}{row["batch"]:6}'
          f'{row["images_per_second"]:11.2f}{row["seconds"]:10.3f}'
          f'{row["first_call_seconds"]:12.2f}'
          f'{row["matmul_peak_gflops"]:16.0f}',
          flush=True,
        )
  if args.json:
    with open(args.json, 'w', encoding='utf-8') as file:
      json.dump({'device': device.device_kind, 'rows': out}, file, indent=2)


if __name__ == '__main__':
  main()
