"""Ends a process when the one that started it dies."""

import ctypes
import os
import signal
import sys

# The number of the process that starts others and waits for them.
LEADER = 'ARVISION_LEADER'
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def environment() -> dict[str, str]:
  """The variables of a process that is to end with this one."""
  return {LEADER: str(os.getpid())}


def follow() -> None:
  """Asks Linux for SIGTERM when the leader dies, so that a training saves.

  Does nothing in a process without a leader, and on other systems.
  """
  leader = os.environ.pop(LEADER, '')
  if not leader or sys.platform != 'linux':
    return
  ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM)
  if str(os.getppid()) != leader:  # it died before
    os.kill(os.getpid(), signal.SIGTERM)
