#!/usr/bin/env bash
# From nothing to pictures: trains a multi-scale tokenizer and a VAR on
# scikit-learn's digits, samples them, evaluates, and writes a report.
#
#   bash launch/quickstart.sh              results in runs/quickstart
#   bash launch/quickstart.sh my/folder    results elsewhere
#
# VENV and PYTHON choose the environment and the interpreter.
set -euo pipefail
start=$SECONDS
cd "$(dirname "$0")/.."

OUT=${1:-runs/quickstart}
VENV=${VENV:-.venv}
PYTHON=${PYTHON:-python3}

say() { printf '\n== %s (%d s)\n' "$1" "$((SECONDS - start))"; }

say "installing into $VENV"
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -e .
arvision=$VENV/bin/arvision

say 'training the tokenizer'
"$arvision" train --config=configs/digits/tokenizer.py \
  --workdir="$OUT/tokenizer"

say 'training VAR'
"$arvision" train --config=configs/digits/var.py --workdir="$OUT/var" \
  --config.tokenizer_workdir="$OUT/tokenizer"

say 'sampling'
"$arvision" sample --workdir="$OUT/var" --labels=all --number=10 \
  --batch_size=100 --name=grid

say 'evaluating'
"$arvision" eval --workdir="$OUT/tokenizer"
"$arvision" eval --workdir="$OUT/var" --samples=1000

say 'writing the report'
"$arvision" report --workdir="$OUT/tokenizer" --workdir="$OUT/var" \
  --output="$OUT" --title='arvision on digits' --seconds="$((SECONDS - start))"

say 'done'
