#!/bin/bash
# Evaluate a model as an array of SLURM jobs. Each evaluates its share when SLURM starts it, and waits for no other.
#
#   sbatch --array=0-6 slurm_array.sh ROOT MODEL OUTPUT [more options of eval]
#   sbatch --array=0-49 --partition=spot slurm_array.sh s3://lab/imagenet-real timm:resnet50.tv_in1k s3://lab/run --amp -b 256
#
# Options of sbatch before slurm_array.sh replace the #SBATCH lines below. OUTPUT is a folder that all nodes see, or a
# bucket. The job that ends last writes result.json and predictions.csv there; until then each says what is missing.
# If jobs failed or never started, submit an array of any size again: it evaluates only what is not recorded in OUTPUT.
# With --steal as one of the options, a job that is done takes up what others have left.
#SBATCH --job-name=wds-real
#SBATCH --array=0-6
#SBATCH --ntasks=1
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --output=%x-%A_%a.log
#SBATCH --requeue
#SBATCH --open-mode=append
set -eu
root=$1 model=$2 output=$3
shift 3

# srun does not inherit --cpus-per-task (SLURM 22.05 and newer), and not every cluster binds a task to its cores.
cpus=${SLURM_CPUS_PER_TASK:-1}
exec srun --ntasks=1 --cpus-per-task="$cpus" \
    wds-real eval "$root" --model "$model" --output "$output" --threads "$cpus" --independent "$@"
