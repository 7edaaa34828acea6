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
trap 'told=1 woken=1; [ -z "$step" ] || kill -USR1 "$step" 2>/dev/null' USR1 TERM
srun --kill-on-bad-exit=0 "${PYTHON:-python}" train.py "$@" --resume auto &
step=$!
[ -z "$told" ] || kill -USR1 "$step" 2>/dev/null
# A signal ends `wait`, not the step, and its status is then that of the signal.
while :; do
  woken=
  wait "$step"
  status=$?
  [ -n "$woken" ] && [ "$status" -gt 128 ] || break
done
# Told to end, a step that was not training yet died of the signal, and of one that ended in the same
# moment bash may not know the status (127, -1): going on is right for both, and does no harm to a run
# that was done.
if [ "$status" -eq "$again" ] || { [ -n "$told" ] && { [ "$status" -lt 0 ] || [ "$status" -gt 126 ]; }; }; then
  echo "$0: job ${SLURM_JOB_ID:?} goes back into the queue, where its run goes on" >&2
  trap '' USR1 TERM # a second signal is none for scontrol
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
