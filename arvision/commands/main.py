"""`arvision <command>`: runs a command and explains errors."""

import _thread
import ast
import contextlib
import difflib
import functools
import importlib
import os
import pathlib
import signal
import sys
import threading
import time
import traceback
from typing import Any

import arvision
from arvision import leader

DEBUG = '--debug'
# Heading -> commands, in the order of their use.
GROUPS = {
  'make pictures': ('train', 'sample', 'edit'),
  'measure': ('eval', 'report', 'compare', 'sweep', 'reference', 'scaling'),
  'data and weights': ('encode', 'latents', 'import', 'export'),
  'plan': ('plan',),
  'find your way': ('configs', 'config', 'doctor', 'completion'),
}
_START = """\
start here, with pictures after minutes on two CPU cores:
  arvision doctor
  arvision train --config=var/digits_tokenizer --workdir=runs/var/digits_tokenizer
  arvision train --config=var/digits --workdir=runs/var/digits
  arvision sample --workdir=runs/var/digits --labels=3,1,4
"""
_INTERRUPTED = 128 + signal.SIGINT
# Commands are the modules here that have a function `main`.
_FOLDER = pathlib.Path(__file__).parent


def run() -> None:
  """The entry point of the console script."""
  # Exits at once while modules are imported: nothing is written then, and
  # native code would turn a KeyboardInterrupt into other errors.
  signal.signal(signal.SIGINT, _stop)
  leader.follow()
  sys.unraisablehook = interrupt_again
  try:
    code = main(sys.argv[1:])
    sys.stdout.flush()
  except BrokenPipeError:
    # The reader has gone (`| head`), so the rest of the buffer is dropped.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = 128 + signal.SIGPIPE
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  _let_others_end(code)
  if code == _INTERRUPTED:
    # Running threads would print errors at a regular exit.
    _leave(code)
  sys.exit(code)


def interrupt_again(dropped: Any) -> None:
  """Repeats a Ctrl-C that Python dropped; a `sys.unraisablehook`.

  Python ignores what is raised in finalizers and callbacks of the garbage
  collector. JAX has such a callback, where a Ctrl-C would be lost.
  """
  if not issubclass(dropped.exc_type, KeyboardInterrupt):
    sys.__unraisablehook__(dropped)
    return
  # Later, since this function is called from where exceptions are ignored.
  again = threading.Timer(0.05, _thread.interrupt_main)
  again.daemon = True
  again.start()


def _stop(number, frame):
  del number, frame
  _fail('interrupted', _INTERRUPTED)
  _leave(_INTERRUPTED)


def _leave(code):
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


def main(argv: list[str]) -> int:
  """Runs a command.

  Args:
    argv: the command and its flags; `--debug` anywhere prints tracebacks.

  Returns:
    The exit code: that of the command (0 for None); 2 for a config, data, files
    or flags that cannot be used; 1 for a run that diverged, too little memory,
    or an internal error.

  Raises:
    BrokenPipeError: the reader of the output has gone.
  """
  debug = DEBUG in argv
  try:
    return _run([word for word in argv if word != DEBUG])
  except SystemExit as end:  # of argparse, after --help
    return end.code if isinstance(end.code, int) else 2
  except BrokenPipeError:
    raise
  except (Exception, KeyboardInterrupt) as error:
    from arvision.commands import faults  # it imports JAX

    if debug:
      traceback.print_exc()
    return _fail(*faults.explain(error, [] if debug else argv))


def _run(argv: list[str]) -> int:
  known = commands()
  if not argv or argv[0] in ('-h', '--help'):
    print(usage(known))
    return 0 if argv else 2
  if argv[0] == '--version':
    print(f'arvision {arvision.__version__}')
    return 0
  name, *rest = argv
  if name == 'help':  # `arvision help train` is `arvision train --help`
    if not rest:
      return _run(['--help'])
    name, rest = rest[0], ['--help']
  if name not in known:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ''
    return _fail(
      f'no command {name!r}.{hint} There are: {", ".join(known)}.', 2
    )
  module = importlib.import_module(f'arvision.commands.{name}')
  if signal.getsignal(signal.SIGINT) is _stop:
    signal.signal(signal.SIGINT, signal.default_int_handler)
  with contextlib.ExitStack() as stack:
    if any('://' in word for word in rest):
      from arvision.runs import command_urls

      rest = command_urls.local_words(rest, stack, name)
    return module.main(rest) or 0


def _let_others_end(code):
  """Ends a failed process at once, so that the other processes end too.

  At a regular exit JAX waits five minutes for the others, which wait for this
  one. Process 0 ends last: the others die with it, and could not print their
  errors.
  """
  jax = sys.modules.get('jax')
  if code in (1, 2, 130) and jax and jax.distributed.is_initialized():
    time.sleep(2 if jax.process_index() else 4)
    _leave(code)


@functools.cache
def commands() -> dict[str, str]:
  """name -> first line of the docstring of every command; imports nothing."""
  found = {}
  for path in sorted(_FOLDER.glob('*.py')):
    if path.stem == 'main':
      continue
    tree = ast.parse(path.read_text(encoding='utf-8'))
    functions = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
    if 'main' in functions:
      found[path.stem] = (ast.get_docstring(tree) or '').split('\n')[0]
  return found


def usage(known: dict[str, str]) -> str:
  """The text of `arvision --help`."""
  width = max(map(len, known), default=0)
  grouped = {name for names in GROUPS.values() for name in names}
  others = tuple(name for name in known if name not in grouped)
  lines = ['usage: arvision <command> [flags]', '']
  for heading, names in {**GROUPS, 'more': others}.items():
    found = [name for name in names if name in known]
    if found:
      lines += [heading, *(f'  {n:<{width}}  {known[n]}' for n in found), '']
  return '\n'.join(
    [
      *lines,
      _START,
      'arvision <command> --help lists the flags of a command, with examples',
      'arvision --version prints the version; --debug shows tracebacks of errors',
    ]
  )


def _fail(text, code):
  if found := sys.modules.get('arvision.runs.command_urls'):
    text = found.with_urls(text)
  # Joins the lines of a message.
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  ends = (':', '.', ',', ';')
  text = ' '.join(x if x.endswith(ends) else f'{x};' for x in lines)
  print(f'arvision: error: {text.removesuffix(";")}', file=sys.stderr)
  return code
