#!/usr/bin/env bash
# A tokenizer and a generator of one data set: trains both, samples a grid,
# evaluates, and writes a report. A run that was stopped goes on.
#
#   bash launch/experiment.sh var/digits_tokenizer var/digits [my/folder] \
#     [--config.KEY=VALUE ...]
#   bash launch/experiment.sh llamagen/fashion_mnist_tokenizer llamagen/fashion_mnist
#
# The first two arguments name configs; results are in the folder that is given, or
# in one under runs: the tokenizer in `tokenizer`, the generator in a folder with the
# name of its paper. What begins with --config.data is passed to both trainings.
# ARVISION names the program, SAMPLES the number of samples that are evaluated.
set -euo pipefail

if [ $# -lt 2 ]; then
  echo "usage: bash launch/experiment.sh TOKENIZER GENERATOR [FOLDER]" \
    "[--config.KEY=VALUE ...], as var/digits_tokenizer var/digits" >&2
  exit 2
fi
FIRST=$1 SECOND=$2
shift 2
OUT=runs/${SECOND//[\/:]/_}
case ${1:---} in --*) ;; *) OUT=$1; shift ;; esac
TOKENIZER=$OUT/tokenizer GENERATOR=$OUT/${SECOND%%/*}
ARVISION=${ARVISION:-arvision}
run() { bash launch/cpu.sh "$ARVISION" "$@"; }

start=$((SECONDS - ${ALREADY_SPENT:-0}))
say() { printf '\n== %s (%d s)\n' "$1" "$((SECONDS - start))"; }

say "training $FIRST"
run train --config="$FIRST" --workdir="$TOKENIZER" "$@"

say "training $SECOND"
run train --config="$SECOND" --workdir="$GENERATOR" \
  --config.frozen.tokenizer="$TOKENIZER" "$@"

say 'sampling'
run sample --workdir="$GENERATOR" --labels=all --number=10 \
  --batch_size=100 --name=grid

say 'evaluating'
run eval --workdir="$TOKENIZER"
run eval --workdir="$GENERATOR" --samples="${SAMPLES:-1000}"

say 'writing the report'
run report --workdir="$TOKENIZER" --workdir="$GENERATOR" \
  --output="$OUT" --title="arvision: $SECOND" --seconds="$((SECONDS - start))"

say 'done'
