#!/usr/bin/env bash
# Trains on GPU nodes of a SLURM cluster. Shortly before its time is up, the job
# saves, ends and queues again, until training is over.
#
#   source .venv/bin/activate
#   bash launch/slurm.sh --nodes=4 --gpus=8 --time=24:00:00 \
#     --sbatch='--partition=h100 --account=mine' \
#     --config=var/imagenet256:d30 --workdir=/shared/runs/var-d30 \
#     -- --config.mesh.fsdp=8
#
#   --name       of the job and of its log (arvision)
#   --nodes      how many (1)
#   --gpus       of a node (8)
#   --cpus       of a node, to read and prepare images (32)
#   --time       of one sitting (24:00:00)
#   --sbatch     further options of sbatch
#   --setup      command before training, 'module load cuda'
#   --config     of arvision train
#   --workdir    of arvision train: a folder that all nodes share
#   --dry_run    prints the job script and submits nothing
#   -- FLAGS     further flags of arvision train
#
# Source: https://slurm.schedmd.com/sbatch.html
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/common.sh
. launch/common.sh

name=arvision nodes=1 gpus=8 cpus=32 time=24:00:00 sbatch='' setup=''
config='' workdir='' dry_run=false
parse 'nodes gpus cpus time sbatch setup' '' "$@"
need name config workdir
for key in nodes gpus cpus; do number "$key" 1; done
tool sbatch https://slurm.schedmd.com

# A task per node, so that config.mesh may cut a model over the GPUs of a node;
# JAX gives a task of SLURM a single GPU where it is not told otherwise.
job() {
  cat <<JOB
#!/usr/bin/env bash
#SBATCH --job-name=$name
#SBATCH --output=$name-%j.log
#SBATCH --open-mode=append
#SBATCH --nodes=$nodes
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=$gpus
#SBATCH --cpus-per-task=$cpus
#SBATCH --time=$time
#SBATCH --signal=TERM@300
#SBATCH --requeue
${sbatch:+#SBATCH $sbatch}
${setup:+$setup || exit}
export JAX_LOCAL_DEVICE_IDS=$(seq -s , 0 $((gpus - 1)))
# A task that ended early must not take those with it that still save.
srun --kill-on-bad-exit=0 --cpus-per-task=$cpus $(quote "${TRAIN[@]}")
code=\$?
# 128 + SIGTERM: stopped and saved.
if [ "\$code" = 143 ]; then scontrol requeue "\$SLURM_JOB_ID"; fi
exit "\$code"
JOB
}

if $dry_run; then job; else job | sbatch; fi
