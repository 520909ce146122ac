"""Restarts after a crash, the watchdog, and the account of a run's time."""

import json
import signal
import subprocess
import sys
import threading
import time

import pytest

from arvision.runs.supervise import Supervisor
from arvision.training.events import Account, account

# Notes its start, adds a checkpoint where the plan says so, and ends with its code.
PLANNED = """
import json, os, pathlib, signal, sys
folder = pathlib.Path(sys.argv[1])
starts = folder / 'starts'
n = len(starts.read_text()) if starts.exists() else 0
starts.write_text('x' * (n + 1))
code, saves = json.loads(sys.argv[2])[n]
if saves:
  (folder / 'checkpoints' / str(n + 1)).mkdir(parents=True)
if code < 0:
  os.kill(os.getpid(), -code)
sys.exit(code)
"""
HANGS = """
import pathlib, sys, time
from arvision.training.watchdog import Watchdog
seconds, what, rest = float(sys.argv[1]), sys.argv[2], float(sys.argv[3])
with Watchdog(seconds, lambda why: print('noted', why, flush=True)) as dog:
  for step in range(5):
    dog.waits(f'step {step}')
    time.sleep(0.05)
  if what == 'rests':
    dog.rests()
  print('here', flush=True)
  time.sleep(rest)
print('end')
"""
KILLED = 128 + signal.SIGKILL


def supervised(tmp_path, plan, restarts):
  command = [sys.executable, '-c', PLANNED, str(tmp_path), json.dumps(plan)]
  found = Supervisor(command, tmp_path, restarts, first_pause=0.01)
  return found.run(), found.starts


@pytest.mark.parametrize(
  'plan, restarts, wanted',
  [
    ([(-9, True), (1, True), (0, True)], 1, (0, 3)),
    # Starts that add a checkpoint do not count.
    ([(1, True), (1, False), (1, True), (1, False), (0, False)], 1, (0, 5)),
    ([(1, True), (1, False), (-9, False)], 1, (KILLED, 3)),
    ([(2, False)], 5, (2, 1)),  # a config that cannot be used
  ],
)
def test_a_training_starts_again_while_it_gets_further(
  tmp_path, plan, restarts, wanted
):
  assert supervised(tmp_path, plan, restarts) == wanted


def test_a_signal_ends_the_training_and_its_supervisor(tmp_path):
  script = f"""
import sys
from arvision.runs.supervise import Supervisor
sleep = 'import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); '
sleep += 'time.sleep(60)'
command = [sys.executable, '-c', sleep, {str(tmp_path / 'on')!r}]
sys.exit(Supervisor(command, {str(tmp_path)!r}, 5).run())
"""
  process = subprocess.Popen([sys.executable, '-c', script])
  while not (tmp_path / 'on').exists():
    assert process.poll() is None
    time.sleep(0.02)
  process.terminate()
  assert process.wait(10) == 128 + signal.SIGTERM


def hanging(seconds, what='waits', rest=30):
  words = (str(seconds), what, str(rest))
  return [sys.executable, '-c', HANGS, *words]


def test_a_step_that_hangs_ends_with_all_stacks():
  done = subprocess.run(hanging(0.4), capture_output=True, text=True)
  assert done.returncode == 1
  assert 'here' in done.stdout and 'end' not in done.stdout
  assert 'noted step 4' in done.stdout
  assert 'step 4 has taken' in done.stderr
  assert 'config.watchdog.seconds=0.4' in done.stderr
  assert 'File "<string>"' in done.stderr
  for command in (hanging(0, rest=1), hanging(0.4, 'rests', rest=1)):
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, '')


class Noted(Supervisor):
  """Notes where its heartbeat lies."""

  heartbeat = None

  def _start(self, heartbeat):
    self.heartbeat = heartbeat
    return super()._start(heartbeat)


def test_a_stopped_process_is_continued_and_ends(tmp_path, capfd):
  command = hanging(1)
  found = Noted(command, tmp_path, 0, patience=1.5, first_pause=0.01)

  def stop():
    while found.heartbeat is None or not found.heartbeat.exists():
      time.sleep(0.01)
    found._process.send_signal(signal.SIGSTOP)

  stopper = threading.Thread(target=stop)
  stopper.start()
  assert found.run() == 1
  stopper.join()
  said = capfd.readouterr().err
  assert 'no sign of life' in said and 'step 4 has taken' in said


def test_the_account_of_a_run():
  start = lambda step, time: {'event': 'start', 'step': step, 'time': time}
  save = lambda step, time, worked: {
    'event': 'save',
    'step': step,
    'time': time,
    'worked': worked,
  }
  end = lambda *facts, why: {**save(*facts), 'event': 'end', 'why': why}
  events = [
    start(0, 100.0),
    save(10, 115.0, 12.0),
    save(20, 130.0, 24.0),  # never complete: the next one goes on from 10
    start(10, 140.0),
    save(20, 152.0, 11.0),
    end(24, 160.0, 15.0, why='stopped'),
    start(24, 1000.0),  # nothing is lost in a pause
  ]
  # (140 - 100) + (160 - 140) + 30 s, of which 12 + 15 s count.
  assert account(events, 1030.0) == Account(90.0, 27.0, 3, 1)
  assert account(events[:5], 160.0) == Account(60.0, 23.0, 2, 1)
  assert account([], 0.0).goodput == 0.0
