#!/usr/bin/env bash
# RefTR's published command on Slurm: one process per GPU.
#
#   MASTER_PORT=29501 GPUS_PER_NODE=4 tools/run_dist_slurm.sh RefTR 4 configs/flickr30k/RefTR_flickr.sh
#   ... tools/run_dist_slurm.sh RefTR 4 configs/flickr30k/RefTR_flickr.sh --eval --resume=checkpoint.pth
#
# JOB NGPU CONFIG [flags]. CONFIG is a published name or a YAML file of configs/reftr. Environment:
# GPUS_PER_NODE (NGPU, at most 8), CPUS_PER_TASK (2), RUN_TIME (240:00:00), SRUN_ARGS (such as
# --partition=NAME), MASTER_PORT, PYTHON (python). Unlike the published script it stays in the foreground.
set -euo pipefail
if [ $# -lt 3 ]; then
  echo "usage: $0 JOB NGPU CONFIG [--eval --resume=CHECKPOINT] [flags]" >&2
  exit 2
fi
job=$1 gpus=$2
shift 2
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
python=${PYTHON:-python}
export PYTHONPATH="$(cd "$(dirname "$0")/.." && pwd)${PYTHONPATH:+:$PYTHONPATH}"
if ! command -v srun >/dev/null; then
  echo "$0: no srun here, starting $gpus processes on this machine with torchrun" >&2
  exec "$python" -m torch.distributed.run --nproc_per_node="$gpus" --master_port="${MASTER_PORT:-29500}" \
    -m tools.published_reftr "$@"
fi
# shellcheck disable=SC2086 # SRUN_ARGS holds several words
exec srun ${SRUN_ARGS:-} --job-name="$job" --gres=gpu:"$per_node" --ntasks="$gpus" \
  --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-2}" --time="${RUN_TIME:-240:00:00}" \
  --kill-on-bad-exit=1 "$python" -m tools.published_reftr "$@"
