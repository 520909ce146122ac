#!/usr/bin/env bash
# Sets up a virtual environment and runs lint, types and tests.
#
#   bash launch/test.sh            everything that CI runs
#   VENV=~/envs/arvision bash launch/test.sh     keep the environment elsewhere
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=${VENV:-.venv-test}
PYTHON=${PYTHON:-python3}

[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[dev]'

# Some forty processes import the library: each would compile its source again.
unset PYTHONDONTWRITEBYTECODE
# Programs that two test files share are compiled once.
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$PWD/.cache/jax}
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0

echo '== lint'
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
echo '== types'
"$VENV/bin/mypy"
echo '== tests'
# Two at a time; a file stays with one process, which shares what it trains. As they
# are collected: long files come first, and no process waits for the last of them.
"$VENV/bin/python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
  -m 'not slow' "$@" tests
