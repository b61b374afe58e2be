"""``wds-real show``, ``ls`` and ``cat``."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import wds_real
from wds_real.format.shard import encode_label

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.commands import Ended

TINY = Path(__file__).parents[2] / "shards" / "tiny"
KEY = "ILSVRC2012_val_00000009"


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Predictions that are the original labels."""
    path = tmp_path_factory.mktemp("predictions") / "original.csv"
    ds = wds_real.open_dataset(TINY)
    rows = (f"{key},{label}" for key, label in zip(ds.keys, ds.index.original_label.tolist(), strict=True))
    path.write_text("key,prediction\n" + "\n".join(rows) + "\n")
    return path


def test_ls_lists_keys(run: Callable[..., Ended]) -> None:
    """All of them, of a split, of a condition, or those that are named in any spelling."""
    ds = wds_real.open_dataset(TINY)
    assert run("ls", TINY).out.splitlines() == list(ds.keys)
    assert run("ls", TINY, "--split", "validation[:3]").out.splitlines() == list(ds.keys[:3])
    none = [key for key, labels in zip(ds.keys, ds.index.real_label, strict=True) if not labels]
    assert run("ls", TINY, "--where", "not real").out.splitlines() == none != []
    assert run("ls", TINY, f"{KEY}.JPEG", ds.keys[0]).out.splitlines() == [KEY, ds.keys[0]]


def test_ls_says_more_if_asked(run: Callable[..., Ended]) -> None:
    """Size and labels, as a line or as JSON."""
    ds = wds_real.open_dataset(TINY)
    (line,) = run("ls", TINY, ds.keys[0], "-l").out.splitlines()
    num_bytes = int(ds.index.num_bytes[0])
    assert line.split() == [
        ds.keys[0],
        f"{ds.index.width[0]}x{ds.index.height[0]}",
        f"{num_bytes:,}",
        "none",
        "sea",
        "snake",
        "|",
        "-",
    ]
    (sample,) = json.loads(run("ls", TINY, ds.keys[0], "--json").out)["samples"]
    assert (sample["key"], sample["original_label"], sample["real_label"]) == (ds.keys[0], 65, [])
    assert (sample["num_bytes"], type(sample["width"])) == (num_bytes, int)


def test_ls_takes_predictions(run: Callable[..., Ended], answers: Path) -> None:
    """One file is `predicted`, two are A and B."""
    wrong = run("ls", TINY, "--where", "real and predicted not in real", "--predictions", answers).out
    assert wrong == run("ls", TINY, "--where", "real and original not in real").out != ""
    two = ("--predictions", answers, "--predictions", answers)
    assert run("ls", TINY, "--where", "A != B", *two) == (0, "", "")


def test_show_writes_a_picture(run: Callable[..., Ended], tmp_path: Path, answers: Path) -> None:
    """It says how many images are in it."""
    path = tmp_path / "sheet.png"
    arguments = ("--where", "original not in real", "-n", "4", "--predictions", answers, "-o", path)
    assert run("show", TINY, *arguments) == (0, f"wrote {path}, 4 images\n", "")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert run("show", TINY, KEY, "-o", path).out == f"wrote {path}, 1 image\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ls", str(TINY), "--where", "real"], "'real' is a set of classes, expected a condition"),
        (["ls", str(TINY), "--where", "predicted in real"], "Give them with --predictions FILE"),
        (["ls", str(TINY), "ILSVRC2012_val_00000099"], "is not one of the 60 samples"),
        (["show", str(TINY), "-o", "sheet.bmp"], "expected a file that ends in .png"),
        (["show", str(TINY), "-o", "s3://lab/sheet.png"], "is a URL, expected a path on this machine"),
        (["show", str(TINY), "--where", "len(real) > 99"], "no image of"),
        (["show", str(TINY), "-n", "0"], "0 is not in the range"),
        (["cat", str(TINY), "ILSVRC2012_val_00000099"], "is not one of the 60 samples"),
        (["cat", str(TINY)], "Missing argument 'KEY'"),
    ],
)
def test_what_cannot_be_done_is_one_line(run: Callable[..., Ended], arguments: list[str], message: str) -> None:
    """With exit code 2: it is the command that is wrong."""
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]


@pytest.mark.parametrize("arguments", [[str(TINY), "--predictions", "missing.csv"], ["missing"]])
def test_what_is_missing_is_one_line(run: Callable[..., Ended], arguments: list[str]) -> None:
    """With exit code 1, as in other commands."""
    code, out, err = run("ls", *arguments)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "missing" in err


def test_show_without_matplotlib_says_how_to_install_it(
    run: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "wds_real.explore.figures", None)
    code, _, err = run("show", TINY)
    assert code == 2
    assert "Install it: pip install 'wds_real[plot]'" in err


def cat(*arguments: str) -> bytes:
    return subprocess.run([sys.executable, "-m", "wds_real", "cat", *arguments], check=True, capture_output=True).stdout


def test_cat_gives_the_bytes_of_the_shard() -> None:
    """Of the image, and of its label."""
    ds = wds_real.open_dataset(TINY)
    assert cat(str(TINY), KEY) == ds.reader.read(8)
    label = cat(str(TINY), f"{KEY}.json")
    assert label == encode_label(ds.index.label(8))
    shard = (TINY / ds.manifest.shards[int(ds.index.shard[8])].name).read_bytes()
    start = int(ds.index.json_offset[8])
    assert shard[start : start + int(ds.index.json_num_bytes[8])] == label


def test_cat_writes_no_image_to_a_terminal() -> None:
    """But a label, with a line end."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "wds_real", "cat", str(TINY)]
    refused = subprocess.run([*command, KEY], check=False, stdout=theirs, stderr=subprocess.PIPE, text=True)
    assert refused.returncode == 2
    assert "Write it to a file: wds-real cat ... >" in refused.stderr
    subprocess.run([*command, f"{KEY}.json"], check=True, stdout=theirs)
    assert os.read(ours, 1000).endswith(b"}\r\n")
    os.close(ours)
    os.close(theirs)


def test_cat_into_a_closed_pipe_ends_without_a_word() -> None:
    """As ``| head -c 1`` makes it."""
    command = f"{sys.executable} -m wds_real cat {TINY} {KEY} | true; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True)
    assert ended.stderr == ""
    assert ended.stdout in ("0\n", "141\n")
