"""``wds-real demo``: it succeeds, and fails if one count is wrong."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from support.commands import Ended, in_child

from wds_real.synthetic import known_answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


def test_demo_finds_the_known_answer() -> None:
    """The demo packs, verifies and evaluates a set on two processes, and all counts equal the known answer."""
    code, out, err = in_child("demo", "--num-images", "200")
    assert code == 0, err
    assert "WRONG" not in out
    assert re.search(r"all \d+ counts equal the known answer", out)
    assert "200 expected, 200 seen once, 0 missing, 0 twice, 2 ranks" in out


def test_demo_fails_if_a_count_differs(
    run: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A count that is off by one is printed, and the exit code is 1."""

    def off_by_one(labels: Any) -> dict[str, int]:
        answer = known_answer(labels)
        return {**answer, "real_top1": answer["real_top1"] + 1}

    monkeypatch.setattr("wds_real.synthetic.known_answer", off_by_one)
    code, out, err = run("demo", "--num-images", "40", "--processes", "1", "--keep", tmp_path / "demo")
    assert code == 1
    assert re.search(r"WRONG +real_top1 ", out)
    assert len(re.findall("WRONG", out)) == 1
    assert "differ" in err
    assert (tmp_path / "demo" / "shards" / "manifest.json").exists()
