#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster that XPK made.
#
#   git archive HEAD | docker build -f launch/Dockerfile -t IMAGE - && docker push IMAGE
#   bash launch/gke_xpk.sh --name=var-d30 --cluster=pods --project=my-project \
#     --zone=us-east5-a --tpu_type=v5p-128 --slices=2 --image=IMAGE \
#     --storage=runs --config=var/imagenet256:d30 --workdir=/runs/var-d30
#
#   --name       of the workload
#   --cluster, --project, --zone
#   --tpu_type   of a slice
#   --slices     how many (1); more than one sets config.mesh.slice
#   --image      that launch/Dockerfile was built into
#   --storage    that 'xpk storage attach' mounts; the workdir is in it
#   --restarts   of slices that fail or are taken away (50)
#   --config     of arvision train
#   --workdir    of arvision train
#   --dry_run    prints the command and runs nothing
#   -- FLAGS     further flags of arvision train
#
# Source: https://github.com/AI-Hypercomputer/xpk, docs/usage/workloads.md
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/common.sh
. launch/common.sh

name='' cluster='' project='' zone='' tpu_type='' slices=1 image='' storage=''
restarts=50 config='' workdir='' dry_run=false
parse 'cluster project zone tpu_type slices image storage restarts' '' "$@"
need name cluster project zone tpu_type image storage config workdir
absolute workdir
number slices 1
number restarts 0
tool xpk https://github.com/AI-Hypercomputer/xpk

if [ "$slices" -gt 1 ]; then TRAIN+=("--config.mesh.slice=$slices"); fi

# XPK hands SIGTERM to the shell that runs the command: exec puts training in
# its place. It restarts exit codes from 127 on, so a run that was stopped (143)
# goes on, and a config that is wrong (2) does not begin again.
run xpk workload create --workload="$name" --cluster="$cluster" \
  --project="$project" --zone="$zone" --tpu-type="$tpu_type" \
  --num-slices="$slices" --docker-image="$image" --storage="$storage" \
  --max-restarts="$restarts" --termination-grace-period-seconds=120 \
  --command="exec $(quote "${TRAIN[@]}")"
