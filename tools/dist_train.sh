#!/usr/bin/env bash
# Train on the GPUs of this machine: CONFIG NGPU [flags of train.py].
#
#   tools/dist_train.sh configs/reftr/refcoco.yaml 4 --output_dir runs/reftr/refcoco
#
# CONFIG is a YAML file, or a published name of RefTR or ALVG. Environment: MASTER_PORT (or ALVG's
# PORT), PYTHON (python); NNODES, NODE_RANK, MASTER_ADDR for several machines.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: $0 CONFIG NGPU [flags of train.py]" >&2
  exit 2
fi
config=$1 gpus=$2
shift 2
case "$config" in
  *.py | *configs/alvg/*) script=(tools.train --config "$config" --launcher pytorch) ;;
  *) script=(tools.published_reftr "$config") ;;
esac
export PYTHONPATH="$(cd "$(dirname "$0")/.." && pwd)${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m torch.distributed.run --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${MASTER_PORT:-${PORT:-29500}}" \
  --nproc_per_node="$gpus" -m "${script[@]}" "$@"
