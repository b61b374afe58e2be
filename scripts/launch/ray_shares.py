"""Evaluate a model on a Ray cluster: each task evaluates one share, and all tasks record in one output.

python ray_shares.py s3://lab/imagenet-real timm:resnet50.tv_in1k s3://lab/run --shares 8

If a machine dies, Ray starts its tasks again on another one. They evaluate only what is not recorded yet. OUTPUT is a
bucket, or a folder that all machines see.
"""

from __future__ import annotations

import argparse
import sys

import ray

import wds_real


def evaluate_share(arguments: argparse.Namespace, rank: int) -> str | None:
    """Evaluate one share, then what other tasks have left; return the result if nothing is missing any more."""
    result = wds_real.evaluate_share(
        arguments.model,
        arguments.root,
        output=arguments.output,
        rank=rank,
        world_size=arguments.shares,
        steal=True,
        batch_size=arguments.batch_size,
        threads=max(1, int(arguments.cpus)),
        progress=False,
    )
    return None if result is None else str(result)


def main() -> None:
    """Start one task for each share, and print the result once no batch is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="folder or URL of the data set")
    parser.add_argument("model", help="timm:NAME, torchvision:NAME, package.module:factory or FILE.pt2")
    parser.add_argument("output", help="folder or URL for records, result and predictions")
    parser.add_argument("--shares", type=int, default=4, help="number of tasks")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--gpus", type=float, default=1, help="GPUs of each task; 0 runs on the CPU")
    parser.add_argument("--cpus", type=float, default=4, help="cores of each task")
    arguments = parser.parse_args()

    ray.init()  # joins the cluster that RAY_ADDRESS names, or starts one on this machine
    # A task is tried again if its machine is lost, here up to ten times.
    task = ray.remote(evaluate_share).options(num_gpus=arguments.gpus, num_cpus=arguments.cpus, max_retries=10)
    tasks = [task.remote(arguments, rank) for rank in range(arguments.shares)]
    results = list[str | None]()
    for task in tasks:
        try:
            results.append(ray.get(task))
        except ray.exceptions.RayError as error:  # others take up what it has left
            print(f"a task failed: {error}", file=sys.stderr)
    print(next(filter(None, results), "Batches are missing. Run the same command again."))
    sys.exit(not any(results))


if __name__ == "__main__":
    main()
