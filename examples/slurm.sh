#!/usr/bin/env bash
# One run as a SLURM job; the arguments are train.py's. Submit from the root of the checkout:
#
#   sbatch examples/slurm.sh model=senet seed=1
#   sbatch --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 \
#     examples/slurm.sh trainer=ddp trainer.num_nodes=2 trainer.devices=4
#   sbatch --gpus-per-node=0 examples/slurm.sh trainer.accelerator=cpu
#
# The run's directory is outputs/slurm-JOBID_... ; a job that is requeued goes on in it (docs/cluster.md).
#SBATCH --job-name=fer
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1      # one process per GPU; more than one needs trainer=ddp
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --time=08:00:00
#SBATCH --signal=USR1@120        # two minutes before the time is up: write last.ckpt, go back into the queue
#SBATCH --requeue
#SBATCH --open-mode=append       # of the log, when the job is requeued
#SBATCH --output=outputs/slurm-%j.log
set -eu
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
srun --kill-on-bad-exit=1 python train.py "$@" || code=$?

# Preempted before training began. Once it has, train.py does this itself; SLURM does it only for jobs that wait to be
# killed.
if [ -n "${code:-}" ] && scontrol show job "$SLURM_JOB_ID" | grep -q 'PreemptTime=2'; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "${code:-0}"
