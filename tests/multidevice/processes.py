"""Starts several processes on this machine, each as a separate host."""

import os
import pathlib
import socket
import subprocess
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).parents[2]


def start(
  program: Sequence[str], count: int, devices: int
) -> list[subprocess.Popen]:
  """Starts a program `count` times, to be joined by `host.initialize`.

  Args:
    program: and its arguments.
    count: processes.
    devices: fake ones of every process.

  Returns:
    the processes, their stdout in a pipe.
  """
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  env = {
    **os.environ,
    'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} '
    f'--xla_force_host_platform_device_count={devices}',
    'JAX_PLATFORMS': 'cpu',
  }
  if count > 1:
    env |= {'JAX_COORDINATOR_ADDRESS': address, 'JAX_NUM_PROCESSES': str(count)}
  started = []
  for i in range(count):
    own = {'JAX_PROCESS_ID': str(i)} if count > 1 else {}
    started.append(
      subprocess.Popen(
        program,
        cwd=ROOT,
        env={**env, **own},
        stdout=subprocess.PIPE,
        text=True,
      )
    )
  return started


def wait(
  started: list[subprocess.Popen], timeout: float = 600, code: int = 0
) -> list[str]:
  """What the processes printed; all of them must end with an exit code."""
  try:
    texts = [process.communicate(timeout=timeout)[0] for process in started]
  finally:
    for process in started:
      process.kill()
  codes = [process.returncode for process in started]
  assert codes == [code] * len(started), codes
  return texts


def run(program: Sequence[str], count: int, devices: int) -> list[str]:
  """Starts the processes and waits for them."""
  return wait(start(program, count, devices))
