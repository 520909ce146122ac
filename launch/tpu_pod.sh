#!/usr/bin/env bash
# Trains on a Cloud TPU pod: asks for it as a queued resource, waits, installs
# a commit of this repository on all workers and runs `arvision train` there.
#
#   bash launch/tpu_pod.sh --name=var-d30 --project=my-project \
#     --zone=us-east5-a --accelerator=v5p-128 \
#     --setup='mountpoint -q /runs || sudo mount -o X-mount.mkdir NFS:/x /runs' \
#     --config=var/imagenet256:d30 --workdir=/runs/var-d30 \
#     -- --config.mesh.fsdp=8
#
#   --name          of the queued resource and of its node
#   --project, --zone
#   --accelerator   v5p-128, v6e-64, ...
#   --runtime       software of the workers; by default the accelerator's
#   --config        of arvision train
#   --workdir       of arvision train: a folder that all workers share
#   --setup         command for every worker before all else; it may run again
#   --ref           commit that is installed, by default HEAD
#   --spot          capacity that may be taken away
#   --retries       how often a pod that was taken away is asked for again (0)
#   --delete        gives the pod back at the end, however training ended
#   --dry_run       prints the commands, one per line, and runs none
#   -- FLAGS        further flags of arvision train
#
# The same command goes on: with the pod that is there, and with the newest
# checkpoint in the workdir. It has to live as long as training does, so run it
# in tmux. gcloud reaches several workers only with its key in the agent:
# ssh-add ~/.ssh/google_compute_engine. POLL: seconds between two looks (30).
#
# Source: https://cloud.google.com/tpu/docs/queued-resources
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/common.sh
. launch/common.sh

name='' project='' zone='' accelerator='' runtime='' config='' workdir=''
setup='' ref=HEAD retries=0 spot=false delete=false dry_run=false
parse 'project zone accelerator runtime setup ref retries' 'spot delete' "$@"
need name project zone accelerator config workdir
absolute workdir
number retries 0
tool gcloud https://cloud.google.com/sdk/docs/install

# Source: https://cloud.google.com/tpu/docs/runtimes
[ -n "$runtime" ] || case $accelerator in
  v6e-*) runtime=v2-alpha-tpuv6e ;;
  v5p-*) runtime=v2-alpha-tpuv5 ;;
  v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
  v[234]-*) runtime=tpu-ubuntu2204-base ;;
  *) die "--accelerator=$accelerator: only of v2 to v6e the runtime is known;" \
    "wanted --runtime=... too" ;;
esac

where=(--project="$project" --zone="$zone")
code=${TMPDIR:-/tmp}/arvision-$name.tar.gz

stop() {
  printf 'launch/tpu_pod.sh: error: %s\n' "$*" >&2
  exit 1
}

queue() { run gcloud compute tpus queued-resources "$@" "${where[@]}"; }

# A command on worker $1, or on all of them.
on() {
  run gcloud compute tpus tpu-vm ssh "$name" --worker="$1" --command="$2" \
    "${where[@]}"
}

# Sets `state` to that of the queued resource, '' without one; in a dry run it
# is $1.
look() {
  local ask=(gcloud compute tpus queued-resources describe "$name"
    --format='value(state.state)' "${where[@]}")
  if $dry_run; then
    quote "${ask[@]}"
    state=$1
  else
    state=$("${ask[@]}" 2>/dev/null) || state=''
  fi
}

give_back() { queue delete "$name" --force --quiet; }

# Returns once there is a pod.
get_pod() {
  local options=(--node-id="$name" --accelerator-type="$accelerator"
    --runtime-version="$runtime")
  if $spot; then options+=(--spot); fi
  look ''
  case $state in
    FAILED | SUSPENDING | SUSPENDED) # nothing becomes of it any more
      give_back
      state=''
      ;;
  esac
  [ -n "$state" ] || queue create "$name" "${options[@]}"
  until look ACTIVE && [ "$state" = ACTIVE ]; do
    case $state in
      '' | FAILED | SUSPEND* | DELETING)
        stop "queued resource '$name' is '${state:-not there}', wanted ACTIVE;" \
          "'gcloud compute tpus queued-resources describe' says why"
        ;;
    esac
    sleep "${POLL:-30}"
  done
}

# The images have a Python that is too old, so uv brings one.
install_code() {
  run git archive --format=tar.gz --output="$code" "$ref"
  run gcloud compute tpus tpu-vm scp "$code" "$name": --worker=all \
    "${where[@]}"
  on all "rm -rf arvision && mkdir arvision && cd arvision \
&& tar -xzf ../$(quote "${code##*/}") \
&& curl -LsSf https://astral.sh/uv/install.sh | sh \
&& ~/.local/bin/uv venv --python 3.11 \
&& ~/.local/bin/uv pip install -e '.[tpu]'"
}

# A workdir on the disk of each worker would look like success for hours.
check_workdir() {
  local seen
  seen=$(quote "$workdir/.shared")
  on 0 "mkdir -p $(quote "$workdir") && touch $seen"
  on all "test -e $seen" ||
    stop "--workdir='$workdir' is not one folder of all workers; mount it" \
      "with --setup"
}

if $delete; then trap give_back EXIT; fi
for ((retry = 0; ; retry++)); do
  get_pod
  if [ -n "$setup" ]; then on all "$setup"; fi
  install_code
  check_workdir
  if on all "cd arvision && exec .venv/bin/$(quote "${TRAIN[@]}")"; then break; fi
  look ACTIVE
  [ "$state" != ACTIVE ] || stop "training ended with an error, see above"
  [ "$retry" -lt "$retries" ] ||
    stop "the pod was taken away ($state); the same command goes on"
done
