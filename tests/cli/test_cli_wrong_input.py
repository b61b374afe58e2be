"""Wrong input to pack, verify, info and eval: one clear line, the exit code of its kind, and nothing written."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.commands import KEY, MODEL, SHARD, Ended, expect_one_line, in_child, messages

if TYPE_CHECKING:
    from collections.abc import Callable

PARTIAL = "--allow-partial"
WRONG_INPUTS: dict[str, tuple[list[str], int, list[str]]] = {
    "missing tar": (["pack", "nope.tar", "new"], 1, ["nope.tar", "no such file"]),
    "part of a tar's images": (["pack", "val.tar", "new"], 1, ["49,880 of the 50,000", PARTIAL]),
    "cut tar": (["pack", "cut.tar", "new", PARTIAL], 1, ["cut.tar", "archive is cut"]),
    "web page": (["pack", "page.tar", "new", PARTIAL], 1, ["page.tar", "web page"]),
    "empty file": (["pack", "empty.tar", "new", PARTIAL], 1, ["empty.tar", "empty"]),
    "other names": (["pack", "others.tar", "new", PARTIAL], 1, ["others.tar", "n01440764_10026.JPEG"]),
    "a folder that is no source": (["pack", "shards", "new", PARTIAL], 1, ["shards", "not the name of"]),
    "missing real.json": (["pack", "val.tar", "new", PARTIAL, "--real-json", "no.json"], 1, ["no.json"]),
    "short real.json": (["pack", "val.tar", "new", PARTIAL, "--real-json", "short.json"], 1, ["short.json", "50,000"]),
    "real.json of words": (["pack", "val.tar", "new", PARTIAL, "--real-json", "words.json"], 1, ["words.json"]),
    "real.json is a page": (["pack", "val.tar", "new", PARTIAL, "--real-json", "page.json"], 1, ["not JSON"]),
    "real.json nests": (["pack", "val.tar", "new", PARTIAL, "--real-json", "nested.json"], 1, ["nested.json"]),
    "finished set": (["pack", "val.tar", "shards", PARTIAL], 1, ["shards", "--overwrite"]),
    "root is a file": (["pack", "val.tar", "empty.tar", PARTIAL], 1, ["empty.tar"]),
    "root is a URL": (["pack", "val.tar", "ftp://host/x", PARTIAL], 1, ["ftp://...", "no such kind of store"]),
    "no samples a shard": (["pack", "val.tar", "new", "--samples-per-shard", "0"], 2, ["--samples-per-shard"]),
    "no jobs": (["pack", "val.tar", "new", "-j", "0"], 2, ["--jobs"]),
    "no source": (["pack"], 2, ["SOURCE"]),
    "bad option": (["pack", "val.tar", "--fast"], 2, ["--fast"]),
    "bad command": (["unpack"], 2, ["unpack"]),
    "bad level": (["verify", "shards", "--level", "deep"], 2, ["--level"]),
    "verify: missing root": (["verify", "nope"], 1, ["nope: no such folder"]),
    "verify: missing manifest": (["verify", "unfinished"], 4, ["unfinished: no manifest.json", "wds-real pack"]),
    "verify: missing index": (["verify", "no_index"], 4, ["no_index/index.json"]),
    "info: missing root": (["info", "nope"], 1, ["nope: no such folder"]),
    "info: missing manifest": (["info", "unfinished"], 4, ["unfinished: no manifest.json"]),
    "info: missing index": (["info", "no_index"], 4, ["no_index/index.json"]),
    "info: unknown key": (["info", "shards", "ILSVRC2012_val_00000121"], 2, ["ILSVRC2012_val_00000121", "120 samples"]),
}  # fmt: skip
WRONG_EVALUATIONS: dict[str, tuple[list[str], int, list[str]]] = {
    "missing root": (["nope", "-m", MODEL], 1, ["nope: no such folder"]),
    "missing manifest": (["unfinished", "-m", MODEL], 4, ["unfinished: no manifest.json"]),
    "missing index": (["no_index", "-m", MODEL], 4, ["no_index/index.json"]),
    "damaged shard": (["damaged", "-m", MODEL], 4, [SHARD, KEY, "checksum", "wds-real verify damaged"]),
    "cut shard": (["cut", "-m", MODEL], 4, [SHARD, "cannot be read"]),
    "lost shard": (["lost", "-m", MODEL], 4, [SHARD, "cannot be read"]),
    "no model": (["shards"], 2, ["--model"]),
    "timm: not a model": (["shards", "-m", "timm:nope"], 2, ["timm:nope", "timm"]),
    "torchvision: not a model": (["shards", "-m", "torchvision:nope"], 2, ["torchvision:nope", "torchvision"]),
    "missing module": (["shards", "-m", "no.such:model"], 2, ["no.such:model", "no module 'no'"]),
    "missing factory": (["shards", "-m", "wds_real.synthetic:nope"], 2, ["wds_real.synthetic:nope"]),
    "relative module": (["shards", "-m", ".models:resnet50"], 2, [".models:resnet50"]),
    "empty module": (["shards", "-m", ":resnet50"], 2, [":resnet50"]),
    "empty factory": (["shards", "-m", "timm:"], 2, ["timm:", "not a model"]),
    "factory is no function": (["shards", "-m", "wds_real:__version__"], 2, ["wds_real:__version__"]),
    "factory makes no model": (["shards", "-m", "builtins:dict"], 2, ["builtins:dict"]),
    "other number of classes": (["shards", "-m", "torch.nn:Flatten"], 2, ["1000"]),
    "missing program": (["shards", "-m", "nofile.pt2"], 2, ["nofile.pt2", "no such file"]),
    "program of garbage": (["shards", "-m", "garbage.pt2"], 2, ["garbage.pt2", "torch.export.save"]),
    "empty program": (["shards", "-m", "empty.pt2"], 2, ["empty.pt2", "torch.export.save"]),
    "bare word": (["shards", "-m", "resnet50"], 2, ["resnet50", "timm:NAME"]),
    "empty word": (["shards", "-m", ""], 2, ["timm:NAME"]),
    "batch size 0": (["shards", "-m", MODEL, "-b", "0"], 2, ["--batch-size"]),
    "batch size -1": (["shards", "-m", MODEL, "-b", "-1"], 2, ["--batch-size"]),
    "batch size in words": (["shards", "-m", MODEL, "-b", "many"], 2, ["--batch-size"]),
    "another split": (["shards", "-m", MODEL, "--split", "train"], 2, ["train", "validation"]),
    "split without end": (["shards", "-m", MODEL, "--split", "validation[:10%"], 2, ["validation[:10%"]),
    "split with a step": (["shards", "-m", MODEL, "--split", "validation[::0]"], 2, ["validation[::0]"]),
    "split without a sample": (["shards", "-m", MODEL, "--split", "validation[200:]"], 2, ["validation[200:]"]),
    "no threads": (["shards", "-m", MODEL, "-j", "0"], 2, ["--threads"]),
    "no pixels": (["shards", "-m", MODEL, "--img-size", "0"], 2, ["--img-size"]),
    "crop of nothing": (["shards", "-m", MODEL, "--crop-pct", "0"], 2, ["--crop-pct"]),
    "crop is no number": (["shards", "-m", MODEL, "--crop-pct", "nan"], 2, ["crop"]),
    "std is zero": (["shards", "-m", MODEL, "--std", "0", "0", "0"], 2, ["std"]),
    "two means": (["shards", "-m", MODEL, "--mean", "0", "0"], 2, ["--mean"]),
    "unknown device": (["shards", "-m", MODEL, "--device", "abacus"], 2, ["abacus"]),
    "bad option": (["shards", "-m", MODEL, "--fast"], 2, ["--fast"]),
}  # fmt: skip
# Run in a child process too: the default run takes one of each way to fail, the slow tests take all.
ALSO_IN_A_CHILD = [
    "missing tar", "cut tar", "web page", "other names", "short real.json", "finished set", "bad option",
    "verify: missing manifest", "info: unknown key", "eval: damaged shard", "eval: program of garbage",
]  # fmt: skip
EVERYTHING_WRONG = WRONG_INPUTS | {
    f"eval: {name}": (["eval", *arguments], code, words) for name, (arguments, code, words) in WRONG_EVALUATIONS.items()
}


@pytest.fixture
def wrong(here: Path) -> None:
    """Add one wrong file or folder of each kind to the working folder."""
    tar = (here / "val.tar").read_bytes()
    Path("cut.tar").write_bytes(tar[: len(tar) // 2])
    Path("page.tar").write_bytes(b"<!DOCTYPE html><title>Sign in</title>")
    Path("empty.tar").write_bytes(b"")
    with tarfile.open("others.tar", "w") as others:
        others.add("val.tar", "ILSVRC2012_val_00000001.JPEG")
        others.add("val.tar", "n01440764_10026.JPEG")
    Path("short.json").write_text("[[1], [2]]")
    Path("words.json").write_text(json.dumps([["sea snake"]] + [[]] * 49_999))
    Path("page.json").write_text("<html>")
    Path("nested.json").write_text("[" * 100_000)
    for name in ("unfinished", "damaged", "cut", "lost", "no_index"):
        shutil.copytree("shards", name)
    Path("unfinished/manifest.json").unlink()
    Path("no_index/index.json").unlink()
    Path("lost", SHARD).unlink()
    os.truncate(Path("cut", SHARD), 1 << 14)
    with tarfile.open(Path("damaged", SHARD)) as shard:
        place = shard.getmember(f"{KEY}.jpg").offset_data + 100
    with Path("damaged", SHARD).open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    Path("garbage.pt2").write_bytes(b"not a program" * 100)
    Path("empty.pt2").write_bytes(b"")


@pytest.mark.usefixtures("wrong")
@pytest.mark.parametrize(("arguments", "code", "words"), EVERYTHING_WRONG.values(), ids=EVERYTHING_WRONG)
def test_wrong_input_gives_one_line_and_its_exit_code(
    run: Callable[..., Ended], arguments: list[str], code: int, words: list[str]
) -> None:
    """Wrong input gives its exit code, nothing on stdout, one line on stderr that names the fault, and no new set."""
    expect_one_line(run(*arguments), code, *words)
    assert not Path("new").exists()


@pytest.mark.usefixtures("wrong")
@pytest.mark.parametrize(
    "name",
    [name if name in ALSO_IN_A_CHILD else pytest.param(name, marks=pytest.mark.slow) for name in EVERYTHING_WRONG],
)
def test_wrong_input_in_a_child_process_prints_no_more(name: str) -> None:
    """Native libraries, logging and leftover threads add no line to stderr."""
    arguments, code, words = EVERYTHING_WRONG[name]
    expect_one_line(in_child(*arguments), code, *words)
    assert not Path("new").exists()


@pytest.mark.parametrize("device", ["cuda", "mps", "cuda:99"])
@pytest.mark.usefixtures("wrong")
def test_a_missing_device_is_a_usage_error(run: Callable[..., Ended], device: str) -> None:
    """An accelerator that this machine lacks is named, with exit code 2."""
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None and accelerator.type == device:
        pytest.skip(f"this machine has {device}")
    expect_one_line(run("eval", "shards", "-m", MODEL, "--device", device), 2, device)


@pytest.mark.usefixtures("wrong")
@pytest.mark.parametrize(("root", "words"), [("damaged", [SHARD, KEY]), ("cut", [SHARD]), ("lost", [SHARD])])
def test_verify_reports_damage_and_ends_with_4(root: str, words: list[str]) -> None:
    """Each problem is a line on stderr, then comes their number; stdout stays empty."""
    ended = in_child("verify", root)
    assert (ended.code, ended.out) == (4, "")
    *problems, last = messages(ended.err)
    assert all(word in "\n".join(problems) for word in words)
    assert last == f"error: {root}: {len(problems)} problem{'s' * (len(problems) != 1)} found"


@pytest.mark.usefixtures("wrong")
def test_eval_records_a_damaged_sample_by_its_key(run: Callable[..., Ended]) -> None:
    """--on-error record names the unreadable image, counts it as failed, and prints no traceback."""
    arguments = ["eval", "damaged", "-m", MODEL, "-b", "50", "--on-error", "record"]
    result = json.loads(run(*arguments, "--json").out)
    assert result["coverage"]["failed"] == [KEY]
    assert result["accuracy"]["original_top1"]["failed"] == 1
    code, out, err = in_child(*arguments)
    assert code == 0
    assert "119 seen once, 0 missing, 0 twice, 1 unreadable" in out
    assert KEY in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("place", "arguments", "code"),
    [
        ("shards/manifest.json", ["info", "shards"], 1),
        ("shards/index.json", ["info", "shards"], 4),
        (f"shards/{SHARD}", ["verify", "shards"], 4),
        (f"shards/{SHARD}", ["eval", "shards", "-m", MODEL], 4),
        ("val.tar", ["pack", "val.tar", "new", PARTIAL], 1),
        ("real.json", ["pack", "val.tar", "new", PARTIAL, "--real-json", "real.json"], 1),
        ("predictions.csv", ["score", "predictions.csv"], 1),
        ("images/ILSVRC2012_val_00000001.JPEG", ["pack", "images", "new", PARTIAL], 1),
    ],
)
def test_a_named_pipe_is_refused(
    here: Path, run: Callable[..., Ended], place: str, arguments: list[str], code: int
) -> None:
    """In place of any file: reading it does not wait for a writer."""
    (here / place).unlink(missing_ok=True)
    (here / place).parent.mkdir(exist_ok=True)
    os.mkfifo(here / place)
    ended = run(*arguments)
    assert ended.code == code
    assert "Traceback" not in ended.err
    assert Path(place).name in ended.err
