"""`arvision <command>`: finds the command and explains what goes wrong."""

import ast
import difflib
import importlib
import os
import pathlib
import signal
import sys
import traceback

DEBUG = '--debug'
# Modules beside this one that are no commands have no function `main`.
_FOLDER = pathlib.Path(__file__).parent


def run() -> None:
  """The entry point of the console script."""
  try:
    code = main(sys.argv[1:])
    sys.stdout.flush()
  except BrokenPipeError:
    # Nobody reads on (`| head`); what is left in the buffer has no reader too.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = 128 + signal.SIGPIPE
  sys.exit(code)


def main(argv: list[str]) -> int:
  """Runs a command.

  Args:
    argv: the command and its flags; `--debug` anywhere shows tracebacks.

  Returns:
    The exit code: what the command says (0 without a word); 2 for a config,
    data, files or flags that cannot be used; 1 for a run that diverged, too
    little memory, or a fault of ours.

  Raises:
    BrokenPipeError: nobody reads what is printed.
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
  if not argv or argv[0] in ('-h', '--help', 'help'):
    print(usage(known))
    return 0 if argv else 2
  name, *rest = argv
  if name not in known:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ''
    return _fail(
      f'no command {name!r}.{hint} There are: {", ".join(known)}.', 2
    )
  module = importlib.import_module(f'arvision.commands.{name}')
  return module.main(rest) or 0


def commands() -> dict[str, str]:
  """name -> first line of its docstring, without importing anything."""
  found = {}
  for path in sorted(_FOLDER.glob('*.py')):
    if path.stem in ('main', 'common'):
      continue
    tree = ast.parse(path.read_text(encoding='utf-8'))
    functions = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
    if 'main' in functions:
      found[path.stem] = (ast.get_docstring(tree) or '').split('\n')[0]
  return found


def usage(known: dict[str, str]) -> str:
  """The text of `arvision --help`."""
  width = max(map(len, known), default=0)
  lines = [f'  {name:<{width}}  {line}' for name, line in known.items()]
  return '\n'.join(
    [
      'usage: arvision <command> [flags]',
      '',
      *lines,
      '',
      "The flags of a command: 'arvision <command> --help'. With --debug an error "
      'shows its traceback.',
    ]
  )


def _fail(text, code):
  # One line, whatever is in it.
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  ends = (':', '.', ',', ';')
  text = ' '.join(x if x.endswith(ends) else f'{x};' for x in lines)
  print(f'arvision: error: {text.removesuffix(";")}', file=sys.stderr)
  return code
