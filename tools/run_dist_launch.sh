#!/usr/bin/env bash
# RefTR's published command without Slurm: NGPU CONFIG [flags]; see tools/dist_train.sh.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: $0 NGPU CONFIG [--eval --resume=CHECKPOINT] [flags]" >&2
  exit 2
fi
gpus=$1 config=$2
shift 2
exec "$(dirname "$0")/dist_train.sh" "$config" "$gpus" "$@"
