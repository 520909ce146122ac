#!/usr/bin/env bash
# Runs a command that computes on a CPU with memory that is kept between steps.
#
#   bash launch/cpu.sh arvision train --config=var/digits --workdir=runs/var
#
# glibc gives the arrays of a step back to the system, which clears their pages
# anew for the next one: a sixth of a step of VAR-d16 (docs/benchmarks.md).
# tcmalloc keeps them (Debian and Ubuntu: apt install libtcmalloc-minimal4); where
# it is not installed, large pages make those that are cleared few. LD_PRELOAD and
# GLIBC_TUNABLES of your own are left as they are.
set -euo pipefail

if [ -z "${LD_PRELOAD:-}${GLIBC_TUNABLES:-}" ]; then
  libraries=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null || true)
  if [[ $libraries =~ '=> '([^[:space:]]*/libtcmalloc(_minimal)?\.so[.0-9]*) ]]; then
    export LD_PRELOAD=${BASH_REMATCH[1]}
  else
    export GLIBC_TUNABLES=glibc.malloc.hugetlb=1
  fi
fi
exec "$@"
