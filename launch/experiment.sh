#!/usr/bin/env bash
# A tokenizer and a generator of one data set: trains both, samples a grid,
# evaluates, and writes a report. A run that was stopped goes on.
#
#   bash launch/experiment.sh digits tokenizer var [my/folder] [--config.KEY=VALUE ...]
#   bash launch/experiment.sh fashion_mnist vq llamagen
#
# The first three arguments name configs/<1>/<2>.py and configs/<1>/<3>.py;
# results are in runs/<1>, or in the folder that is given. What begins with
# --config.data is passed to both trainings. ARVISION names the program,
# SAMPLES the number of samples that are evaluated.
set -euo pipefail

if [ $# -lt 3 ]; then
  echo "usage: bash launch/experiment.sh DATA TOKENIZER GENERATOR [FOLDER]" \
    "[--config.KEY=VALUE ...], as digits tokenizer var" >&2
  exit 2
fi
DATA=$1 TOKENIZER=$2 GENERATOR=$3
shift 3
OUT=runs/$DATA
case ${1:---} in --*) ;; *) OUT=$1; shift ;; esac
ARVISION=${ARVISION:-arvision}
run() { bash launch/cpu.sh "$ARVISION" "$@"; }

start=$((SECONDS - ${ALREADY_SPENT:-0}))
say() { printf '\n== %s (%d s)\n' "$1" "$((SECONDS - start))"; }

say "training $TOKENIZER"
run train --config="configs/$DATA/$TOKENIZER.py" \
  --workdir="$OUT/$TOKENIZER" "$@"

say "training $GENERATOR"
run train --config="configs/$DATA/$GENERATOR.py" \
  --workdir="$OUT/$GENERATOR" \
  --config.tokenizer_workdir="$OUT/$TOKENIZER" "$@"

say 'sampling'
run sample --workdir="$OUT/$GENERATOR" --labels=all --number=10 \
  --batch_size=100 --name=grid

say 'evaluating'
run eval --workdir="$OUT/$TOKENIZER"
run eval --workdir="$OUT/$GENERATOR" --samples="${SAMPLES:-1000}"

say 'writing the report'
run report --workdir="$OUT/$TOKENIZER" --workdir="$OUT/$GENERATOR" \
  --output="$OUT" --title="arvision on $DATA" --seconds="$((SECONDS - start))"

say 'done'
