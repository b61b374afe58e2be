"""Evaluate a model in a SLURM array with submitit: each job evaluates one share, and all jobs record in one output.

python submitit_shares.py /data/shards timm:resnet50.tv_in1k /data/run --shares 8 --partition gpu

Where there is no SLURM, or with --cluster local, the jobs are processes of this machine. A job that is preempted or out
of time goes back into the queue, and evaluates only what is not recorded yet.
"""

from __future__ import annotations

import argparse
import sys

import submitit

import wds_real


class Share:
    """Evaluates one share, in a job of its own."""

    def __call__(self, arguments: argparse.Namespace, rank: int) -> str | None:
        """Evaluate the share, then what other jobs have left; return the result if nothing is missing any more."""
        result = wds_real.evaluate_share(
            arguments.model,
            arguments.root,
            output=arguments.output,
            rank=rank,
            world_size=arguments.shares,
            steal=True,
            batch_size=arguments.batch_size,
            threads=arguments.cpus,
            progress=False,
        )
        return None if result is None else str(result)

    def checkpoint(self, arguments: argparse.Namespace, rank: int) -> submitit.helpers.DelayedSubmission:
        """Return what to queue again when the job is preempted or out of time: the same share."""
        return submitit.helpers.DelayedSubmission(self, arguments, rank)


def main() -> None:
    """Submit one job for each share, wait for all, and print the result once no batch is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="folder or URL of the data set")
    parser.add_argument("model", help="timm:NAME, torchvision:NAME, package.module:factory or FILE.pt2")
    parser.add_argument("output", help="URL, or folder that all machines see, for records, result and predictions")
    parser.add_argument("--shares", type=int, default=4, help="number of jobs")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--gpus", type=int, default=1, help="GPUs of each job; 0 runs on the CPU")
    parser.add_argument("--cpus", type=int, default=4, help="cores of each job")
    parser.add_argument("--minutes", type=int, default=60, help="time limit of each job")
    parser.add_argument("--cluster", choices=["slurm", "local"], help="by default SLURM, where it is installed")
    parser.add_argument("--partition", help="of SLURM")
    parser.add_argument("--logs", default="submitit", help="folder that all machines see, for logs")
    arguments = parser.parse_args()

    executor = submitit.AutoExecutor(folder=arguments.logs, cluster=arguments.cluster)
    executor.update_parameters(
        name="wds-real",
        gpus_per_node=arguments.gpus,
        cpus_per_task=arguments.cpus,
        timeout_min=arguments.minutes,
        slurm_array_parallelism=arguments.shares,
        slurm_partition=arguments.partition,
    )
    jobs = executor.map_array(Share(), [arguments] * arguments.shares, range(arguments.shares))
    results = list[str | None]()
    for job in jobs:
        error = job.exception()
        if error is None:
            results.append(job.result())
        else:  # others take up what it has left
            print(f"job {job.job_id} failed: {error}", file=sys.stderr)
    print(next(filter(None, results), "Batches are missing. Run the same command again."))
    sys.exit(not any(results))


if __name__ == "__main__":
    main()
