#!/usr/bin/env bash
# Trains on TPU slices of any GKE cluster with JobSet: writes the manifest and
# creates it.
#
#   git archive HEAD | docker build -f launch/Dockerfile -t IMAGE - && docker push IMAGE
#   bash launch/gke_jobset.sh --name=var-d30 --accelerator=tpu-v5p-slice \
#     --topology=4x4x4 --slices=2 --image=IMAGE --claim=runs \
#     --config=var/imagenet256:d30 --workdir=/runs/var-d30
#
#   --name          of the JobSet
#   --accelerator   of the node pools, label cloud.google.com/gke-tpu-accelerator
#   --topology      of a slice, label cloud.google.com/gke-tpu-topology
#   --chips         of a host (4)
#   --slices        how many (1); more than one sets config.mesh.slice
#   --image         that launch/Dockerfile was built into
#   --claim         PersistentVolumeClaim, ReadWriteMany
#   --mount         where it is in the containers (/runs)
#   --restarts      of slices that fail or are taken away (50)
#   --config        of arvision train
#   --workdir       of arvision train, below --mount
#   --dry_run       prints the manifest and creates nothing
#   -- FLAGS        further flags of arvision train
#
# Source: https://jobset.sigs.k8s.io/docs/tasks/tpu_multislice/
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/common.sh
. launch/common.sh

name='' accelerator='' topology='' chips=4 slices=1 image='' claim=''
mount=/runs restarts=50 config='' workdir='' dry_run=false
parse 'accelerator topology chips slices image claim mount restarts' '' "$@"
need name accelerator topology image claim config workdir
for key in chips slices; do number "$key" 1; done
number restarts 0
absolute mount
[[ $workdir == "$mount"/* ]] ||
  die "--workdir='$workdir': wanted a folder below --mount=$mount, which all" \
    "hosts share"
[[ $topology =~ ^[0-9]+(x[0-9]+)+$ ]] ||
  die "--topology='$topology': wanted chips along each axis, 4x4 or 4x4x4"
all=$((${topology//x/*}))
((all % chips == 0)) ||
  die "--topology=$topology has $all chips, which hosts of --chips=$chips do" \
    "not divide"
tool kubectl https://kubernetes.io/docs/tasks/tools

if [ "$slices" -gt 1 ]; then TRAIN+=("--config.mesh.slice=$slices"); fi

# Words as a YAML list of strings.
list() {
  local word line=''
  for word in "$@"; do line+=", '${word//\'/\'\'}'"; done
  printf '[%s]' "${line#, }"
}

manifest() {
  cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $name
  annotations:
    # A slice is a node pool.
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    # A host that ends restarts all: they go on from the newest checkpoint.
    maxRestarts: $restarts
    rules:
      - action: FailJobSet
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: slice
      replicas: $slices
      template:
        spec:
          parallelism: $((all / chips))
          completions: $((all / chips))
          backoffLimit: 0
          podFailurePolicy:
            rules:
              # Flags, config or data that cannot be used.
              - action: FailJob
                onExitCodes: {operator: In, values: [2]}
          template:
            spec:
              restartPolicy: Never
              hostNetwork: true
              dnsPolicy: ClusterFirstWithHostNet
              terminationGracePeriodSeconds: 120
              nodeSelector:
                cloud.google.com/gke-tpu-accelerator: $accelerator
                cloud.google.com/gke-tpu-topology: $topology
              containers:
                - name: arvision
                  image: $image
                  command: $(list "${TRAIN[@]}")
                  securityContext: {privileged: true}
                  resources: {limits: {google.com/tpu: $chips}}
                  volumeMounts: [{name: runs, mountPath: $mount}]
              volumes:
                - name: runs
                  persistentVolumeClaim: {claimName: $claim}
YAML
}

if $dry_run; then manifest; else manifest | kubectl create -f -; fi
