"""``wds-real demo``: pack, verify and evaluate a generated data set whose every count is known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from wds_real.cli.console import print_lines, print_message
from wds_real.cli.options import local_path

_NAMES = ("original_top1", "original_top5", "original_top1_labelled", "real_top1", "real_top5")


@click.command("demo")
@click.option(
    "--num-images", type=click.IntRange(1, 50_000), default=1500, show_default=True, help="Number of images to make up."
)
@click.option(
    "--processes", type=click.IntRange(1, 64), default=2, show_default=True, help="Number of processes under torchrun."
)
@click.option(
    "--keep",
    metavar="DIR",
    callback=local_path,
    help="Work in DIR and keep the files.  [default: a temporary folder]",
)
def command(num_images: int, processes: int, keep: str | None) -> int:
    """Generate a validation tar, pack, verify and evaluate it, and compare every count with the known answer.

    Exit code 1 if a count differs.
    """
    if keep is not None:
        Path(keep).mkdir(parents=True, exist_ok=True)
        return _run(Path(keep), num_images, processes)
    with tempfile.TemporaryDirectory(prefix="wds-real-demo-") as folder:
        return _run(Path(folder), num_images, processes)


def _run(folder: Path, num_images: int, processes: int) -> int:
    from wds_real.synthetic import known_answer, labels_of, write_source_tar

    numbers = range(1, num_images + 1)
    tar, root, output = folder / "ILSVRC2012_img_val.tar", folder / "shards", folder / "run"
    write_source_tar(tar, numbers)
    print_lines(f"generated {num_images:,} images: {tar.name}, {tar.stat().st_size:,} bytes")
    _step("pack", str(tar), str(root), "--samples-per-shard", "500", "--allow-partial", "--overwrite")
    _step("verify", str(root), "--level", "decode")
    _step(
        "eval", str(root), "-m", "wds_real.synthetic:known_answer_model", "-b", "100", "-o", str(output),
        launcher=("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)),
    )  # fmt: skip
    found = json.loads((output / "result.json").read_bytes())
    return _compare(found, known_answer(labels_of(numbers)))


def _step(*arguments: str, launcher: tuple[str, ...] = ()) -> None:
    """Print one command as a user would type it, and run it."""
    shown = f"torchrun {' '.join(launcher[2:])} -m wds_real" if launcher else "wds-real"
    print_lines("", f"$ {shown} {' '.join(arguments)}", bold=True)
    environment = {"OMP_NUM_THREADS": "1", **os.environ}  # torchrun sets it too, but prints a warning
    command = [sys.executable, *launcher, "-m", "wds_real", *arguments]
    process = subprocess.Popen(command, env=environment)  # noqa: S603
    try:
        code = process.wait()
    finally:  # torchrun ends its ranks on SIGTERM; they would survive the SIGKILL of `subprocess.run`
        process.terminate()
        process.wait()
    if code:
        raise click.ClickException(f"`{shown} {arguments[0]}` ended with exit code {code}.")


def _compare(found: dict[str, Any], known: dict[str, int]) -> int:
    """Print every count beside the known answer; return the exit code."""
    rows = [(name, found["accuracy"][name]["correct"], known[name]) for name in _NAMES]
    rows += [(name, found["bridge"][name], known[name]) for name in ("forgiven", "newly_wrong")]
    rows += [
        ("images", found["accuracy"]["original_top1"]["total"], known["all"]),
        ("images with a ReaL label", found["accuracy"]["real_top1"]["total"], known["labelled"]),
        ("images seen once", found["coverage"]["seen_once"], known["all"]),
    ]
    wrong = [row for row in rows if row[1] != row[2]]
    print_lines("")
    for name, count, expected in rows:
        verdict, note = ("ok", "") if count == expected else ("WRONG", f" (known: {expected:,})")
        print_lines(f" {verdict:<6}{name:<26}{count:>8,}{note}")
    if wrong:
        print_message(f"{len(wrong)} of {len(rows)} counts differ from the known answer")
        return 1
    print_lines(f"all {len(rows)} counts equal the known answer")
    return 0
