#!/usr/bin/env bash
# A training on Slurm that is preempted, or reaches its time limit, saves its step and goes on later.
#
#   sbatch --nodes=4 --gres=gpu:8 --ntasks-per-node=8 tools/slurm_train.sh \
#     --config configs/Pretrain_vg_amc.yaml --checkpoint ALBEF.pth --output_dir runs/amc
#
# One task per GPU; arguments are those of train.py. Submit it where train.py is. Two minutes before the
# time limit Slurm sends SIGUSR1, at a preemption SIGTERM: the run saves within its step and ends with
# status 75, for which this job is put back into the queue, where `--resume auto` goes on. The
# partition's own GraceTime must be longer than a step and a checkpoint. PYTHON (python).
#SBATCH --job-name=groundwork
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -uo pipefail
if [ $# -lt 2 ]; then
  echo "usage: sbatch [options of sbatch] $0 --config CONFIG --output_dir FOLDER [flags of train.py]" >&2
  exit 2
fi
again=75
step=
told=
# srun passes a signal on to all its tasks. A signal that comes before there is a step is kept for it.
trap 'told=1 woken=1; [ -z "$step" ] || kill -USR1 "$step"' USR1 TERM
srun --kill-on-bad-exit=0 "${PYTHON:-python}" train.py "$@" --resume auto &
step=$!
[ -z "$told" ] || kill -USR1 "$step"
# A signal ends `wait`, not the step, and its status is then that of the signal. The step may have ended
# since: its own status is asked for until no signal came between.
while :; do
  woken=
  wait "$step"
  status=$?
  [ -n "$woken" ] && [ "$status" -gt 128 ] || break
done
if [ "$status" -eq "$again" ]; then
  echo "$0: the run has saved itself; job ${SLURM_JOB_ID:?} goes back into the queue" >&2
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
