"""Running ``wds-real`` in tests: how a command ended, and the rule that each failure is one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KEY", "MODEL", "SHARD", "Ended", "expect_one_line", "in_child", "messages", "without_torch"]

MODEL = "wds_real.synthetic:known_answer_model"
SHARD = "imagenet2012_real-validation-000001.tar"
KEY = "ILSVRC2012_val_00000060"  # in SHARD

_NO_MESSAGE = re.compile(r"(pack|verify|eval|index): (\d+ %|reading )|Usage: |Try '|$")
_WITHOUT_TORCH = """
import sys
from wds_real.cli.main import main
try:
    main(sys.argv[1:])
finally:
    assert "torch" not in sys.modules
"""


class Ended(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


def in_child(*arguments: str | Path, **environment: str) -> Ended:
    """Run a command in a process of its own."""
    return _run("-m", "wds_real", *arguments, **environment)


def without_torch(*arguments: str) -> Ended:
    """Run a command in a process of its own, and assert that it does not import torch."""
    ended = _run("-c", _WITHOUT_TORCH, *arguments)
    assert "Traceback" not in ended.err, ended.err
    return ended


def _run(*arguments: str | Path, **environment: str) -> Ended:
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True, encoding="utf-8", errors="surrogateescape", timeout=240, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)


def messages(err: str) -> list[str]:
    """Return the lines of stderr, without progress and without the usage that click prints above its errors."""
    return [line for line in err.splitlines() if not _NO_MESSAGE.match(line)]


def expect_one_line(ended: Ended, code: int, *words: str) -> None:
    """Assert that a command failed as promised: its exit code, nothing on stdout, one line on stderr with `words`."""
    assert "Traceback" not in ended.err
    assert (ended.code, ended.out) == (code, ""), ended.err
    lines = messages(ended.err)
    assert len(lines) == 1, ended.err
    assert re.match(r"[Ee]rror: ", lines[0])
    assert [word for word in words if word not in lines[0]] == [], lines[0]
