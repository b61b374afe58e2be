"""The command line: what it prints where, its exit codes, and one clear line for each wrong input."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from wds_real import __version__
from wds_real.cli.main import cli, main
from wds_real.image.jpeg_crop import can_decode_crops
from wds_real.image.resample import HAVE_EXTENSION
from wds_real.synthetic import known_answer, labels_of

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = "wds_real.synthetic:known_answer_model"
SHARD = "imagenet2012_real-validation-000001.tar"
KEY = "ILSVRC2012_val_00000060"  # in SHARD
COMMANDS = cli.list_commands(None)  # type: ignore[arg-type]  # needs no context


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


@pytest.fixture
def in_process(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run a command in this process; anything but an exit is a traceback, and fails the test."""

    def run(*arguments: str | Path) -> Ended:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        assert isinstance(left.value.code, int)
        return Ended(left.value.code, *capfd.readouterr())

    return run


def in_child(*arguments: str | Path, **environment: str) -> Ended:
    """Run a command as a person would."""
    done = subprocess.run(
        [sys.executable, "-m", "wds_real", *arguments],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **environment},
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)


def messages(err: str) -> list[str]:
    """What stderr says besides progress, and besides the usage that click shows above its own errors."""
    shown = re.compile(r"(pack|verify|eval): \d+ %|Usage: |Try '|$")
    return [line for line in err.splitlines() if not shown.match(line)]


def expect_one_line(ended: Ended, code: int, *words: str) -> None:
    """Hold a failed command to its promise: this exit code, nothing on stdout, one line with these words on stderr."""
    assert "Traceback" not in ended.err
    assert ended.out == ""
    assert ended.code == code, ended.err
    (line,) = messages(ended.err)
    assert re.match(r"[Ee]rror: ", line)
    for word in words:
        assert word in line


@pytest.fixture
def here(packed: Path, made_tar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a finished set in ``shards`` and one wrong thing of each kind."""
    monkeypatch.chdir(tmp_path)
    tar = made_tar.read_bytes()
    shutil.copytree(packed, "shards")
    Path("val.tar").write_bytes(tar)
    Path("cut.tar").write_bytes(tar[: len(tar) // 2])
    Path("page.tar").write_bytes(b"<!DOCTYPE html><title>Sign in</title>")
    Path("empty.tar").write_bytes(b"")
    with tarfile.open("foreign.tar", "w") as foreign:
        foreign.add("val.tar", "ILSVRC2012_val_00000001.JPEG")
        foreign.add("val.tar", "n01440764_10026.JPEG")
    Path("short.json").write_text("[[1], [2]]")
    Path("words.json").write_text(json.dumps([["sea snake"]] + [[]] * 49_999))
    Path("page.json").write_text("<html>")
    Path("nested.json").write_text("[" * 100_000)
    for name in ("unfinished", "damaged", "cut", "lost", "no_index"):
        shutil.copytree(packed, name)
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
    return tmp_path


PARTIAL = "--allow-partial"
WRONG_INPUTS: dict[str, tuple[list[str], int, list[str]]] = {
    "missing tar": (["pack", "nope.tar", "new"], 1, ["nope.tar", "no such file"]),
    "part of a tar's images": (["pack", "val.tar", "new"], 1, ["49,880 of the 50,000", PARTIAL]),
    "cut tar": (["pack", "cut.tar", "new", PARTIAL], 1, ["cut.tar", "archive is cut"]),
    "web page": (["pack", "page.tar", "new", PARTIAL], 1, ["page.tar", "web page"]),
    "empty file": (["pack", "empty.tar", "new", PARTIAL], 1, ["empty.tar", "empty"]),
    "foreign names": (["pack", "foreign.tar", "new", PARTIAL], 1, ["foreign.tar", "n01440764_10026.JPEG"]),
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
    "missing module": (["shards", "-m", "no.such:model"], 2, ["no.such:model", "No module named"]),
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
# The same as a process of its own: in every run one of each way to fail, the others among the slow tests.
ALSO_IN_A_CHILD = [
    "missing tar", "cut tar", "web page", "foreign names", "short real.json", "finished set", "bad option",
    "verify: missing manifest", "info: unknown key", "eval: damaged shard", "eval: program of garbage",
]  # fmt: skip
EVERYTHING_WRONG = WRONG_INPUTS | {
    f"eval: {name}": (["eval", *arguments], code, words) for name, (arguments, code, words) in WRONG_EVALUATIONS.items()
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("arguments", "code", "words"), EVERYTHING_WRONG.values(), ids=EVERYTHING_WRONG)
def test_wrong_input_gives_one_line_and_its_exit_code(
    in_process: Callable[..., Ended], arguments: list[str], code: int, words: list[str]
) -> None:
    """Each wrong input: nothing on stdout, one line on stderr that says what is wrong, its exit code, no new set."""
    expect_one_line(in_process(*arguments), code, *words)
    assert not Path("new").exists()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "name",
    [name if name in ALSO_IN_A_CHILD else pytest.param(name, marks=pytest.mark.slow) for name in EVERYTHING_WRONG],
)
def test_wrong_input_to_a_process_of_its_own_says_no_more(name: str) -> None:
    """Nor do libraries that write past Python's stderr, logs, or threads that are left behind add a line."""
    arguments, code, words = EVERYTHING_WRONG[name]
    expect_one_line(in_child(*arguments), code, *words)
    assert not Path("new").exists()


@pytest.mark.parametrize("device", ["cuda", "mps", "cuda:99"])
@pytest.mark.usefixtures("here")
def test_a_device_that_is_not_there_is_said(in_process: Callable[..., Ended], device: str) -> None:
    """An accelerator this machine lacks is a usage error."""
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None and accelerator.type == device:
        pytest.skip(f"this machine has {device}")
    expect_one_line(in_process("eval", "shards", "-m", MODEL, "--device", device), 2, device)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("root", "words"), [("damaged", [SHARD, KEY]), ("cut", [SHARD]), ("lost", [SHARD])])
def test_verify_reports_damage_and_ends_with_4(root: str, words: list[str]) -> None:
    """Each problem is a line on stderr, then their number; stdout says nothing that could be taken for whole."""
    ended = in_child("verify", root)
    assert (ended.code, ended.out) == (4, "")
    *problems, last = messages(ended.err)
    assert all(word in "\n".join(problems) for word in words)
    assert last == f"error: {root}: {len(problems)} problems found"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], *([name, flag] for name in COMMANDS for flag in ("--help", "-h"))]
)
def test_help_works(in_process: Callable[..., Ended], arguments: list[str]) -> None:
    """Help goes to stdout with exit code 0."""
    code, out, err = in_process(*arguments)
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: wds-real {arguments[0] if arguments[0] in COMMANDS else ''}".rstrip())
    assert "--help" in out


def test_help_names_every_command(in_process: Callable[..., Ended]) -> None:
    """The commands of the package are those that help lists."""
    import wds_real.cli

    folder = Path(wds_real.cli.__path__[0])
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "console", "main", "options"}
    assert modules == set(COMMANDS)
    assert all(f"  {name} " in in_process("--help").out for name in COMMANDS)


@pytest.mark.parametrize("command", ["--help", "pack", "verify", "info"])
def test_commands_without_a_model_start_without_torch(here: Path, command: str) -> None:
    """Packing, checking and asking need no torch: it is not imported."""
    del here
    arguments = {
        "--help": ["--help"],
        "pack": ["pack", "val.tar", "new", PARTIAL],
        "verify": ["verify", "shards"],
        "info": ["info", "shards"],
    }[command]
    script = (
        "import sys\nfrom wds_real.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n    assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, capture_output=True)


def test_version_is_the_packages(in_process: Callable[..., Ended]) -> None:
    """``--version`` names the installed version."""
    assert in_process("--version") == Ended(0, f"wds-real, version {__version__}\n", "")


@pytest.mark.usefixtures("here")
def test_installed_command_is_the_module() -> None:
    """``wds-real`` and ``python -m wds_real`` say the same."""
    command = Path(sys.executable).with_name("wds-real")
    if not command.exists():
        pytest.skip("wds-real is not installed beside this Python")
    done = subprocess.run([command, "info"], capture_output=True, text=True, check=True)
    assert done.stdout == in_child("info").out


JSON_COMMANDS = {
    "pack": ["pack", "val.tar", "new", PARTIAL],
    "verify": ["verify", "shards"],
    "info": ["info", "shards"],
    "info of a key": ["info", "shards", KEY],
    "eval": ["eval", "shards", "-m", MODEL, "-b", "50"],
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("arguments", JSON_COMMANDS.values(), ids=JSON_COMMANDS)
def test_json_is_one_object_and_nothing_else(arguments: list[str]) -> None:
    """With --json stdout is exactly one JSON object, stderr is silent, and the exit code is 0."""
    code, out, err = in_child(*arguments, "--json")
    assert (code, err) == (0, "")
    assert isinstance(json.loads(out, parse_constant=pytest.fail), dict)


def test_info_of_the_machine_needs_no_data_set(in_process: Callable[..., Ended]) -> None:
    """``info --env`` says what would evaluate, and with which versions, in a folder without shards too."""
    code, out, err = in_process("info", "nowhere", "--env", "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert {"torch", "numpy", "pillow"} <= facts["versions"].keys()
    assert facts["decode"].startswith("our extension" if can_decode_crops() else "simplejpeg")
    assert facts["resize"].startswith("our extension" if HAVE_EXTENSION else "Pillow")


@pytest.mark.usefixtures("here")
def test_pack_reports_what_it_packed(in_process: Callable[..., Ended]) -> None:
    """Text on stdout, progress on stderr; a part is called a part; the digest is verify's and info's."""
    code, out, err = in_process("pack", "val.tar", "new", PARTIAL, "--samples-per-shard", "50")
    assert code == 0
    assert "packed 120 samples into 3 shards in new, partial: not the whole validation set" in out
    assert err.startswith("pack: 100 %")
    digest = out.split()[-1]
    assert in_process("verify", "new").out.split()[-1] == digest
    facts = json.loads(in_process("info", "new", "--json").out)
    assert facts["digest"] == digest
    assert (facts["num_samples"], facts["num_shards"], facts["partial"]) == (120, 3, True)


@pytest.mark.usefixtures("here")
def test_pack_takes_other_real_labels(in_process: Callable[..., Ended]) -> None:
    """``--real-json`` replaces the ReaL labels and nothing else, and so the digest."""
    Path("real.json").write_text(json.dumps([[number % 1000] for number in range(50_000)]))
    packed = in_process("pack", "val.tar", "new", PARTIAL, "--real-json", "real.json", "--json")
    other, old = (json.loads(in_process("info", root, "--json").out) for root in ("new", "shards"))
    assert json.loads(packed.out)["digest"] == other["digest"] != old["digest"]
    assert (other["with_real_label"], other["source_digest"]) == (120, old["source_digest"])
    sample = json.loads(in_process("info", "new", KEY, "--json").out)[KEY]
    assert [label.split()[0] for label in sample["real_label"]] == ["59"]


@pytest.mark.usefixtures("here")
def test_info_of_an_image_names_its_labels(in_process: Callable[..., Ended]) -> None:
    """The off-by-one canary: image 1 is a sea snake by its original label and has no ReaL label."""
    code, out, _ = in_process("info", "shards", "ILSVRC2012_val_00000001.JPEG")
    assert code == 0
    assert "65 sea snake (n01751748)" in out
    assert re.search(r"real_label +none", out)


@pytest.mark.usefixtures("here")
def test_roots_default_to_shards(in_process: Callable[..., Ended]) -> None:
    """Without a root, every command means the folder ``shards``."""
    assert in_process("verify").out == in_process("verify", "shards").out
    assert in_process("info").out == in_process("info", "shards").out
    assert in_process("pack", "val.tar", PARTIAL).err.startswith("error: shards: holds a finished set")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("arguments", [JSON_COMMANDS[name] for name in ("pack", "verify", "info")])
@pytest.mark.parametrize(
    "launcher", [{"RANK": "1", "WORLD_SIZE": "2"}, {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"}]
)
def test_only_rank_0_works_and_talks(arguments: list[str], launcher: dict[str, str]) -> None:
    """Started on every rank by a launcher, one process does the work; the others end well without a word."""
    assert in_child(*arguments, **launcher) == Ended(0, "", "")
    assert not Path("new").exists()
    first = {name: "0" if name in ("RANK", "SLURM_PROCID") else value for name, value in launcher.items()}
    code, out, _ = in_child(*arguments, **first)
    assert code == 0
    assert out


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["info", "shards", "nokey"], 2), (["pack", "val.tar", "--fast"], 2), (["eval", "nope", "-m", "x"], 1)],
)
def test_only_rank_0_complains(
    in_process: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int
) -> None:
    """What is wrong on every rank is said once."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert messages(in_process(*arguments).err)
    monkeypatch.setenv("RANK", "1")
    ended = in_process(*arguments)
    assert (ended.out, ended.err) == ("", "")
    assert ended.code in (0, code)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("rank", "world_size"), [("one", "2"), ("5", "2"), ("-1", "2"), ("0", "0")])
@pytest.mark.parametrize("arguments", [["info"], ["pack", "val.tar", "--fast"]])
def test_an_impossible_rank_is_said(
    in_process: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
    rank: str,
    world_size: str,
    arguments: list[str],
) -> None:
    """A launcher's environment that makes no sense is a usage error, not a traceback."""
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world_size)
    ended = in_process(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert messages(ended.err)


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
def test_eval_counts_what_is_known(in_process: Callable[..., Ended], split: str, numbers: range) -> None:
    """The counts of the made-up model are those known beforehand, on the whole set and on a part."""
    ended = in_process("eval", "shards", "-m", MODEL, "-b", "32", "--split", split, "--json")
    result = json.loads(ended.out)
    assert found_counts(result) == expected_counts(numbers)
    assert (result["coverage"]["expected"], result["coverage"]["seen_once"]) == (len(numbers), len(numbers))
    assert result["dataset"]["split"] == split


@pytest.mark.usefixtures("here")
def test_eval_prints_the_table_and_the_receipt(in_process: Callable[..., Ended]) -> None:
    """A person sees both accuracies, the receipt, the identity, and that a part is no ImageNet accuracy."""
    code, out, _ = in_process("eval", "shards", "-m", MODEL, "-b", "50", "-o", "run")
    answer = known_answer(labels_of(range(1, 121)))
    assert code == 0
    assert re.search(rf"original top-1 +{answer['original_top1']} / +120 ", out)
    assert re.search(rf"ReaL top-1 +{answer['real_top1']} / +{answer['labelled']} ", out)
    assert "120 expected, 120 seen once, 0 missing, 0 twice, 1 rank" in out
    assert "not an ImageNet accuracy" in out
    assert json.loads(Path("run/result.json").read_bytes())["dataset"]["digest"] in out


@pytest.mark.usefixtures("here")
def test_eval_records_a_damaged_sample_by_its_key(in_process: Callable[..., Ended]) -> None:
    """With --on-error record the sample is named, the accuracy is bounded, and no traceback is shown."""
    arguments = ["eval", "damaged", "-m", MODEL, "-b", "50", "--on-error", "record"]
    result = json.loads(in_process(*arguments, "--json").out)
    assert result["coverage"]["failed"] == [KEY]
    assert result["accuracy"]["original_top1"]["failed"] == 1
    code, out, err = in_child(*arguments)
    assert code == 0
    assert "119 seen once, 0 missing, 0 twice, 1 unreadable" in out
    assert KEY in err
    assert "Traceback" not in err


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("output", ["val.tar", "ftp://host/run"])
def test_an_output_that_cannot_be_written_costs_no_evaluation(in_process: Callable[..., Ended], output: str) -> None:
    """Where results cannot be kept, that is said before the model runs, not after."""
    ended = in_process("eval", "shards", "-m", MODEL, "-b", "50", "-o", output)
    assert ended.code == 1
    assert "eval: 100 %" not in ended.err
    expect_one_line(ended, 1, output[:4])


@pytest.mark.usefixtures("here")
def test_a_terminal_sees_a_bar_and_a_pipe_sees_lines() -> None:
    """On a terminal progress is drawn in place; elsewhere it is plain lines without control characters."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "wds_real", "pack", "val.tar", "new", PARTIAL]
    done = subprocess.run(command, stderr=follower, stdout=subprocess.PIPE, check=True)
    os.close(follower)
    drawn = os.read(leader, 1 << 16).decode()
    os.close(leader)
    assert "\x1b[" in drawn
    assert "pack" in drawn
    assert done.stdout.startswith(b"packed 120 samples")
    piped = in_child("pack", "val.tar", "new", PARTIAL, "--overwrite").err
    assert re.fullmatch(r"(wds-real: .*\n)*pack: 100 %, .* MB/s, .* s\n", piped)


@pytest.mark.usefixtures("here")
def test_interrupting_gives_130_and_one_word() -> None:
    """Ctrl-C ends an evaluation with exit code 130 and no traceback."""
    Path("slow.py").write_text(
        "import pathlib, time, torch\n"
        "def model():\n"
        "    def forward(image):\n"
        "        pathlib.Path('running').touch()\n"
        "        time.sleep(30)\n"
        "        return torch.zeros(len(image), 1000)\n"
        "    return forward\n"
    )
    command = [sys.executable, "-m", "wds_real", "eval", "shards", "-m", "slow:model", "-b", "10"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        while not Path("running").exists():
            assert running.poll() is None
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=20)
    assert running.returncode == 130
    assert out == ""
    assert messages(err) == ["nothing was kept: use --output", "interrupted"]


def test_demo_finds_the_known_answer() -> None:
    """The demo makes, packs, verifies and evaluates a set on two processes, and finds every count as known."""
    code, out, err = in_child("demo", "--num-images", "200")
    assert code == 0, err
    assert "WRONG" not in out
    assert re.search(r"all \d+ counts equal the known answer", out)
    assert "200 expected, 200 seen once, 0 missing, 0 twice, 2 ranks" in out


def test_demo_fails_if_a_count_differs(
    in_process: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One count that is off by one is exit code 1, and is shown."""

    def off_by_one(labels: Any) -> dict[str, int]:
        answer = known_answer(labels)
        return {**answer, "real_top1": answer["real_top1"] + 1}

    monkeypatch.setattr("wds_real.synthetic.known_answer", off_by_one)
    code, out, err = in_process("demo", "--num-images", "40", "--processes", "1", "--keep", tmp_path / "demo")
    assert code == 1
    assert re.search(r"WRONG +real_top1 ", out)
    assert len(re.findall("WRONG", out)) == 1
    assert "differ" in err
    assert (tmp_path / "demo" / "shards" / "manifest.json").exists()
