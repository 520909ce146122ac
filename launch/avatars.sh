#!/usr/bin/env bash
# A folder of captioned avatars: ten styles of DiceBear, which are the classes.
#
#   bash launch/avatars.sh my/avatars
#   bash launch/avatars.sh my/avatars --number=2000 --seed=1 --size=64
#
# Wants Node 18 or later with npm, whose packages it installs, in fixed versions, into
# PACKAGES (~/.cache/arvision/avatars). The same flags give the same pictures, and a
# run that was stopped goes on. The designs are CC0 or CC BY 4.0: keep the file
# CREDITS with the pictures. PYTHON chooses the interpreter.
set -euo pipefail

HERE=$(cd "$(dirname "$0")" && pwd)
PACKAGES=${PACKAGES:-$HOME/.cache/arvision/avatars}
PYTHON=${PYTHON:-python3}

for tool in node npm; do
  command -v "$tool" >/dev/null || {
    echo "launch/avatars.sh: error: no '$tool' on PATH; install Node 18 or later" \
      "(Debian and Ubuntu: apt install nodejs npm)" >&2
    exit 2
  }
done
JOBS=$(mktemp)
trap 'rm -f "$JOBS"' EXIT
"$PYTHON" "$HERE/avatars.py" "$@" >"$JOBS"
[ "${1:0:2}" != -- ] || { cat "$JOBS"; exit; } # --help, --packages

mkdir -p "$PACKAGES"
cp "$HERE/avatars.mjs" "$PACKAGES"
mapfile -t wanted < <("$PYTHON" "$HERE/avatars.py" --packages)
(
  cd "$PACKAGES"
  npm install --silent --no-audit --no-fund --ignore-scripts --no-package-lock \
    --prefix . "${wanted[@]}"
)
node "$PACKAGES/avatars.mjs" <"$JOBS"
