"""A sweep on a cluster: the scripts and command lines that run it there."""

import dataclasses
import pathlib
import shlex
import shutil
import subprocess
from collections.abc import Sequence

from arvision.errors import ConfigError
from arvision.ranges import Count, Natural
from arvision.sweeps.runs import Job, Runs


@dataclasses.dataclass(frozen=True)
class Slurm:
  """What a SLURM job of every run asks for; the flags of launch/slurm.sh.

  Attributes:
    name: of the job and of its logs.
    nodes: how many.
    gpus: of a node.
    cpus: of a node.
    time: of one sitting.
    sbatch: further options of sbatch.
    setup: command before the run.
    at_once: most runs at once; 0 for no limit.
  """

  name: str = 'arvision-sweep'
  nodes: Count = 1
  gpus: Natural = 8
  cpus: Count = 32
  time: str = '24:00:00'
  sbatch: str = ''
  setup: str = ''
  at_once: Natural = 0


def scripts(
  runs: Runs, jobs: Sequence[Job], slurm: Slurm, logs: pathlib.Path
) -> list[str]:
  """Array jobs: that of the runs that others need, then that of the rest.

  A task trains and evaluates one run. Shortly before its time is up it saves,
  ends and queues again, as in launch/slurm.sh.

  Args:
    runs: the folder.
    jobs: jobs with missing steps.
    slurm: what a task asks for.
    logs: folder of the logs; all nodes share it.
  """
  needed = {name for job in jobs for name in job.needs}
  parts = [
    [job for job in jobs if job.name in needed],
    [job for job in jobs if job.name not in needed],
  ]
  return [_script(runs, part, slurm, logs) for part in parts if part]


# Source: https://slurm.schedmd.com/job_array.html
_SCRIPT = """#!/usr/bin/env bash
#SBATCH --job-name={name}
#SBATCH --output={logs}/{name}-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --array=0-{last}{limit}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={gpus}
#SBATCH --cpus-per-task={cpus}
#SBATCH --time={time}
#SBATCH --signal=TERM@300
#SBATCH --requeue
{sbatch}{setup}export JAX_LOCAL_DEVICE_IDS={devices}
run() {{
  # A task that ended early must not take those with it that still save.
  srun --kill-on-bad-exit=0 --cpus-per-task={cpus} "$@"
  code=$?
  # 128 + SIGTERM: stopped and saved.
  if [ "$code" = 143 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
  [ "$code" = 0 ] || exit "$code"
}}
case $SLURM_ARRAY_TASK_ID in
{cases}esac
"""


def _script(runs, jobs, slurm, logs):
  cases = ''
  for i, job in enumerate(jobs):
    cases += f'{i})\n'
    for step in runs.missing(job):
      cases += f'  run arvision {shlex.join(step.words)}\n'
    cases += '  ;;\n'
  return _SCRIPT.format(
    name=slurm.name,
    logs=logs,
    last=len(jobs) - 1,
    limit=f'%{slurm.at_once}' if slurm.at_once else '',
    nodes=slurm.nodes,
    gpus=slurm.gpus,
    cpus=slurm.cpus,
    time=slurm.time,
    sbatch=f'#SBATCH {slurm.sbatch}\n' if slurm.sbatch else '',
    setup=f'{slurm.setup} || exit\n' if slurm.setup else '',
    devices=','.join(map(str, range(slurm.gpus))),
    cases=cases,
  )


def check() -> None:
  """Checks that there is a SLURM here.

  Raises:
    ConfigError: there is none.
  """
  if not shutil.which('sbatch'):
    raise ConfigError(
      "--slurm: 'sbatch' is not on PATH; --dry_run prints the jobs"
    )


def submit(texts: Sequence[str]) -> list[str]:
  """Queues array jobs, each after all tasks of the one before: their numbers.

  Raises:
    ConfigError: sbatch refuses a job.
  """
  numbers: list[str] = []
  for text in texts:
    after = [f'--dependency=afterok:{numbers[-1]}'] if numbers else []
    command = ['sbatch', '--parsable', *after]
    try:
      done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=True
      )
    except subprocess.CalledProcessError as error:
      raise ConfigError(f'--slurm: sbatch: {error.stderr.strip()}') from error
    numbers.append(done.stdout.strip().partition(';')[0])
  return numbers


def tpu_lines(
  runs: Runs, jobs: Sequence[Job], flags: Sequence[str], name: str
) -> list[str]:
  """Command lines that train every run on a TPU slice of its own.

  Args:
    runs: the folder; all workers of a slice share it.
    jobs: jobs with missing steps.
    flags: flags of launch/tpu_pod.sh.
    name: names of slices begin with it.
  """
  lines = []
  for i, job in enumerate(jobs):
    if runs.done(job, runs.training(job)):
      continue
    config, rest = job.train[0], job.train[1:]
    words = (
      *('bash', 'launch/tpu_pod.sh', f'--name={name}-{i}', *flags, config),
      *(f'--workdir={runs.folder(job.name)}', '--', *rest),
    )
    lines.append(shlex.join(words))
  return lines
