#!/usr/bin/env bash
# From nothing to pictures: installs arvision, trains a multi-scale tokenizer
# and a VAR on scikit-learn's digits, samples, evaluates, and writes a report.
#
#   bash launch/quickstart.sh              results in runs/quickstart
#   bash launch/quickstart.sh my/folder    results elsewhere
#
# VENV and PYTHON choose the environment and the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

OUT=${1:-runs/quickstart}
VENV=${VENV:-.venv}
PYTHON=${PYTHON:-python3}

echo "== installing into $VENV"
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -e .

ARVISION=$VENV/bin/arvision ALREADY_SPENT=$SECONDS \
  bash launch/experiment.sh var/digits_tokenizer var/digits "$OUT"
