"""Time and memory of importing and sampling weights of released shapes.

    python -m benchmarks.released_shapes --folder=/tmp/released
    python -m benchmarks.released_shapes --folder=/tmp/released --only=var

Writes random weights with the official keys and shapes, and runs the commands
of the README on them, one process each. The cost depends on the shapes alone;
the pictures are noise. The peak is the largest resident memory of a process.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import time

from benchmarks import common

# name -> (title, config, folder of its tokenizer). MAR and xAR share KL-16.
MODELS = {
  'var': ('VAR-d16', 'var/imagenet256:d16', 'runs/var-tokenizer'),
  'llamagen': (
    'LlamaGen-B',
    'llamagen/imagenet256:B',
    'runs/llamagen-tokenizer',
  ),
  'mar': ('MAR-B', 'mar/imagenet256:B', 'runs/kl16'),
  'xar': ('xAR-B', 'xar/imagenet256:B', 'runs/kl16'),
}
TOKENIZERS = {
  'runs/var-tokenizer': 'var/tokenizer',
  'runs/llamagen-tokenizer': 'llamagen/tokenizer',
  'runs/kl16': 'mar/tokenizer',
}
COLUMNS = {
  'model': 'model:<18s',
  'work': 'work:<16s',
  'file_gb': 'file, GB:8.2f',
  'seconds': 'seconds:8.0f',
  'peak_gb': 'peak, GB:8.2f',
}


def main():
  parser = argparse.ArgumentParser(
    description=(__doc__ or '').split('\n')[0],
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument('--folder', required=True, help='for files and runs')
  parser.add_argument('--only', choices=MODELS, nargs='+', default=[*MODELS])
  parser.add_argument('--labels', default='207,980', help='as sample takes it')
  parser.add_argument('--number', type=int, default=8, help='of every label')
  parser.add_argument('--json', help='file to write the rows to')
  parser.add_argument('--make', nargs=2, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.make:
    make(*args.make)
    return
  folder = pathlib.Path(args.folder).absolute()
  folder.mkdir(parents=True, exist_ok=True)
  table = common.Table(COLUMNS, labels=args.labels, number=args.number)
  for name in args.only:
    title, config, tokenizer = MODELS[name]
    import_weights(
      table, folder, f'{title} tokenizer', TOKENIZERS[tokenizer], tokenizer
    )
    workdir = f'runs/{name}'
    import_weights(table, folder, title, config, workdir)
    seconds, peak = command(
      folder,
      'sample',
      f'--workdir={workdir}',
      f'--labels={args.labels}',
      f'--number={args.number}',
    )
    table.add(model=title, work='sample', seconds=seconds, peak_gb=peak)
  table.save(args.json)


def import_weights(table, folder, title, config, workdir) -> None:
  """Writes the weights of a config and imports them, unless that was done."""
  file = folder / f'{config.replace("/", "-").replace(":", "-")}.pth'
  if not file.exists():
    script = ('-m', 'benchmarks.released_shapes', '--folder=.')
    python(folder, *script, '--make', config, str(file))
  if (folder / workdir).exists():
    return
  seconds, peak = command(
    folder,
    'import',
    f'--config={config}',
    f'--source={file}',
    f'--workdir={workdir}',
  )
  size = file.stat().st_size / 1e9
  table.add(
    model=title, work='import', file_gb=size, seconds=seconds, peak_gb=peak
  )


def make(config: str, file: str) -> None:
  """Writes random weights with the shapes and official keys of a config."""
  from arvision.commands.common import load_config
  from arvision.importers import files
  from arvision.runs import released

  made = load_config(config)
  form = released.table_of(made)
  files.write(file, released.random_weights(made), form.wrapping)


def command(
  folder: pathlib.Path, name: str, *flags: str
) -> tuple[float, float]:
  """Runs `arvision name flags` in a folder; returns seconds and peak GB."""
  return python(folder, '-m', 'arvision', name, *flags)


def python(folder: pathlib.Path, *words: str) -> tuple[float, float]:
  """Runs Python with arguments in a folder; returns seconds and peak GB."""
  root = pathlib.Path(__file__).parents[1]
  environment = {**os.environ, 'PYTHONPATH': str(root)}
  print('$ ' + ' '.join(['python', *words]), file=sys.stderr, flush=True)
  begin = time.perf_counter()
  child = subprocess.Popen(
    [sys.executable, *words], cwd=folder, env=environment
  )
  _, status, usage = os.wait4(child.pid, 0)
  child.returncode = os.waitstatus_to_exitcode(status)
  if child.returncode:
    sys.exit(f'exit status {child.returncode}')
  # Linux counts kilobytes of 1024 bytes.
  return time.perf_counter() - begin, usage.ru_maxrss * 1024 / 1e9


if __name__ == '__main__':
  main()
