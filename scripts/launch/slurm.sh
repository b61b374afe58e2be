#!/bin/bash
# Evaluate a model on several nodes of a SLURM cluster as one job, with one task for each GPU.
#
#   sbatch slurm.sh ROOT MODEL OUTPUT [more options of eval]
#   sbatch --nodes=4 slurm.sh /data/imagenet-real timm:resnet50.tv_in1k /data/run --amp -b 256
#
# Options of sbatch before slurm.sh replace the #SBATCH lines below. OUTPUT is a folder that all nodes see, or a bucket.
# If a node fails, or the job is preempted, SLURM starts it again (--requeue). It then evaluates only what is not
# recorded in OUTPUT. After any other failure, submit the same line again, with as many nodes as you like.
#SBATCH --job-name=wds-real
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --output=%x-%j.log
#SBATCH --requeue
#SBATCH --open-mode=append
set -eu
root=$1 model=$2 output=$3
shift 3

# Where the tasks connect: the first node, at a port of this job.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
export MASTER_ADDR MASTER_PORT

# srun does not inherit --cpus-per-task (SLURM 22.05 and newer), and not every cluster binds a task to its cores.
# If a task fails, --kill-on-bad-exit ends the others at once.
cpus=${SLURM_CPUS_PER_TASK:-1}
exec srun --cpus-per-task="$cpus" --kill-on-bad-exit=1 \
    wds-real eval "$root" --model "$model" --output "$output" --threads "$cpus" "$@"
