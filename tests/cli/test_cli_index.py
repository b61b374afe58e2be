"""``wds-real index``: its output and exit codes, and that the other commands read what it wrote."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.commands import MODEL, Ended, expect_one_line
from support.http_server import http_server

from wds_real.format.tar import END, encode_header, padding
from wds_real.synthetic import known_answer, labels_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.s3 import S3Server

BRACES = "imagenet2012_real-validation-{000000..000002}.tar"


@pytest.fixture
def shards(packed: Path, tmp_path: Path) -> Path:
    """Three shards without index and manifest."""
    return Path(shutil.copytree(packed, tmp_path / "shards", ignore=shutil.ignore_patterns("*.json")))


def test_the_output_names_counts_and_digest(run: Callable[..., Ended], shards: Path) -> None:
    """Counts and digest are on stdout, progress on stderr; verify and info then read the folder."""
    ended = run("index", shards)
    digest = json.loads((shards / "manifest.json").read_bytes())["digest"]
    assert (ended.code, ended.out) == (0, f"indexed 120 images in 3 shards\ndigest {digest}\n")
    assert re.fullmatch(r"(index: 0 %, 0.0 MB\n)?index: 100 %, [\d.]+ MB, [\d.,]+ MB/s, [\d.]+ s\n", ended.err)
    verified = run("verify", shards, "--level", "decode")
    assert (verified.code, f"digest {digest}" in verified.out) == (0, True)
    assert json.loads(run("info", shards, "--json").out)["digest"] == digest


def test_indexed_shards_give_the_known_counts(run: Callable[..., Ended], shards: Path, tmp_path: Path) -> None:
    """With the index in another folder, the known-answer model gets its known counts."""
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
def test_json_prints_the_facts(run: Callable[..., Ended], shards: Path, *, checksums: bool) -> None:
    """--json prints root, digest, counts and whether there are checksums; with --quiet, stderr is empty."""
    ended = run("index", shards, "--json", "--quiet", *(["--checksums"] if checksums else []))
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
    """Verify compares with the checksums that --checksums stored, and ends with exit code 4."""
    assert run("index", shards, "--checksums").code == 0
    shard = shards / BRACES.replace("{000000..000002}", "000001")
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    ended = run("verify", shards)
    assert ended.code == 4
    assert "checksum is" in ended.err


def test_an_existing_index_is_replaced_only_with_overwrite(run: Callable[..., Ended], shards: Path) -> None:
    """Without --overwrite, an existing index is kept: exit code 1, and a message that names --overwrite."""
    assert run("index", shards).code == 0
    before = (shards / "manifest.json").read_bytes()
    expect_one_line(run("index", shards, "--checksums"), 1, str(shards), "--overwrite")
    assert (shards / "manifest.json").read_bytes() == before
    assert run("index", shards, "--checksums", "--overwrite").code == 0
    assert (shards / "manifest.json").read_bytes() != before


def disagreeing(shard: Path) -> None:
    """Write a shard whose class differs from the original label of its validation image."""
    name, label = "ILSVRC2012_val_00000001", b"66"
    members = ((f"{name}.jpg", b"image"), (f"{name}.cls", label))
    parts = (encode_header(name, len(data)) + data + bytes(padding(len(data))) for name, data in members)
    shard.write_bytes(b"".join(parts) + END)


def test_wrong_input_is_one_line(run: Callable[..., Ended], shards: Path, tmp_path: Path) -> None:
    """A wrong shard or a wrong SPEC gives one line with the fault and what to do."""
    expect_one_line(run("index", shards / BRACES.replace("2}", "3}")), 1, "000003.tar", "Check the numbers")
    expect_one_line(run("index", shards / "x-{0..3.tar"), 1, "the braces do not match")
    expect_one_line(run("index", tmp_path / "nowhere"), 1, str(tmp_path / "nowhere"), "Name the shards")
    expect_one_line(run("index", tmp_path / "{a,b/c}.tar"), 1, "in several folders")
    disagreeing(shards / "x.tar")
    expect_one_line(run("index", shards / "x.tar"), 1, "says class 66", "is 65")
    (shards / "x.tar").write_bytes(b"no tar")
    expect_one_line(run("index", shards), 1, "x.tar: not a whole tar", "Copy it again")
    assert not (shards / "manifest.json").exists()


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["a", "--no-such-option"], ["a", "--storage-option", "secret"]])
def test_wrong_usage_is_exit_code_two(run: Callable[..., Ended], arguments: list[str]) -> None:
    """Wrong arguments end with exit code 2; a --storage-option without value, maybe a secret, is not repeated."""
    ended = run("index", *arguments)
    expect_one_line(ended, 2)
    assert "secret" not in ended.err


def test_shards_in_a_bucket_are_indexed(s3: S3Server, run: Callable[..., Ended], shards: Path) -> None:
    """Shards in S3 are indexed in place; a wrong secret key is not printed."""
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
    """User, password and query of a URL are not in the output, in errors, or in the files."""
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
    """Under a launcher, ranks other than 0 write nothing, and say so."""
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    ended = run("index", shards)
    assert (ended.code, ended.out) == (0, "")
    assert "nothing done, index runs on rank 0" in ended.err
    assert not (shards / "manifest.json").exists()


def test_help_names_the_options(run: Callable[..., Ended]) -> None:
    """--help names all options and the brace notation."""
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
    """The root in the JSON output is a ROOT that verify accepts."""
    monkeypatch.chdir(shards.parent)
    root = json.loads(run("index", shards / spec, *output, "--json").out)["root"]
    assert run("verify", root).code == 0


def test_info_gives_numbers_and_fields_as_json(run: Callable[..., Ended], shards: Path) -> None:
    """Programs need not take sentences apart: labels have index, wnid and name, and the size is two numbers."""
    run("index", shards, "--overwrite")
    key = "ILSVRC2012_val_00000002"
    (sample,) = json.loads(run("info", shards, key, "--json").out).values()
    assert sample["key"] == key
    assert sample["original_label"] == {"index": 970, "wnid": "n09193705", "name": "alp"}
    assert sample["real_label"][0].keys() == {"index", "wnid", "name"}
    for name in ("index", "width", "height", "offset", "num_bytes"):
        assert type(sample[name]) is int
    assert sample["shard"].endswith(".tar")
    assert sample["checksum"] is None  # not computed
    printed = run("info", shards, key).out
    assert "970 alp (n09193705)" in printed
    assert f"{sample['width']}x{sample['height']}" in printed
    assert json.loads(run("info", "--env", "--json").out)["decode"] in ("part", "whole")
