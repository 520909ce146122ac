"""Start-up time of a run: compilation, and the first step.

    python -m benchmarks.compile
    python -m benchmarks.compile --json=out.json

Every row is a separate process, cold with an empty compilation cache and warm
with the cache of the cold process:

    step      tracing and compiling the train step of a config
    process   the first training of `launch/quickstart.sh`, from the start of the
              process to its end after one step: imports, data, the first
              pictures, the step and a checkpoint. The first step itself is
              earlier.

The cache and the run are in a temporary folder.
"""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks import common

COLUMNS = {
  'row': 'row:<8s',
  'config': 'config:<21s',
  'cache': 'cache:<5s',
  'trace': 'trace s:8.2f',
  'compile': 'compile s:10.2f',
  'seconds': 'seconds:8.2f',
}
CONFIGS = (
  'var.digits',
  'llamagen.digits',
  'var.imagenet256',
  'llamagen.imagenet256',
)


def compile_step(name: str, quick: bool) -> dict[str, float]:
  """Traces and compiles a train step in this process, without running it."""
  import jax

  from benchmarks import ours

  if quick:
    name = f'{name.split(".")[0]}.tiny'
  module = importlib.import_module(f'arvision.configs.{name}')
  config = module.get_config().copy_and_resolve_references()
  if config.condition.classes is None:
    with config.unlocked():
      config.condition.classes = 10
  function, args = ours.training(config, batch=2, shapes=True)
  start = time.perf_counter()
  lowered = jax.jit(function, donate_argnums=0).lower(*args)
  traced = time.perf_counter()
  lowered.compile()
  return {
    'trace': traced - start,
    'compile': time.perf_counter() - traced,
  }


def process(command: list[str], cache: str) -> tuple[str, float]:
  """The output of a Python process, and the seconds it takes."""
  environment = {
    **os.environ,
    'JAX_COMPILATION_CACHE_DIR': cache,
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  }
  start = time.perf_counter()
  done = subprocess.run(
    [sys.executable, *command],
    env=environment,
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  )
  return done.stdout, time.perf_counter() - start


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
  parser = common.parser(__doc__)
  parser.add_argument(
    '--step', help='compile this config here and print how long'
  )
  args = parser.parse_args(argv)
  common.use_threads(args.threads)
  if args.step:
    print(json.dumps(compile_step(args.step, args.quick)))
    return []
  table = common.Table(COLUMNS)
  for name in CONFIGS[:1] if args.quick else CONFIGS:
    with tempfile.TemporaryDirectory() as cache:
      command = ['-m', 'benchmarks.compile', f'--step={name}']
      command += ['--quick'] if args.quick else []
      for state in ('cold', 'warm'):
        printed, seconds = process(command, cache)
        times = json.loads(printed.splitlines()[-1])
        table.add(
          row='step', config=name, cache=state, seconds=seconds, **times
        )
  with tempfile.TemporaryDirectory() as folder:
    for state in ('cold', 'warm'):
      workdir = pathlib.Path(folder) / state
      command = ['-m', 'arvision', 'train', f'--workdir={workdir}']
      command += ['--config=configs/var/digits_tokenizer.py', '--stop_at=1']
      _, seconds = process(command, str(pathlib.Path(folder) / 'cache'))
      table.add(
        row='process',
        config='var.digits_tokenizer',
        cache=state,
        seconds=seconds,
      )
  table.save(args.json)
  return table.rows


if __name__ == '__main__':
  main()
