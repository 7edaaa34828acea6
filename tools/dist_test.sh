#!/usr/bin/env bash
# Evaluate on the GPUs of this machine: CONFIG NGPU --load-from CHECKPOINT [flags of test.py].
#
# CONFIG is a YAML file, or a published name of ALVG. Environment: as of tools/dist_train.sh.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: $0 CONFIG NGPU --load-from CHECKPOINT [flags of test.py]" >&2
  exit 2
fi
config=$1 gpus=$2
shift 2
export PYTHONPATH="$(cd "$(dirname "$0")/.." && pwd)${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m torch.distributed.run --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${MASTER_PORT:-${PORT:-29500}}" \
  --nproc_per_node="$gpus" -m tools.test --config "$config" --launcher pytorch "$@"
