#!/usr/bin/env bash
# A run on the nodes of a Slurm job: Ray starts on each, the run attaches to it, and all ends with the run.
#
#     sbatch --nodes 2 --gpus-per-node 8 deploy/slurm.sh configs/llama3.3-70b-to-8b.yaml
#
# What follows the configuration goes to `distill run` (--set key=value). Cache root and run root must be on a file system
# that every node mounts at the same place. Give the job the nodes and GPUs that the configuration names.
#SBATCH --job-name=stillroom
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --output=stillroom-%j.log
set -euo pipefail

if [ $# -lt 1 ]; then
    echo "usage: sbatch [--nodes N] [--gpus-per-node G] deploy/slurm.sh CONFIG [--set KEY=VALUE ...]" >&2
    exit 2
fi

# Slurm runs a copy of this file: the code is where the job was sent from.
cd "${SLURM_SUBMIT_DIR:?start this with sbatch}"
export PATH="$PWD/.venv/bin:$PATH"

HEAD="$(scontrol show hostnames "$SLURM_JOB_NODELIST")"
HEAD="${HEAD%%$'\n'*}"
# Two jobs may share a node where nodes are not exclusive.
PORT=$((20000 + SLURM_JOB_ID % 20000))
NODES="$SLURM_JOB_NUM_NODES"
# It goes to the other nodes in their environment, never on a command line.
RAY_AUTH_TOKEN="$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')"
export HEAD PORT NODES RAY_AUTH_TOKEN

# Five minutes before the time is over Slurm tells all of it to end: the run commits what the teacher said and keeps its
# checkpoints; the same job again goes on from there.
exec srun --ntasks-per-node=1 --kill-on-bad-exit=1 --wait=120 \
    bash -c 'RANK="$SLURM_NODEID" exec deploy/ray-nodes.sh "$@"' ray-nodes \
    distill run --config "$1" --ray-address "$HEAD:$PORT" "${@:2}"
