#!/usr/bin/env bash
# Builds the documentation site in docs/_build/html; a warning is an error.
#
#   bash launch/docs.sh            in an environment of its own
#   VENV=~/envs/arvision bash launch/docs.sh     keep the environment elsewhere
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=${VENV:-.venv-docs}
PYTHON=${PYTHON:-python3}

[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[docs]'

# Docstrings are read from the modules, which need no accelerator.
export JAX_PLATFORMS=cpu
"$VENV/bin/python" -m sphinx -W --keep-going -n -q -j 2 "$@" docs docs/_build/html
echo "docs/_build/html/index.html"
