"""Which shards a text names: braces, patterns and file: URLs as written, bounded, and what is not taken is named."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wds_real.errors import SourceError, UnavailableError, WdsRealError
from wds_real.packing.shard_spec import ShardNames, find_shards, place_of
from wds_real.storage.store import open_store

NAMES = ["train-0.tar", "val-0.tar", "val-1.tar", "val-2.tar"]


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of four shards, which is the working folder."""
    for name in [*NAMES, "notes.txt"]:
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        (".", NAMES),
        ("val-{0..2}.tar", NAMES[1:]),
        ("val-{2,0}.tar", ["val-2.tar", "val-0.tar"]),
        ("{train,val}-0.tar", ["train-0.tar", "val-0.tar"]),
        ("val-*.tar", NAMES[1:]),
        ("val-?.tar", NAMES[1:]),
        ("val-[01].tar", ["val-0.tar", "val-1.tar"]),
        ("{val,train}-*.tar", [*NAMES[1:], "train-0.tar"]),
        ("val-0.tar", ["val-0.tar"]),
        ("notes.txt", ["notes.txt"]),
        ("none.tar", ["none.tar"]),
        ("val.tar.gz", ["val.tar.gz"]),
        ("file:val-0.tar", ["val-0.tar"]),
        ("FILE:val-*.tar", NAMES[1:]),
    ],
)
def test_shards_are_named_in_a_folder(shards: Path, spec: str, names: list[str]) -> None:
    """Braces in the order written, patterns in the order of names; one file, also one that is missing, is itself."""
    del shards
    found = find_shards(spec)
    assert found.names == names
    assert Path(found.place) == Path(place_of(spec)) == Path()


@pytest.mark.parametrize(
    "form", ["file://{}/val-*.tar", "file://localhost{}/val-{{0..2}}.tar", "file:{}/val-%5b0-2].tar"]
)
def test_file_urls_are_paths(shards: Path, form: str) -> None:
    """As webdataset takes them, and percent-encoded as the standard says."""
    assert find_shards(form.format(shards)) == ShardNames(str(shards), NAMES[1:])
    assert place_of(form.format(shards)) == str(shards)


@pytest.mark.parametrize("folder", ["{x}", "{a,b}", "a{b", "}a{", "[0]", "*", "{0..9}"])
def test_folders_may_have_braces_in_their_names(tmp_path: Path, folder: str) -> None:
    """A folder that exists is taken as it is; only the name of the shards is expanded."""
    place = tmp_path / folder
    place.mkdir()
    for name in NAMES:
        (place / name).write_bytes(b"x")
    assert find_shards(str(place)) == ShardNames(str(place), NAMES)
    assert find_shards(f"{place}/val-{{0..2}}.tar") == ShardNames(str(place), NAMES[1:])
    assert find_shards(f"{place}/val-*.tar") == ShardNames(str(place), NAMES[1:])


@pytest.mark.parametrize("name", ["val-{0..2}.tar", "val-*.tar", "a::b.tar", "a?b.tar"])
def test_a_file_that_exists_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    """Also where its name looks like a pattern."""
    for other in (name, "val-0.tar"):
        (tmp_path / other).write_bytes(b"x")
    assert find_shards(f"{tmp_path}/{name}").names == [name]


def test_shards_are_named_at_a_url() -> None:
    """A pattern is compared with the listing; braces need none."""
    url = "memory://shard-spec/set"
    store = open_store(url)
    for name in NAMES:
        store.put(name, b"x")
    assert find_shards(url) == ShardNames(url, NAMES)
    assert find_shards(f"{url}/val-*.tar") == ShardNames(url, NAMES[1:])
    assert find_shards(f"{url}/val-[12].tar").names == NAMES[2:]
    assert find_shards(f"{url}/other-{{0..1}}.tar").names == ["other-0.tar", "other-1.tar"]
    with pytest.raises(SourceError, match=r"no file in memory://shard-spec/set matches x\*\.tar"):
        find_shards(f"{url}/x*.tar")
    with pytest.raises(UnavailableError, match="a web server has no listing"):
        find_shards("http://localhost:1/val-*.tar")
    assert find_shards("http://[::1]:80/val-{0..1}.tar").names == NAMES[1:3]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("pipe:cat val-0.tar", "commands are not run"),
        ("val-0.tar::val-1.tar", "joined by :: are not taken"),
        ("s3://lab/a.tar::s3://lab/b.tar", "joined by :: are not taken"),
        ("file://server/val-0.tar", "another machine"),
        ("x-*.tar", "matches x-"),
        ("{a,b}/val.tar", "several folders"),
        ("val-{0,0}.tar", "names a shard twice"),
        ("val-{0,*}.tar", "names a shard twice"),
        ("val-{0..3.tar", "the braces do not match"),
        ("val-{0..100000000}.tar", "more than 1,000,000 shards"),
        ("val-{0..999999}{0..9}.tar", "more than 1,000,000 shards"),
        ("val-{0.." + "9" * 5000 + "}.tar", "more than 1,000,000 shards"),
        ("val-" + "{a,b}" * 30 + ".tar", "more than 1,000,000 shards"),
        ("{" * 100_000 + ".tar", "the braces do not match"),
        ("{a," * 5000 + "}" * 5000 + ".tar", "more than 1,000,000 shards"),
    ],
)
def test_what_is_not_taken_is_named_at_once(shards: Path, spec: str, says: str) -> None:
    """One line that says which form is taken, in little time and memory."""
    del shards
    started = time.process_time()
    with pytest.raises(SourceError, match=says):
        find_shards(spec)
    assert time.process_time() - started < 5


@given(st.text(st.sampled_from("ab01{},.*[?:/-"), max_size=12))
def test_any_text_names_shards_or_is_refused(text: str) -> None:
    """Nothing but the package's own errors is raised."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a0.tar").write_bytes(b"x")
        try:
            found = find_shards(f"{folder}/{text}.tar")
        except WdsRealError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert found.names
