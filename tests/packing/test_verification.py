"""Verifying: whatever is wrong with a packed set is found, and said with its shard and key."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from wds_real.cli.main import main
from wds_real.errors import ManifestError
from wds_real.packing.source import open_source
from wds_real.packing.verification import Level, verify
from wds_real.packing.writer import write_shards
from wds_real.storage.local import LocalStore
from wds_real.synthetic import encode_image

if TYPE_CHECKING:
    from collections.abc import Callable

LEVELS: tuple[Level, ...] = get_args(Level)
READING_LEVELS: tuple[Level, ...] = ("full", "decode")
SHARDS = [f"imagenet2012_real-validation-{number:06d}.tar" for number in range(3)]
KEY = "ILSVRC2012_val_00000060"  # in the middle of SHARDS[1]


@pytest.fixture
def copied(packed: Path, tmp_path: Path) -> Path:
    """A packed set to damage."""
    return Path(shutil.copytree(packed, tmp_path / "set"))


def problems(root: Path, level: Level = "full") -> str:
    return "\n".join(verify(LocalStore(root), level=level).problems)


def members(shard: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(shard) as tar:
        return {member.name: member for member in tar}


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x01
    path.write_bytes(data)


def expect_exit(code: int, *arguments: str | Path) -> None:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert left.value.code == code


def errors_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What the command said on stderr, without its progress."""
    return [line for line in capsys.readouterr().err.splitlines() if not line.startswith("verify: ")]


@pytest.mark.parametrize("level", LEVELS)
def test_a_whole_set_has_no_problems(packed: Path, capsys: pytest.CaptureFixture[str], level: Level) -> None:
    """Every level passes what the writer wrote, and the command says so with exit code 0."""
    done: list[int] = []
    report = verify(LocalStore(packed), level=level, progress=done.append)
    assert report.problems == ()
    assert sum(done) == sum((packed / name).stat().st_size for name in SHARDS)
    expect_exit(0, "verify", packed, "--level", level)
    out = capsys.readouterr().out
    assert out.startswith("OK: 3 shards, 120 images, ")
    assert report.manifest.digest in out


@pytest.mark.parametrize("level", READING_LEVELS)
@pytest.mark.parametrize(
    "part", ["picture", "picture header", "picture padding", "label", "label header", "label padding"]
)
def test_a_flipped_bit_is_found_with_its_shard_and_key(
    copied: Path, capsys: pytest.CaptureFixture[str], level: Level, part: str
) -> None:
    """One bit of any part of a sample's two members is reported with the shard and the key it belongs to."""
    shard = copied / SHARDS[1]
    member = members(shard)[f"{KEY}.{'jpg' if part.startswith('picture') else 'json'}"]
    assert member.size % 512
    flip(
        shard,
        {
            "": member.offset_data + member.size // 2,
            "header": member.offset + 40,
            "padding": member.offset_data + member.size,
        }[part.partition(" ")[2]],
    )
    expect_exit(4, "verify", copied, "--level", level)
    lines = errors_of(capsys)
    assert all(line.startswith(f"error: {SHARDS[1]}: ") for line in lines[:-1])
    assert any(KEY in line for line in lines[:-1])
    assert lines[-1] == f"error: {copied}: {len(lines) - 1} problems found"


@pytest.mark.parametrize("level", READING_LEVELS)
def test_a_flipped_bit_of_the_end_marker_is_found(copied: Path, level: Level) -> None:
    """The zeros at a shard's end count too."""
    flip(copied / SHARDS[1], -1)
    assert f"{SHARDS[1]}: SHA-256" in problems(copied, level)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_of_any_file_is_found(copied: Path, data: st.DataObject) -> None:
    """No byte of a set can change without verify finding it."""
    path = copied / data.draw(st.sampled_from([*SHARDS, "index.json", "manifest.json"]))
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(changed)
    try:
        found = problems(copied)
    except ManifestError as error:
        found = str(error)
    finally:
        path.write_bytes(whole)
    assert path.name in found


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("damage", ["cut", "emptied", "grown", "deleted", "made a folder"])
def test_a_shard_of_another_length_is_found_at_every_level(
    copied: Path, capsys: pytest.CaptureFixture[str], level: Level, damage: str
) -> None:
    """A shard that is cut, longer, empty or missing is reported by name, and so is nothing else."""
    shard = copied / SHARDS[2]
    whole = shard.read_bytes()
    shard.unlink()
    if damage == "made a folder":
        shard.mkdir()
    elif damage != "deleted":
        shard.write_bytes({"cut": whole[:-512], "emptied": b"", "grown": whole + bytes(512)}[damage])
    expect_exit(4, "verify", copied, "--level", level)
    lines = errors_of(capsys)
    assert lines[0].startswith(f"error: {SHARDS[2]}: ")
    assert lines[1:] == [f"error: {copied}: 1 problem found"]


@pytest.mark.parametrize("level", LEVELS)
def test_swapped_shards_are_found(copied: Path, level: Level) -> None:
    """Two shards under each other's names are reported, both."""
    one, other = copied / SHARDS[0], copied / SHARDS[2]
    one.rename(copied / "x")
    other.rename(one)
    (copied / "x").rename(other)
    found = problems(copied, level)
    assert f"{SHARDS[0]}: " in found
    assert f"{SHARDS[2]}: " in found
    assert SHARDS[1] not in found


@pytest.mark.parametrize("level", READING_LEVELS)
def test_swapped_labels_of_one_length_are_found(copied: Path, level: Level) -> None:
    """A shard of the right length with two labels in each other's place is reported with both keys."""
    shard = copied / SHARDS[1]
    whole = shard.read_bytes()
    labels = [member for name, member in members(shard).items() if name.endswith(".json")]
    one, other = next((a, b) for a in labels for b in labels if a.name < b.name and a.size == b.size)
    swapped = bytearray(whole)
    for to, source in ((one, other), (other, one)):
        swapped[to.offset_data : to.offset_data + to.size] = whole[source.offset_data : source.offset_data + to.size]
    shard.write_bytes(swapped)
    found = problems(copied, level)
    assert f"{SHARDS[1]}: {one.name}" in found
    assert f"{SHARDS[1]}: {other.name}" in found


@pytest.mark.parametrize("level", READING_LEVELS)
def test_every_problem_is_reported_not_only_the_first(copied: Path, level: Level) -> None:
    """Three damaged samples in two shards are three keys in the report, in shard order."""
    keys = {"ILSVRC2012_val_00000002": 0, "ILSVRC2012_val_00000007": 0, "ILSVRC2012_val_00000120": 2}
    for key, number in keys.items():
        flip(copied / SHARDS[number], members(copied / SHARDS[number])[f"{key}.jpg"].offset_data + 30)
    found = problems(copied, level)
    places = [found.index(f"{SHARDS[number]}: {key}.jpg") for key, number in keys.items()]
    assert places == sorted(places)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["manifest.json", "index.json"])
@pytest.mark.parametrize(
    "data",
    [
        None, b"", b"[]", b"null", b"{}", b"\xff\xfe\x00", b'{"format": {"name": "wds_real", "version": 2}}',
        b"[" * 100_000,
    ],
    ids=["missing", "empty", "a list", "null", "no fields", "not text", "another version", "nested without end"],
)  # fmt: skip
def test_a_missing_or_foreign_manifest_or_index_is_said(
    copied: Path, capsys: pytest.CaptureFixture[str], level: Level, name: str, data: bytes | None
) -> None:
    """Without a sound manifest and index nothing can be checked: exit code 4 and one line that names the file."""
    (copied / name).unlink()
    if data is not None:
        (copied / name).write_bytes(data)
    expect_exit(4, "verify", copied, "--level", level)
    (line,) = errors_of(capsys)
    assert line.startswith("error: ")
    assert name in line


EDITS: dict[str, Callable[[dict[str, object]], object]] = {
    "fewer samples": lambda body: body.update(num_samples=119),
    "not partial": lambda body: body.update(partial=False),
    "another split": lambda body: body.update(split="test"),
    "a shard less": lambda body: body.update(shards=body["shards"][:-1]),  # type: ignore[index]
    "a field more": lambda body: body.update(extra=1),
    "a field less": lambda body: body.pop("source"),
    "a number as text": lambda body: body.update(num_samples="120"),
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_manifest_is_found(
    copied: Path, capsys: pytest.CaptureFixture[str], level: Level, edit: Callable[[dict[str, object]], object]
) -> None:
    """A manifest that someone changed no longer has its digest."""
    body = json.loads((copied / "manifest.json").read_bytes())
    edit(body)
    (copied / "manifest.json").write_text(json.dumps(body, indent=1) + "\n")
    expect_exit(4, "verify", copied, "--level", level)
    assert "manifest.json" in capsys.readouterr().err


@pytest.mark.parametrize("level", LEVELS)
def test_an_edited_index_is_found(copied: Path, capsys: pytest.CaptureFixture[str], level: Level) -> None:
    """One label changed in index.json is found at every level."""
    columns = json.loads((copied / "index.json").read_bytes())
    columns["original_label"][3] ^= 1
    (copied / "index.json").write_text(json.dumps(columns, separators=(",", ":")) + "\n")
    expect_exit(4, "verify", copied, "--level", level)
    assert "index.json" in capsys.readouterr().err


def test_files_of_another_set_are_found(packed: Path, made_tar: Path, tmp_path: Path) -> None:
    """A manifest beside the index of a set that was cut differently is not taken for whole."""
    with open_source(made_tar, allow_partial=True) as source:
        write_shards(source, LocalStore(tmp_path), samples_per_shard=60)
    shutil.copy(packed / "manifest.json", tmp_path)
    with pytest.raises(ManifestError, match=r"index\.json"):
        verify(LocalStore(tmp_path), level="quick")


def test_json_report_holds_every_problem(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json the problems are one object on stdout, and the exit code is still 4."""
    (copied / SHARDS[0]).unlink()
    (copied / SHARDS[2]).write_bytes(b"")
    expect_exit(4, "verify", copied, "--json")
    report = json.loads(capsys.readouterr().out)
    assert (report["root"], report["level"]) == (str(copied), "full")
    assert [problem.partition(": ")[0] for problem in report["problems"]] == [SHARDS[0], SHARDS[2]]


def test_a_picture_that_was_damaged_before_packing_is_found_by_decoding(tmp_path: Path) -> None:
    """A JPEG cut in the source packs unchanged: its checksum is right, and only decoding tells, with its key."""
    source = tmp_path / "source"
    source.mkdir()
    for number in (1, 2, 3):
        picture = encode_image(number)
        (source / f"ILSVRC2012_val_{number:08d}.JPEG").write_bytes(
            picture[: -len(picture) // 3 if number == 2 else None]
        )
    with open_source(source, allow_partial=True) as opened:
        write_shards(opened, LocalStore(tmp_path / "set"))
    assert problems(tmp_path / "set", "full") == ""
    (problem,) = verify(LocalStore(tmp_path / "set"), level="decode").problems
    assert problem.startswith(f"{SHARDS[0]}: ILSVRC2012_val_00000002.jpg [bytes ")


def test_pictures_of_all_kinds_are_whole(tmp_path: Path) -> None:
    """Grey, CMYK and progressive JPEGs are no damage."""
    source = tmp_path / "source"
    source.mkdir()
    for number, mode in enumerate(("L", "CMYK", "RGB"), start=1):
        buffer = io.BytesIO()
        Image.new(mode, (40, 30)).save(buffer, "JPEG", progressive=number == 3)
        (source / f"ILSVRC2012_val_{number:08d}.JPEG").write_bytes(buffer.getvalue())
    with open_source(source, allow_partial=True) as opened:
        write_shards(opened, LocalStore(tmp_path / "set"))
    assert problems(tmp_path / "set", "decode") == ""


def test_a_shard_too_many_is_found(copied: Path) -> None:
    """A shard beside the set's own would be read by every reader that lists the folder: it is a problem."""
    extra = "imagenet2012_real-validation-000003.tar"
    shutil.copy(copied / SHARDS[0], copied / extra)
    assert extra in problems(copied, "quick")
