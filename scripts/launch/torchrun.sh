#!/bin/sh
# Evaluate a model on all GPUs of one machine, or of several that stay up.
#
#   torchrun.sh ROOT MODEL OUTPUT [more options of eval]
#   torchrun.sh shards timm:resnet50.tv_in1k run --amp -b 256
#
# Several machines: run the same line on each, with their number and the name of one of them.
#   NODES=4 HEAD=node0 torchrun.sh s3://lab/imagenet-real timm:resnet50.tv_in1k s3://lab/run --amp -b 256
#
# PROCESSES is the number of processes on each machine; by default one for each GPU, or for each core if there is none.
# After a failure, run the same line again: it evaluates only what is not recorded in OUTPUT.
set -eu
root=$1 model=$2 output=$3
shift 3
if [ -n "${HEAD:-}" ]; then
    place="--nnodes $NODES --rdzv-backend c10d --rdzv-id wds_real --rdzv-endpoint $HEAD:${PORT:-29500}"
else
    place="--standalone --max-restarts 3"
fi
# shellcheck disable=SC2086
exec torchrun $place --nproc-per-node "${PROCESSES:-auto}" \
    -m wds_real eval "$root" -m "$model" --output "$output" "$@"
