"""Scripts that complete command lines in shells.

Commands and flags are read from the source of the commands, so that a shell
starts without importing JAX.
"""

import ast
import dataclasses
import functools
import pathlib

from arvision import catalog
from arvision.commands import main

_FOLDER = pathlib.Path(__file__).parent
# Flags and arguments whose values are names of configs.
CONFIGS = ('--config', '--diff', 'config')


@dataclasses.dataclass(frozen=True)
class Option:
  """A flag, or an argument without dashes.

  Attributes:
    name: '--workdir', or 'shell'.
    valued: whether it has a value.
    choices: values, where they stand beside the flag in the source.
  """

  name: str
  valued: bool
  choices: tuple[str, ...]


@functools.cache
def _module(name: str) -> ast.Module:
  path = _FOLDER / f'{name}.py'
  return ast.parse(path.read_text(encoding='utf-8'))


def options(command: str) -> list[Option]:
  """The flags and arguments of a command, in the order of the source."""
  found = _options(command, 'parser')
  return list({option.name: option for option in found}.values())


def _options(module, function):
  """The options that a function adds, and those of what it calls."""
  tree = _module(module)
  (body,) = (
    node
    for node in tree.body
    if isinstance(node, ast.FunctionDef) and node.name == function
  )
  calls = [node for node in ast.walk(body) if isinstance(node, ast.Call)]
  for call in sorted(calls, key=lambda call: call.lineno):
    target = call.func
    if isinstance(target, ast.Attribute) and target.attr == 'add_argument':
      yield from _added(call, tree)
    elif isinstance(target, ast.Attribute):
      owner = getattr(target.value, 'id', None)
      if owner in ('common', 'run_flags'):
        yield from _options(owner, target.attr)
    elif isinstance(target, ast.Name) and target.id.startswith('add_'):
      yield from _options(module, target.id)


def _added(call, tree):
  """The options of a call of `add_argument`."""
  words = {keyword.arg: keyword.value for keyword in call.keywords}
  action = words.get('action')
  valued = getattr(action, 'value', '') != 'store_true'
  if isinstance(action, ast.Attribute):  # BooleanOptionalAction
    valued = False
  choices = _strings(words.get('choices'), tree)
  for name in call.args:
    if isinstance(name, ast.Constant) and name.value != '--config.KEY':
      yield Option(str(name.value), valued, choices)
      if isinstance(action, ast.Attribute):
        yield Option(str(name.value).replace('--', '--no-', 1), False, ())


def _strings(node, tree) -> tuple[str, ...]:
  """The strings of a tuple, or of a tuple that the module names."""
  if isinstance(node, ast.Name):
    values = [
      line.value
      for line in tree.body
      if isinstance(line, ast.Assign)
      and getattr(line.targets[0], 'id', None) == node.id
    ]
    node = values[0] if values else None
  if isinstance(node, ast.Tuple):
    return tuple(x.value for x in node.elts if isinstance(x, ast.Constant))
  return ()


def _cases(form: str) -> tuple[str, str]:
  """Cases of a shell: the flags of every command, the choices of every flag.

  Args:
    form: how a list is written, '"{}"' or '({})'.
  """
  flags, choices = [], []
  for command in main.commands():
    known = [o for o in options(command) if o.name.startswith('-')]
    words = ' '.join(o.name + '=' * o.valued for o in known)
    flags.append(f'    {command}) flags={form.format(words)} ;;')
    for o in known:
      if o.choices:
        words = form.format(' '.join(o.choices))
        choices.append(f'    {command}:{o.name}) values={words} ;;')
  return '\n'.join(flags), '\n'.join(choices)


def _bash() -> str:
  """A function that reads the word, and the flag before it."""
  flags, choices = _cases('"{}"')
  commands = ' '.join([*main.commands(), '--help', '--version'])
  return f"""\
# Completion of arvision for bash.
_arvision() {{
  local cur=$2 flag= flags= values= at=$((COMP_CWORD - 1))
  local command=${{COMP_WORDS[1]}}
  # '=' is a word of its own here.
  [ "${{COMP_WORDS[COMP_CWORD]}}" = = ] && cur= && at=$COMP_CWORD
  [ "${{COMP_WORDS[at]}}" = = ] && at=$((at - 1))
  [ "$at" -gt 0 ] && flag=${{COMP_WORDS[at]}}
  COMPREPLY=()
  if [ "$COMP_CWORD" = 1 ]; then
    COMPREPLY=($(compgen -W "{commands}" -- "$cur"))
    return
  fi
  case $command in
{flags}
  esac
  case $command:$flag in
    *:--config | *:--diff | config:config) values="{_configs()}" ;;
    completion:completion) values="{' '.join(SCRIPTS)}" ;;
{choices}
  esac
  case $cur in
    -*)
      COMPREPLY=($(compgen -W "$flags" -- "$cur"))
      case ${{COMPREPLY[0]-}} in *=) compopt -o nospace ;; esac
      ;;
    # Names of files complete what has no values, by -o default.
    *) COMPREPLY=($(compgen -W "$values" -- "$cur")) ;;
  esac
}}
complete -o default -F _arvision arvision"""


def _zsh() -> str:
  """A function of the completion system that `compinit` starts."""
  flags, choices = _cases('({})')
  about = '\n'.join(
    f'    {name}:{_quoted(text.rstrip("."))}'
    for name, text in main.commands().items()
  )
  return f"""\
#compdef arvision
# Completion of arvision for zsh.
_arvision() {{
  local flag=${{words[CURRENT-1]}} command=${{words[2]}}
  local -a commands flags values
  commands=(
{about}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  case $command in
{flags}
  esac
  case $PREFIX in --*=*) flag=${{PREFIX%%=*}}; compset -P 1 '*=' ;; esac
  case $command:$flag in
    *:--config | *:--diff | config:config) values=({_configs()}) ;;
    completion:completion) values=({' '.join(SCRIPTS)}) ;;
{choices}
  esac
  if [[ $PREFIX == -* ]]; then
    compadd -S '' -- ${{(M)flags:#*=}}
    compadd -- ${{flags:#*=}}
  elif (( $#values )); then
    compadd -- $values
  else
    _files
  fi
}}
compdef _arvision arvision"""


def _fish() -> str:
  """A line for every command and flag."""
  lines = ['# Completion of arvision for fish.', 'complete -c arvision -f']
  for command, text in main.commands().items():
    lines.append(
      f'complete -c arvision -n __fish_use_subcommand -a {command} '
      f'-d {_quoted(text.rstrip("."))}'
    )
    seen = f"-n '__fish_seen_subcommand_from {command}'"
    for option in options(command):
      values = ' '.join(option.choices)
      if option.name in CONFIGS:
        values = _configs()
      chosen = f" -x -a '{values}'" if values else ' -r -F' * option.valued
      if option.name.startswith('--'):
        name = option.name.removeprefix('--')
        lines.append(f'complete -c arvision {seen} -l {name}{chosen}')
      elif values:
        lines.append(f"complete -c arvision {seen} -a '{values}'")
  return '\n'.join(lines)


def _configs() -> str:
  return ' '.join(catalog.names())


def _quoted(text: str) -> str:
  """Text in single quotes, for zsh and fish."""
  return "'" + text.replace("'", '’') + "'"


SCRIPTS = {'bash': _bash, 'zsh': _zsh, 'fish': _fish}


def script(shell: str) -> str:
  """The script for a shell, a key of `SCRIPTS`."""
  return SCRIPTS[shell]()
