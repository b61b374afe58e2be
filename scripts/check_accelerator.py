"""Run the tests marked `accelerator` and print what they find; see scripts/check-accelerator."""

from __future__ import annotations

import argparse
import datetime as dt
import platform
import sys
from pathlib import Path

import pytest
import torch

import wds_real

NOT_RUN = 77  # what test harnesses take for "skipped"
_TESTS = str(Path(__file__).resolve().parents[1] / "tests" / "accelerator")


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 0 all checks pass, 1 a check fails, 77 nothing is run."""
    parser = argparse.ArgumentParser(
        "scripts/check-accelerator", description=__doc__, epilog="Other arguments go to pytest."
    )
    parser.add_argument("--cpu", action="store_true", help="the same checks with the CPU in place of an accelerator")
    chosen, of_pytest = parser.parse_known_args(arguments)
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None and not chosen.cpu:
        print(f"not run: {why_there_is_none()} --cpu runs the same checks on the CPU.", file=sys.stderr)
        return NOT_RUN
    for line in about(None if chosen.cpu else accelerator):
        print(line)
    sys.stdout.flush()
    marked = "not accelerator" if chosen.cpu else "accelerator"
    return int(pytest.main([_TESTS, "-m", marked, "--proved", "-q", *of_pytest]) != 0)


def why_there_is_none() -> str:
    """Say which kind of accelerator torch was built for, and that none was found."""
    built_for = torch.accelerator.current_accelerator()
    if built_for is None:
        return (
            f"torch {torch.__version__} was built for no accelerator (looked for CUDA, ROCm, XPU, MPS). Install the "
            "torch that is made for the device."
        )
    return (
        f"torch {torch.__version__} was built for {built_for.type}, and finds no such device. Check the driver, and "
        "that the device is visible to this process."
    )


def about(accelerator: torch.device | None) -> list[str]:
    """Return the head of the report: when, what device, which versions."""
    lines = [f"{dt.datetime.now(tz=dt.UTC):%Y-%m-%d}, wds_real {wds_real.__version__}, torch {torch.__version__}"]
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    if accelerator is None:
        return [*lines, f"the CPU in place of an accelerator; {system}. This proves nothing about an accelerator."]
    count = torch.accelerator.device_count()
    runtime = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
    kind = runtime if accelerator.type == "cuda" else accelerator.type
    return [*lines, f"{count} x {_name(accelerator)} ({kind}); {system}"]


def _name(accelerator: torch.device) -> str:
    properties = getattr(torch.get_device_module(accelerator), "get_device_properties", None)
    return accelerator.type if properties is None else str(properties(0).name)


if __name__ == "__main__":
    sys.exit(main())
