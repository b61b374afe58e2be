"""Bad input to every command and to the Python API: one clear line, the exit code of its kind, nothing changed."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.bad_files import BAD_KEY, BAD_SHARD, write_bad_files
from support.commands import MODEL, SHARD, Ended, expect_one_line, in_child, messages

import wds_real
from wds_real.cli.main import main
from wds_real.errors import (
    CoverageError,
    ManifestError,
    PlanError,
    PredictionsError,
    ShardError,
    SourceError,
    StoreError,
    WdsRealError,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Callable

PARTIAL = "--allow-partial"
# Command line, exit code, and what the message says; M stands for a model. The files are those of
# `support.bad_files`.
BAD_INPUTS: list[tuple[str, int, str]] = [
    ("unpack", 2, "unpack"),
    ("--fast", 2, "--fast"),
    ("pack nope.tar new --allow-partial", 1, "no such file"),
    ("pack cut.tar new --allow-partial", 1, "archive is cut"),
    ("pack page.tar new --allow-partial", 1, "web page"),
    ("pack empty.tar new --allow-partial", 1, "empty"),
    ("pack gz.tar new --allow-partial", 1, "gzip"),
    ("pack zip.tar new --allow-partial", 1, "zip archive"),
    ("pack blank.tar new --allow-partial", 1, "holds no validation image"),
    ("pack link.tar new --allow-partial", 1, "ILSVRC2012_val_00000002.JPEG"),
    ("pack twice.tar new --allow-partial", 1, "twice"),
    ("pack text.tar new --allow-partial", 1, "is not a JPEG: starts with 68 65"),
    ("pack hollow.tar new --allow-partial", 1, "is not a JPEG: it is empty"),
    ("pack wnid.tar new --allow-partial", 1, "is n01751748"),
    ("pack beyond.tar new --allow-partial", 1, "not the name of a validation image"),
    ("pack flipped.tar new --allow-partial", 1, "header checksum is 4918"),
    ("pack trailing.tar new --allow-partial", 1, "trailing.tar"),
    ("pack others.tar new --allow-partial", 1, "n01440764_10026.JPEG"),
    ("pack shards new --allow-partial", 1, "not the name of"),
    ("pack nothing new --allow-partial", 1, "holds no validation image"),
    ("pack texts new --allow-partial", 1, "readme.txt"),
    ("pack p/sheet.xlsx new --allow-partial", 1, "not a whole tar"),
    ("pack shards/nope.tar new --allow-partial", 1, "no such file"),
    ("pack ftp://host/val.tar new --allow-partial", 1, "no such kind of store"),
    ("pack '' new --allow-partial", 1, "empty"),
    ("pack val.tar new", 1, "49,980 of the 50,000"),
    ("pack val.tar new --allow-partial --real-json no.json", 1, "no.json"),
    ("pack val.tar new --allow-partial --real-json short.json", 1, "50,000"),
    ("pack val.tar new --allow-partial --real-json words.json", 1, "words.json"),
    ("pack val.tar new --allow-partial --real-json page.json", 1, "not JSON"),
    ("pack val.tar new --allow-partial --real-json nested.json", 1, "nested.json"),
    ("pack val.tar new --allow-partial --real-json high.json", 1, "is [1000]"),
    ("pack val.tar new --allow-partial --real-json double.json", 1, "is [1, 1]"),
    ("pack val.tar new --allow-partial --real-json flag.json", 1, "is [true]"),
    ("pack val.tar new --allow-partial --real-json flat.json", 1, "entry 0"),
    ("pack val.tar new --allow-partial --real-json mapping.json", 1, "found a dict"),
    ("pack val.tar new --allow-partial --real-json binary.json", 1, "not JSON"),
    ("pack val.tar new --allow-partial --real-json nothing", 1, "Is a directory"),
    ("pack val.tar new --allow-partial --samples-per-shard 0", 2, "--samples-per-shard"),
    ("pack val.tar new --allow-partial --samples-per-shard -1", 2, "--samples-per-shard"),
    ("pack val.tar new --allow-partial --samples-per-shard many", 2, "--samples-per-shard"),
    ("pack val.tar new --allow-partial -j 0", 2, "--jobs"),
    ("pack val.tar new --allow-partial -j many", 2, "--jobs"),
    ("pack val.tar new --allow-partial -j 1025", 2, "--jobs"),
    ("pack val.tar new --allow-partial --fast", 2, "--fast"),
    ("pack val.tar shards --allow-partial", 1, "--overwrite"),
    ("pack val.tar empty.tar --allow-partial", 1, "empty.tar"),
    ("pack val.tar val.tar/x --allow-partial", 1, "val.tar/x"),
    ("pack val.tar ftp://host/x --allow-partial", 1, "no such kind of store"),
    ("pack val.tar http://example.org/x --allow-partial", 1, "plain http"),
    ("pack val.tar https://host:port/x --allow-partial", 1, "not a URL"),
    ("pack val.tar '' --allow-partial", 1, "empty"),
    ("pack val.tar s3://b/x --allow-partial --storage-option region", 2, "NAME=VALUE"),
    ("pack val.tar s3://b/x --allow-partial --storage-option timeout=soon", 1, "timeout"),
    ("pack", 2, "SOURCE"),
    ("pack val.tar one two", 2, "two"),
    ("verify nope", 1, "nope: no such folder"),
    ("verify unfinished", 4, "unfinished: no manifest.json"),
    ("verify no_index", 4, "no_index/index.json"),
    ("verify page", 4, "page/manifest.json: not JSON"),
    ("verify blank", 4, "not JSON"),
    ("verify list", 4, "expected a JSON object"),
    ("verify cut_manifest", 4, "not JSON"),
    ("verify edited", 4, "edited or damaged"),
    ("verify newer", 4, '"version": 2'),
    ("verify double_field", 4, "occurs twice"),
    ("verify cut_index", 4, "200 bytes"),
    ("verify page_index", 4, "page_index/index.json"),
    ("verify nothing", 4, "no manifest.json"),
    ("verify val.tar", 1, "val.tar"),
    ("verify ''", 1, "empty"),
    ("verify ftp://x/y", 1, "no such kind of store"),
    ("verify http://127.0.0.1:1/x --storage-option give_up_after=0.2", 1, "no connection"),
    ("verify https://host:port/x", 1, "not a URL"),
    ("verify shards -j 0", 2, "--jobs"),
    ("verify shards -j many", 2, "--jobs"),
    ("verify shards -j 100000", 2, "--jobs"),
    ("verify shards --level deep", 2, "--level"),
    ("verify shards --storage-option region=x", 1, "storage options"),
    ("info nope", 1, "nope: no such folder"),
    ("info unfinished", 4, "no manifest.json"),
    ("info no_index", 4, "no_index/index.json"),
    ("info page", 4, "not JSON"),
    ("info val.tar", 1, "val.tar"),
    ("info ftp://host/x", 1, "no such kind of store"),
    ("info shards ILSVRC2012_val_00000121", 2, "20 samples"),
    ("info shards nope", 2, "nope is not one of"),
    ("info shards --fast", 2, "--fast"),
    ("index tars/nope.tar -o new", 1, "no such shard"),
    ("index 'tars/{a..b' -o new", 1, "braces"),
    ("index '{tars,texts}/a.tar' -o new", 1, "several folders"),
    ("index 'tars/{good,good}.tar' -o new", 1, "twice"),
    ("index texts -o new", 1, "no tar file"),
    ("index tars/nolabel.tar -o new", 1, "a has no label"),
    ("index tars/noimage.tar -o new", 1, "0 images"),
    ("index tars/two.tar -o new", 1, "2 images"),
    ("index tars/high.tar -o new", 1, "a has no label"),
    ("index tars/disagree.tar -o new", 1, "says class 66"),
    ("index tars/notjson.tar -o new", 1, "not json"),
    ("index tars/latin.tar -o new", 1, "not cls"),
    ("index tars/again.tar -o new", 1, "occurs twice"),
    ("index tars/large.tar -o new", 1, "1,048,578 bytes"),
    ("index tars/nothing.tar -o new", 1, "hold no sample"),
    ("index tars/gzip.tar -o new", 1, "gzip.tar"),
    ("index tars/cut.tar -o new", 1, "archive is cut"),
    ("index tars/keys.tar -o new", 1, "such as a"),
    ("index tars/real.tar -o new", 1, "real_label"),
    ("index pipe:cat -o new", 1, "pipe:cat"),
    ("index tars/good.tar::tars/two.tar -o new", 1, "::"),
    ("index '' -o new", 1, "empty"),
    ("index tars/good.tar -o shards", 1, "--overwrite"),
    ("index tars/good.tar -o val.tar", 1, "val.tar"),
    ("index tars/good.tar -o ftp://x/y", 1, "ftp://x/y"),
    ("index shards", 1, "--overwrite"),
    ("index", 2, "SPEC"),
    ("score nope.csv", 1, "no such file"),
    ("score p/empty.csv", 1, "empty"),
    ("score p/page.csv", 1, "p/page.csv"),
    ("score p/header.csv", 3, "50,000 missing"),
    ("score p/names.csv", 1, "no column of classes"),
    ("score p/high.csv", 1, "'1000' is not a class"),
    ("score p/low.csv", 1, "'-1' is not a class"),
    ("score p/nan.csv", 1, "'nan' is not a class"),
    ("score p/half.csv", 1, "'1.5' is not a class"),
    ("score p/word.csv", 1, "'cat' is not a class"),
    ("score p/twice.csv", 3, "more than one prediction"),
    ("score p/unknown.csv", 1, "such as cat"),
    ("score p/part.csv", 3, "49,999 missing"),
    ("score p/ragged.csv", 1, "row 3"),
    ("score p/lone.csv", 1, "no column of classes"),
    ("score p/short.csv", 1, "3 predictions without names"),
    ("score p/binary.csv", 1, "p/binary.csv"),
    ("score p/sheet.xlsx", 1, "unknown kind of file"),
    ("score p/plain", 1, "unknown kind of file"),
    ("score p", 1, "folder"),
    ("score p/page.json", 1, "p/page.json"),
    ("score p/nested.json", 1, "p/nested.json"),
    ("score p/number.json", 1, "p/number.json"),
    ("score p/list.json", 1, "p/list.json"),
    ("score p/lines.jsonl", 1, "p/lines.jsonl"),
    ("score p/object.npy", 1, "p/object.npy"),
    ("score p/short.npy", 1, "5 predictions"),
    ("score p/columns.npy", 1, "p/columns.npy"),
    ("score p/text.npy", 1, "p/text.npy"),
    ("score p/cube.npy", 1, "p/cube.npy"),
    ("score p/other.npz", 1, "p/other.npz"),
    ("score p/garbage.npy", 1, "p/garbage.npy"),
    ("score p/garbage.npz", 1, "p/garbage.npz"),
    ("score p/garbage.parquet", 1, "p/garbage.parquet"),
    ("score p/part.csv --class-column nope", 1, "'nope'"),
    ("score p/part.csv --name-column nope", 1, "'nope'"),
    ("score p/part.csv --allow-partial --threshold nan", 1, "threshold is nan"),
    ("score p/part.csv --allow-partial --threshold 2", 1, "threshold is 2.0"),
    ("score p/part.csv --threshold many", 2, "--threshold"),
    ("score p/part.csv --real-json page.json", 1, "not JSON"),
    ("score p/part.csv --real-json short.json --threshold 0.5", 2, "exclude"),
    ("score p/part.csv p/other.csv", 2, "p/other.csv"),
    ("score", 2, "PREDICTIONS"),
    ("compare p/part.csv", 2, "give two or more"),
    ("compare", 2, "A B [C ...]"),
    ("compare p/part.csv p/other.csv p/part.csv --class-column-b old", 2, "are for two files"),
    ("compare p/part.csv p/other.csv p/part.csv", 1, "the 3 files have no image with a label in common"),
    ("compare p/part.csv nope.csv", 1, "no such file"),
    ("compare p/part.csv p/other.csv", 1, "in common"),
    ("compare p/part.csv p/high.csv", 1, "p/high.csv"),
    ("compare p/part.csv p/part.csv --against cats", 2, "--against"),
    ("compare p/part.csv p/part.csv --real-json short.json", 1, "50,000"),
    ("merge nope", 1, "nope"),
    ("merge runs/empty", 1, "not the --output"),
    ("merge runs/page", 1, "run.json"),
    ("merge runs/other", 1, "not written by this version"),
    ("merge runs/unfinished", 3, "not finished"),
    ("merge runs/whole --root nope", 1, "no such folder"),
    ("merge runs/whole --root edited", 4, "edited or damaged"),
    ("merge runs/whole --root runs", 4, "no manifest.json"),
    ("merge runs/whole --format xlsx", 2, "--format"),
    ("merge val.tar", 1, "val.tar"),
    ("merge", 2, "DIR"),
    ("eval nope -m M", 1, "nope: no such folder"),
    ("eval unfinished -m M", 4, "no manifest.json"),
    ("eval no_index -m M", 4, "no_index/index.json"),
    ("eval page -m M", 4, "not JSON"),
    ("eval edited -m M", 4, "edited or damaged"),
    ("eval cut_index -m M", 4, "200 bytes"),
    ("eval val.tar -m M", 1, "val.tar"),
    ("eval ftp://x/y -m M", 1, "no such kind of store"),
    ("eval damaged -m M", 4, "checksum"),
    ("eval cut -m M", 4, "cannot be read"),
    ("eval lost -m M", 4, "cannot be read"),
    ("eval shards -m M -o val.tar", 1, "val.tar"),
    ("eval shards -m M -o ''", 1, "empty"),
    ("eval shards -m M -o val.tar/x", 1, "val.tar: is not a folder"),
    ("eval shards -m M -o s3://b/run", 1, "--output s3://b/run: no credentials were found"),
    ("eval shards -m M -o runs/other", 1, "not written by this version"),
    ("eval shards -m M -b 10 -o runs/whole", 1, "batch_size was 5"),
    ("eval shards -m M --cache-size many", 2, "--cache-size"),
    ("eval shards -m M --timeout 0", 2, "--timeout"),
    ("eval shards -m M --timeout soon", 2, "--timeout"),
    ("eval shards -m M --amp-dtype int8", 2, "--amp-dtype"),
    ("eval shards -m M --mean a b c", 2, "--mean"),
    ("eval shards -m M --mean 0 0", 2, "--mean"),
    ("eval shards -m M --mean nan nan nan", 2, "mean"),
    ("eval shards -m M --std 0 0 0", 2, "std"),
    ("eval shards -m M --std inf 1 1", 2, "std"),
    ("eval shards -m M --interpolation cubic", 2, "--interpolation"),
    ("eval shards -m M --crop-mode middle", 2, "--crop-mode"),
    ("eval shards -m M --crop-pct 0", 2, "--crop-pct"),
    ("eval shards -m M --crop-pct -1", 2, "--crop-pct"),
    ("eval shards -m M --crop-pct nan", 2, "crop"),
    ("eval shards -m M --img-size 0", 2, "--img-size"),
    ("eval shards -m M --img-size -3", 2, "--img-size"),
    ("eval shards -m M -b 0", 2, "--batch-size"),
    ("eval shards -m M -b -1", 2, "--batch-size"),
    ("eval shards -m M -b many", 2, "--batch-size"),
    ("eval shards -m M -j 0", 2, "--threads"),
    ("eval shards -m M -j many", 2, "--threads"),
    ("eval shards -m M -j 1025", 2, "--threads"),
    ("eval shards -m M -b 65537", 2, "--batch-size"),
    ("eval shards -m M -m M --models-at-once 1025", 2, "--models-at-once"),
    ("diagnose shards -m M -j 1000000", 2, "--threads"),
    ("diagnose shards -m M -b 1000000", 2, "--batch-size"),
    ("eval shards -m M --split train", 2, "'train'"),
    ("eval shards -m M --split 'validation[:10%'", 2, "validation[:10%"),
    ("eval shards -m M --split 'validation[::0]'", 2, "validation[::0]"),
    ("eval shards -m M --split 'validation[200:]'", 2, "validation[200:]"),
    ("eval shards -m M --split 'validation[:200%]'", 2, "percents"),
    ("eval shards -m M --split ''", 2, "split"),
    ("eval shards -m M --on-error skip", 2, "--on-error"),
    ("eval shards -m M --device abacus", 2, "abacus"),
    ("eval shards -m M --device cpu:x", 2, "cpu:x"),
    ("eval shards -m M --storage-option region=x", 1, "storage options"),
    ("eval shards -m M --fast", 2, "--fast"),
    ("eval shards -m timm:nope", 2, "timm"),
    ("eval shards -m torchvision:nope", 2, "torchvision"),
    ("eval shards -m timm:", 2, "not a model"),
    ("eval shards -m no.such:model", 2, "no module 'no'"),
    ("eval shards -m wds_real.synthetic:nope", 2, "wds_real.synthetic:nope"),
    ("eval shards -m .models:resnet50", 2, ".models:resnet50"),
    ("eval shards -m :resnet50", 2, ":resnet50"),
    ("eval shards -m wds_real:__version__", 2, "wds_real:__version__"),
    ("eval shards -m builtins:dict", 2, "builtins:dict"),
    ("eval shards -m torch.nn:Flatten", 2, "1000"),
    ("eval shards -m os:getcwd", 2, "os:getcwd"),
    ("eval shards -m json:loads", 2, "json:loads"),
    ("eval shards -m nofile.pt2", 2, "no such file"),
    ("eval shards -m garbage.pt2", 2, "torch.export.save"),
    ("eval shards -m empty.pt2", 2, "torch.export.save"),
    ("eval shards -m model.pth", 2, "model.pth"),
    ("eval shards -m resnet50", 2, "timm:NAME"),
    ("eval shards -m ''", 2, "timm:NAME"),
    ("eval shards", 2, "--model"),
    ("eval", 2, "--model"),
    ("demo --num-images 0", 2, "--num-images"),
    ("demo --num-images 50001", 2, "--num-images"),
    ("demo --processes 0", 2, "--processes"),
    ("demo --keep val.tar", 1, "val.tar"),
    ("demo --fast", 2, "--fast"),
]
# Run in a process of their own too: one of each way to fail.
ALSO_IN_A_CHILD = [
    "pack cut.tar new --allow-partial", "pack val.tar shards --allow-partial", "verify unfinished",
    "info shards nope", "index tars/cut.tar -o new", "score p/high.csv", "merge runs/unfinished", "eval damaged -m M",
    "eval shards -m garbage.pt2",
]  # fmt: skip


def words(command: str) -> list[str]:
    return [MODEL if word == "M" else word for word in shlex.split(command)]


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of bad files, with a finished and an unfinished run. Read only."""
    folder = tmp_path_factory.mktemp("bad")
    write_bad_files(folder)
    for name in ("whole", "unfinished"):
        output = str(folder / "runs" / name)
        with pytest.raises(SystemExit, match="0"):
            main(["eval", str(folder / "shards"), "-m", MODEL, "-b", "5", "-o", output])
    for record in (folder / "runs" / "unfinished" / "records").iterdir():
        record.unlink()
    return folder


@pytest.fixture
def bad(bad_files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as the working folder."""
    monkeypatch.chdir(bad_files)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return bad_files


def state(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """Return what tells whether a file was changed, for all files below a folder."""
    found = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}


@pytest.mark.parametrize(("command", "code", "phrase"), BAD_INPUTS, ids=[command for command, _, _ in BAD_INPUTS])
def test_a_bad_command_is_one_line_and_changes_nothing(
    bad: Path, run: Callable[..., Ended], command: str, code: int, phrase: str
) -> None:
    """Its exit code, nothing on stdout, one line on stderr that names the fault; every file is as it was."""
    before = state(bad)
    expect_one_line(run(*words(command)), code, phrase)
    assert state(bad) == before


@pytest.mark.usefixtures("bad")
@pytest.mark.parametrize("command", ALSO_IN_A_CHILD)
def test_a_bad_command_in_a_process_of_its_own_prints_no_more(command: str) -> None:
    """Native libraries, logging and leftover threads add no line to stderr."""
    ((code, phrase),) = [(code, phrase) for other, code, phrase in BAD_INPUTS if other == command]
    expect_one_line(in_child(*words(command)), code, phrase)


# Calls of the Python API, the error, and what its message says.
BAD_CALLS: list[tuple[Callable[[], object], type[WdsRealError], str]] = [
    (lambda: wds_real.open_dataset("nope"), StoreError, "no such folder"),
    (lambda: wds_real.open_dataset(""), StoreError, "empty"),
    (lambda: wds_real.open_dataset("unfinished"), ManifestError, "no manifest.json"),
    (lambda: wds_real.open_dataset("edited"), ManifestError, "edited or damaged"),
    (lambda: wds_real.open_dataset("cut_index"), ManifestError, "200 bytes"),
    (lambda: wds_real.open_dataset("ftp://x/y"), StoreError, "no such kind of store"),
    (lambda: wds_real.open_dataset("shards", split="test"), PlanError, "split is 'test'"),
    (lambda: wds_real.open_dataset("shards", split="validation[50:]"), PlanError, "none of the 20 samples"),
    (lambda: wds_real.open_dataset("shards", storage_options={"region": "x"}), StoreError, "storage options"),
    (lambda: wds_real.open_dataset("damaged")[10], ShardError, "checksum"),
    (lambda: wds_real.open_dataset("lost")[10], ShardError, "cannot be read"),
    (lambda: list(wds_real.Loader(wds_real.open_dataset("damaged"))), ShardError, BAD_KEY),
    (lambda: list(wds_real.Loader(wds_real.open_dataset("cut"))), ShardError, BAD_SHARD),
    (lambda: wds_real.Loader(wds_real.open_dataset("shards"), batch_size=0), PlanError, "batch_size"),
    (lambda: wds_real.Loader(wds_real.open_dataset("shards"), rank=2, world_size=2), PlanError, "rank"),
    (lambda: wds_real.open_source("nope.tar"), SourceError, "no such file"),
    (lambda: wds_real.open_source("cut.tar", allow_partial=True), SourceError, "archive is cut"),
    (lambda: wds_real.open_source("val.tar"), SourceError, "49,980 of the 50,000"),
    (lambda: wds_real.open_source("", allow_partial=True), SourceError, "empty"),
    (lambda: wds_real.score("nope.csv"), PredictionsError, "no such file"),
    (lambda: wds_real.score("p/high.csv"), PredictionsError, "'1000' is not a class"),
    (lambda: wds_real.score("p/part.csv"), CoverageError, "49,999 missing"),
    (lambda: wds_real.RealAccuracy().compute(), WdsRealError, ""),
]


@pytest.mark.usefixtures("bad")
@pytest.mark.parametrize("place", range(len(BAD_CALLS)))
def test_a_bad_call_raises_an_error_of_this_package(place: int) -> None:
    """The error has its kind, and its message names the fault."""
    call, kind, phrase = BAD_CALLS[place]
    with pytest.raises(kind) as raised:
        call()
    assert phrase in str(raised.value)


def test_the_tables_are_large_and_name_no_case_twice() -> None:
    """At least 150 command lines, over every command."""
    commands = [command for command, _, _ in BAD_INPUTS]
    assert len(set(commands)) == len(commands) >= 150
    assert {"compare", "demo", "eval", "index", "info", "merge", "pack", "score", "verify"} <= {
        command.split()[0] for command in commands
    }


@pytest.mark.parametrize("device", ["cuda", "mps", "cuda:99"])
@pytest.mark.usefixtures("bad")
def test_a_missing_device_is_a_usage_error(run: Callable[..., Ended], device: str) -> None:
    """An accelerator that this machine lacks is named, with exit code 2."""
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None and accelerator.type == device:
        pytest.skip(f"this machine has {device}")
    expect_one_line(run("eval", "shards", "-m", MODEL, "--device", device), 2, device)


@pytest.mark.usefixtures("bad")
@pytest.mark.parametrize(
    ("root", "words"), [("damaged", [BAD_SHARD, BAD_KEY]), ("cut", [BAD_SHARD]), ("lost", [BAD_SHARD])]
)
def test_verify_reports_damage_and_ends_with_4(root: str, words: list[str]) -> None:
    """Each problem is a line on stderr, then comes their number; stdout stays empty."""
    ended = in_child("verify", root)
    assert (ended.code, ended.out) == (4, "")
    *problems, last = messages(ended.err)
    assert all(word in "\n".join(problems) for word in words)
    assert last == f"error: {root}: {len(problems)} problem{'s' * (len(problems) != 1)} found"


@pytest.mark.usefixtures("bad")
def test_eval_records_a_damaged_sample_by_its_key(run: Callable[..., Ended]) -> None:
    """--on-error record names the unreadable image, counts it as failed, and prints no traceback."""
    arguments = ["eval", "damaged", "-m", MODEL, "-b", "50", "--on-error", "record"]
    result = json.loads(run(*arguments, "--json").out)
    assert result["coverage"]["failed"] == [BAD_KEY]
    assert result["accuracy"]["original_top1"]["failed"] == 1
    code, out, err = in_child(*arguments)
    assert code == 0
    assert "19 seen once, 0 missing, 0 twice, 1 unreadable" in out
    assert BAD_KEY in err
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
