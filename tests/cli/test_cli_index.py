"""``wds-real index``: what it prints, its exit codes, and that the other commands work on what it wrote."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from support.http_server import http_server

from wds_real.cli.main import main
from wds_real.format.tar import END, encode_header, padding
from wds_real.synthetic import known_answer, labels_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.s3 import S3Server

MODEL = "wds_real.synthetic:known_answer_model"
BRACES = "imagenet2012_real-validation-{000000..000002}.tar"


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run a command in this process; anything but an exit is a traceback, and fails the test."""

    def run_command(*arguments: str | Path) -> Ended:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        assert isinstance(left.value.code, int)
        return Ended(left.value.code, *capfd.readouterr())

    return run_command


@pytest.fixture
def shards(packed: Path, tmp_path: Path) -> Path:
    """Three shards without index and manifest."""
    return Path(shutil.copytree(packed, tmp_path / "shards", ignore=shutil.ignore_patterns("*.json")))


def expect_one_line(ended: Ended, code: int, *words: str) -> None:
    """Hold a failed command to its promise: this exit code, nothing on stdout, one line with these words on stderr."""
    assert (ended.code, ended.out) == (code, ""), ended.err
    lines = [line for line in ended.err.splitlines() if not re.match(r"index: \d+ %|Usage: |Try '|$", line)]
    assert len(lines) == 1
    assert re.match(r"[Ee]rror: ", lines[0])
    for word in words:
        assert word in lines[0]


def test_it_says_what_was_indexed(run: Callable[..., Ended], shards: Path) -> None:
    """Counts and digest on stdout, progress on stderr; then the folder is a data set for every command."""
    ended = run("index", shards)
    digest = json.loads((shards / "manifest.json").read_bytes())["digest"]
    assert (ended.code, ended.out) == (0, f"indexed 120 samples in 3 shards\ndigest {digest}\n")
    assert re.fullmatch(r"index: 100 %, [\d.]+ MB, [\d.,]+ MB/s, [\d.]+ s\n", ended.err)
    verified = run("verify", shards, "--level", "decode")
    assert (verified.code, f"digest {digest}" in verified.out) == (0, True)
    assert json.loads(run("info", shards, "--json").out)["digest"] == digest


def test_the_result_of_what_was_indexed_is_known(run: Callable[..., Ended], shards: Path, tmp_path: Path) -> None:
    """Evaluated by its index in another folder, the known-answer model gets its known counts."""
    assert run("index", shards, "-o", tmp_path / "index").code == 0
    ended = run("eval", tmp_path / "index", "-m", MODEL, "-b", "32", "--device", "cpu", "--json")
    assert ended.code == 0, ended.err
    result = json.loads(ended.out)
    known = known_answer(labels_of(range(1, 121)))
    found = {
        name: result["accuracy"][name]["correct"]
        for name in ("original_top1", "original_top5", "real_top1", "real_top5")
    }
    assert found == {name: known[name] for name in found}
    assert result["coverage"]["seen_once"] == 120


@pytest.mark.parametrize("checksums", [False, True])
def test_json_is_all_there_is_on_stdout(run: Callable[..., Ended], shards: Path, *, checksums: bool) -> None:
    """With --json the facts, and no progress."""
    ended = run("index", shards, "--json", *(["--checksums"] if checksums else []))
    manifest = json.loads((shards / "manifest.json").read_bytes())
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out) == {
        "root": str(shards),
        "digest": manifest["digest"],
        "dataset": "imagenet2012_real",
        "num_samples": 120,
        "num_shards": 3,
        "num_bytes": sum(path.stat().st_size for path in shards.glob("*.tar")),
        "checksums": checksums,
    }
    assert all(bool(shard["sha256"]) == checksums for shard in manifest["shards"])


def test_with_checksums_damage_is_found(run: Callable[..., Ended], shards: Path) -> None:
    """What --checksums read is what verify compares with: exit code 4."""
    assert run("index", shards, "--checksums").code == 0
    shard = shards / BRACES.replace("{000000..000002}", "000001")
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    ended = run("verify", shards)
    assert ended.code == 4
    assert "checksum is" in ended.err


def test_an_index_that_is_there_is_kept_unless_asked(run: Callable[..., Ended], shards: Path) -> None:
    """Exit code 1 and how to replace it; with --overwrite it is replaced."""
    assert run("index", shards).code == 0
    before = (shards / "manifest.json").read_bytes()
    expect_one_line(run("index", shards, "--checksums"), 1, str(shards), "--overwrite")
    assert (shards / "manifest.json").read_bytes() == before
    assert run("index", shards, "--checksums", "--overwrite").code == 0
    assert (shards / "manifest.json").read_bytes() != before


def disagreeing(shard: Path) -> None:
    """Write a shard whose class is another than the validation image's."""
    name, label = "ILSVRC2012_val_00000001", b"66"
    members = ((f"{name}.jpg", b"picture"), (f"{name}.cls", label))
    parts = (encode_header(name, len(data)) + data + bytes(padding(len(data))) for name, data in members)
    shard.write_bytes(b"".join(parts) + END)


def test_wrong_input_is_one_line(run: Callable[..., Ended], shards: Path, tmp_path: Path) -> None:
    """A fault of the shards, or of how they are named, is said once, with what to do."""
    expect_one_line(run("index", shards / BRACES.replace("2}", "3}")), 1, "000003.tar", "Check the numbers")
    expect_one_line(run("index", shards / "x-{0..3.tar"), 1, "the braces do not match")
    expect_one_line(run("index", tmp_path / "nowhere"), 1, str(tmp_path / "nowhere"), "Name the shards")
    expect_one_line(run("index", tmp_path / "{a,b/c}.tar"), 1, "in several places")
    disagreeing(shards / "x.tar")
    expect_one_line(run("index", shards / "x.tar"), 1, "says class 66", "is 65")
    (shards / "x.tar").write_bytes(b"no tar")
    expect_one_line(run("index", shards), 1, "x.tar: not a whole tar", "Copy it again")
    assert not (shards / "manifest.json").exists()


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["a", "--no-such-option"], ["a", "--storage-option", "secret"]])
def test_wrong_usage_is_exit_code_two(run: Callable[..., Ended], arguments: list[str]) -> None:
    """No spec, two, an unknown option, or an option without a value, which is not repeated: it may be a secret."""
    ended = run("index", *arguments)
    expect_one_line(ended, 2)
    assert "secret" not in ended.err


def test_shards_in_a_bucket_are_indexed(s3: S3Server, run: Callable[..., Ended], shards: Path) -> None:
    """With options given one by one; no secret among them is printed, also where they are wrong."""
    for path in shards.glob("*.tar"):
        s3.put("test", f"cli-index/{path.name}", path.read_bytes())
    options = [part for name, value in s3.options.items() for part in ("--storage-option", f"{name}={value}")]
    ended = run("index", f"s3://test/cli-index/{BRACES}", "--json", *options)
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["root"].startswith("s3://test/cli-index")
    assert run("verify", "s3://test/cli-index", *options).code == 0
    expect_one_line(run("index", "s3://test/cli-index", *options), 1, "s3://test/cli-index", "--overwrite")
    wrong = [part.replace(s3.secret_key, "hunter2") for part in options]
    denied = run("index", "s3://test/cli-index", *wrong)
    expect_one_line(denied, 1, "s3://test/cli-index")
    assert "hunter2" not in denied.err


def test_a_signed_url_is_not_shown(run: Callable[..., Ended], shards: Path, tmp_path: Path) -> None:
    """Neither in what is printed, nor in an error, nor in the files."""
    with http_server(shards) as server:
        spec = f"{server.endpoint.replace('//', '//alice:hunter2@')}/{BRACES}?sig=hunter2"
        written = run("index", spec, "-o", tmp_path / "index")
        beside = run("index", spec, "--json")
        lost = run("index", spec.replace("2}", "3}"), "--json")
    assert (written.code, beside.code, lost.code) == (0, 1, 1)
    expect_one_line(beside, 1, "can only be read")
    assert not any("hunter2" in text or "alice" in text for ended in (written, beside, lost) for text in ended[1:])
    assert not any(b"hunter2" in path.read_bytes() for path in (tmp_path / "index").iterdir())


def test_only_rank_0_indexes(run: Callable[..., Ended], shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Launched with several ranks by mistake, the others do nothing and say nothing."""
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert run("index", shards) == (0, "", "")
    assert not (shards / "manifest.json").exists()


def test_help_names_the_options(run: Callable[..., Ended]) -> None:
    """--help says what is indexed and how."""
    ended = run("index", "--help")
    assert ended.code == 0
    options = ("SPEC", "--output", "--checksums", "--overwrite", "--storage-option", "--json", "brace notation")
    assert [word for word in options if word not in ended.out] == []


@pytest.mark.parametrize(
    ("spec", "output"),
    [
        ("", []),
        ("", ["-o", "index"]),
        (BRACES, ["-o", "index"]),
        (BRACES, []),
    ],
)
def test_the_root_in_json_is_where_the_index_is(
    run: Callable[..., Ended], shards: Path, spec: str, output: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the next command is given."""
    monkeypatch.chdir(shards.parent)
    root = json.loads(run("index", shards / spec, *output, "--json").out)["root"]
    assert run("verify", root).code == 0
