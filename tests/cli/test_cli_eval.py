"""``wds-real eval``: the known counts, the printed table, and an output folder that cannot be written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.commands import MODEL, Ended, expect_one_line

from wds_real.synthetic import known_answer, labels_of

if TYPE_CHECKING:
    from collections.abc import Callable


def expected_counts(numbers: range) -> dict[str, int]:
    answer = known_answer(labels_of(numbers))
    return {name: answer[name] for name in ("original_top1", "original_top1_labelled", "real_top1", "all", "labelled")}


def found_counts(result: dict[str, Any]) -> dict[str, int]:
    accuracy = result["accuracy"]
    names = ("original_top1", "original_top1_labelled", "real_top1")
    return {
        **{name: accuracy[name]["correct"] for name in names},
        "all": accuracy["original_top1"]["total"],
        "labelled": accuracy["real_top1"]["total"],
    }


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("split", "numbers"),
    [
        ("validation", range(1, 121)),
        ("validation[:10%]", range(1, 13)),
        ("validation[50:60]", range(51, 61)),
        ("validation[-7:]", range(114, 121)),
    ],
)
def test_eval_counts_what_is_known(run: Callable[..., Ended], split: str, numbers: range) -> None:
    """The known-answer model gets its known counts, on the whole set and on parts."""
    ended = run("eval", "shards", "-m", MODEL, "-b", "32", "--split", split, "--json")
    result = json.loads(ended.out)
    assert found_counts(result) == expected_counts(numbers)
    assert (result["coverage"]["expected"], result["coverage"]["seen_once"]) == (len(numbers), len(numbers))
    assert result["dataset"]["split"] == split


@pytest.mark.usefixtures("here")
def test_eval_prints_the_table_and_the_receipt(run: Callable[..., Ended]) -> None:
    """The text has both accuracies, the receipt, the digest, and a warning that a part gives no ImageNet accuracy."""
    code, out, _ = run("eval", "shards", "-m", MODEL, "-b", "50", "-o", "run")
    answer = known_answer(labels_of(range(1, 121)))
    assert code == 0
    assert re.search(rf"original top-1 +{answer['original_top1']} / +120 ", out)
    assert re.search(rf"ReaL top-1 +{answer['real_top1']} / +{answer['labelled']} ", out)
    assert "120 expected, 120 seen once, 0 missing, 0 twice, 1 rank" in out
    assert "not an ImageNet accuracy" in out
    assert json.loads(Path("run/result.json").read_bytes())["dataset"]["digest"] in out


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("output", "code"), [("val.tar", 1), ("ftp://host/run", 1)])
def test_an_output_that_cannot_be_written_is_reported_before_the_model_runs(
    run: Callable[..., Ended], output: str, code: int
) -> None:
    """An --output that cannot be written ends the command before the first batch."""
    ended = run("eval", "shards", "-m", MODEL, "-b", "50", "-o", output)
    assert "eval: 100 %" not in ended.err
    expect_one_line(ended, code, output)
