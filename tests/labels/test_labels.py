"""Labels: the bundled tables against the released files and rater scores, names, and damaged or foreign files."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import wds_real
from wds_real.errors import SourceError
from wds_real.labels import (
    NUM_IMAGES,
    Label,
    at_threshold,
    bundled,
    by_file_name,
    canonical_file_name,
    classes,
    digest_labels,
    load_real_json,
    parse_real_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGE = Path(wds_real.__file__).parent
NAME = "ILSVRC2012_val_00000001"


def real_json(changes: dict[int, Any] | None = None) -> bytes:
    """Return 50,000 empty lists, some entries replaced, in the released format."""
    entries: list[Any] = [[] for _ in range(NUM_IMAGES)]
    for position, entry in (changes or {}).items():
        entries[position] = entry
    return json.dumps(entries).encode()


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A copy of the part of the package that holds the labels, whose data a test may damage."""
    folder = tmp_path / "wds_real"
    folder.mkdir()
    for name in ("__init__.py", "errors.py"):
        shutil.copy(PACKAGE / name, folder)
    shutil.copytree(PACKAGE / "labels", folder / "labels")
    return folder


def load_in(installed: Path) -> subprocess.CompletedProcess[str]:
    """Load the labels of an installed copy, and say which error its caller gets."""
    code = (
        "from wds_real.errors import SourceError\nfrom wds_real.labels import bundled\n"
        "try: print(len(bundled().real))\nexcept SourceError as error: print('SourceError', error)"
    )
    command = [sys.executable, "-B", "-c", code]
    return subprocess.run(command, cwd=installed.parent, capture_output=True, text=True, check=False, timeout=60)


def test_the_bundled_labels_are_the_released_files(real_data: Callable[[str], Path]) -> None:
    """Every list of real.json, every wnid and every class comes out as the released files say."""
    assert [list(labels) for labels in bundled().real] == json.loads(real_data("real.json").read_bytes())
    wnids = real_data("validation_labels.txt").read_text(encoding="ascii").split()
    assert [classes()[label].wnid for label in bundled().original] == wnids
    lines = real_data("classes.tsv").read_text(encoding="utf-8").split("\n")[1:-1]
    rows = [f"{info.index}\t{info.wnid}\t{info.lemmas}\t{info.definition}" for info in classes()]
    assert rows == lines


@pytest.fixture(scope="module")
def rated(real_data: Callable[[str], Path]) -> dict[str, dict[int, float]]:
    """The published rater scores: file name to class to score, for the images that were rated."""
    with np.load(real_data("scores.npz")) as scores:
        found: dict[str, dict[int, float]] = {}
        for (name, label), score in zip(scores["info"].tolist(), scores["tensor"].tolist(), strict=True):
            found.setdefault(name, {})[int(label)] = score
    return found


@pytest.mark.parametrize("threshold", [0.0, 0.001, 0.25, 0.5, 0.799, 0.8, 0.801, 0.95, 0.999])
def test_labels_at_a_threshold_follow_from_the_rater_scores(
    threshold: float, rated: dict[str, dict[int, float]]
) -> None:
    """Rated images accept the labels scored above the threshold, ascending, the others their original label."""
    labels = at_threshold(threshold)
    assert labels.original == bundled().original
    assert len(rated) == 24_889
    for number, (original, real) in enumerate(zip(labels.original, labels.real, strict=True), start=1):
        scores = rated.get(f"ILSVRC2012_val_{number:08d}.JPEG", {original: 2.0})
        assert real == tuple(sorted(label for label, score in scores.items() if score > threshold))


def test_the_released_labels_are_those_at_0_8() -> None:
    """The paper's own threshold gives the released set of labels for every image."""
    assert [set(labels) for labels in at_threshold(0.8).real] == [set(labels) for labels in bundled().real]


@pytest.mark.parametrize("threshold", [-0.001, 1.0, 1.5, 0.8001, 1e-9, float("nan"), float("inf")])
def test_a_threshold_the_scores_cannot_tell_is_refused(threshold: float) -> None:
    """Beyond [0, 1), finer than a thousandth or no number at all: an error that shows the threshold."""
    with pytest.raises(SourceError, match=f"threshold is {threshold}"):
        at_threshold(threshold)


def test_classes_are_numbered_by_sorted_wnid() -> None:
    """Class indices are places in the sorted list of wnids, 0..999."""
    assert [info.wnid for info in classes()] == sorted(info.wnid for info in classes())
    assert [info.index for info in classes()] == list(range(1000))
    assert all(info.lemmas and info.definition and info.name == info.lemmas.split(",")[0] for info in classes())


@pytest.mark.parametrize(
    "spelling",
    [
        f"{NAME}.JPEG",
        f"{NAME}.jpeg",
        f"{NAME}.JPG",
        f"{NAME}.jpg",
        f"{NAME}_n01751748.JPEG",
        f"val/{NAME}.JPEG",
        f"./val/n01751748/{NAME}_n01751748.JPEG",
        f"/data/imagenet/val/{NAME}.JPEG",
    ],
)
def test_all_known_spellings_name_the_same_image(spelling: str) -> None:
    """Official, Kaggle and folder spellings give one label, with the official name."""
    assert by_file_name(spelling) == Label(f"{NAME}.JPEG", 65, ())
    assert by_file_name(spelling).key == NAME


@pytest.mark.parametrize(
    "name",
    [
        "",
        "README.txt",
        NAME,
        f"{NAME}.JPEG ",
        f" {NAME}.JPEG",
        f"{NAME}.JPEG\n",
        f"{NAME}.png",
        f"{NAME}.JPEG.json",
        f"x{NAME}.JPEG",
        f"{NAME.lower()}.JPEG",
        "ILSVRC2012_val_00000000.JPEG",
        "ILSVRC2012_val_00050001.JPEG",
        "ILSVRC2012_val_1.JPEG",
        "ILSVRC2012_val_000000001.JPEG",
        "ILSVRC2012_val_-0000001.JPEG",
        "ILSVRC2012_test_00000001.JPEG",
        "n01440764_18.JPEG",
        f"{NAME}.JPEG/inner.txt",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    """What is not the name of one of the 50,000 images is an error that shows it and what is expected."""
    with pytest.raises(SourceError, match=r"Expected ILSVRC2012_val_00000001\.JPEG") as caught:
        by_file_name(name)
    assert str(caught.value).startswith(f"{name}: ")


@pytest.mark.parametrize("one", ["\u0661", "\uff11", "\u09e7"], ids=["Arabic", "full width", "Bengali"])
def test_digits_of_other_scripts_are_refused(one: str) -> None:
    """One image has one name: numerals outside ASCII are no second spelling of it."""
    with pytest.raises(SourceError):
        canonical_file_name(f"ILSVRC2012_val_0000000{one}.JPEG")


def test_a_wnid_that_is_not_the_images_is_refused() -> None:
    """A name that carries another label than the original one is an error that names both."""
    with pytest.raises(SourceError, match=r"carries the label n01440764, .* is n01751748"):
        by_file_name(f"{NAME}_n01440764.JPEG")


@given(st.integers(1, NUM_IMAGES))
def test_labels_are_joined_by_the_number_in_the_name(number: int) -> None:
    """Image n has line n of both tables, whatever order the names are asked in."""
    label = by_file_name(f"ILSVRC2012_val_{number:08d}.JPEG")
    assert (label.original_label, label.real_label) == (bundled().original[number - 1], bundled().real[number - 1])
    assert label.key == f"ILSVRC2012_val_{number:08d}"


@pytest.mark.parametrize(
    ("entry", "shown"),
    [
        (None, "null"),
        (5, "5"),
        ("65", '"65"'),
        ({"0": 1}, '{"0": 1}'),
        ([1000], "[1000]"),
        ([-1], "[-1]"),
        ([1.0], "[1.0]"),
        ([True], "[true]"),
        (["65"], '["65"]'),
        ([[65]], "[[65]]"),
        ([65, 65], "[65, 65]"),
        ([float("nan")], "[NaN]"),
        ([10**400], "[1000000"),
    ],
)
def test_an_entry_that_is_no_list_of_classes_is_refused(entry: object, shown: str) -> None:
    """The error names file, place and image, and shows the entry."""
    with pytest.raises(SourceError) as caught:
        parse_real_json(real_json({292: entry}), where="my.json")
    assert str(caught.value).startswith(f"my.json: entry 292 (ILSVRC2012_val_00000293) is {shown}")
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        pytest.param(b"", "not JSON", id="nothing"),
        pytest.param(b"<html>", "not JSON", id="a web page"),
        pytest.param(b"\xff\xfe\x00", "not JSON", id="not text"),
        pytest.param(real_json()[:-1], "not JSON", id="cut"),
        pytest.param(b"[" * 100_000, "not JSON", id="nested too deep"),
        pytest.param(b"{}", "found a dict", id="an object"),
        pytest.param(b"null", "found a NoneType", id="null"),
        pytest.param(b"[]", "found 0 entries", id="no entry"),
        pytest.param(json.dumps([[]] * (NUM_IMAGES - 1)).encode(), "found 49,999 entries", id="one missing"),
        pytest.param(json.dumps([[]] * (NUM_IMAGES + 1)).encode(), "found 50,001 entries", id="one too many"),
    ],
)
def test_a_file_that_is_not_real_json_is_refused(data: bytes, shown: str, tmp_path: Path) -> None:
    """The error names the file and says what it holds instead."""
    path = tmp_path / "real.json"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=shown) as caught:
        load_real_json(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_a_file_that_cannot_be_read_is_a_source_error(name: str, tmp_path: Path) -> None:
    """A missing file and a folder are errors that give the system's reason."""
    with pytest.raises(SourceError, match=r"cannot read the ReaL labels: (No such file|Is a directory)"):
        load_real_json(tmp_path / name)


def test_other_real_labels_keep_the_original_ones(tmp_path: Path) -> None:
    """A file in the released format replaces the ReaL lists, in its own order, and nothing else."""
    path = tmp_path / "real.json"
    path.write_bytes(real_json({0: [999, 0, 5]}))
    labels = load_real_json(path)
    assert labels.by_file_name(f"{NAME}.JPEG") == Label(f"{NAME}.JPEG", 65, (999, 0, 5))
    assert labels.original == bundled().original
    assert sum(map(len, labels.real)) == 3


def test_the_digest_is_over_documented_lines() -> None:
    """One line a sample: key, original label, ReaL labels with commas, newline."""
    text = "a 3 1,2\nb 0 \n"
    assert digest_labels([("a", 3, (1, 2)), ("b", 0, ())]) == hashlib.sha256(text.encode()).hexdigest()


@given(st.data())
def test_the_digest_sees_every_change(data: st.DataObject) -> None:
    """Another key, label, order or number of samples gives another digest."""
    real = st.lists(st.integers(0, 30), max_size=3, unique=True).map(tuple)
    rows = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30), real), max_size=3)
    first, second = data.draw(rows), data.draw(rows)
    assert (digest_labels(first) == digest_labels(second)) == (first == second)


def test_an_undamaged_installation_loads(installed: Path) -> None:
    """The labels load without torch, from data that lies beside the code."""
    done = load_in(installed)
    assert (done.stdout, done.stderr) == ("50000\n", "")


@pytest.mark.parametrize("name", ["real.json.gz", "validation_labels.txt.gz", "classes.tsv.gz"])
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: gzip.compress(gzip.decompress(data).replace(b"5", b"6", 1)), id="one digit changed"),
        pytest.param(lambda data: data[: len(data) // 2], id="cut"),
        pytest.param(lambda data: data[:1000] + bytes([data[1000] ^ 8]) + data[1001:], id="one bit flipped"),
        pytest.param(lambda _: b"", id="emptied"),
        pytest.param(lambda _: b"version https://git-lfs.github.com/spec/v1\n", id="replaced by a pointer"),
    ],
)
def test_damaged_bundled_labels_are_refused(installed: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    """However a bundled file is damaged, loading is a SourceError that names it and says to install again."""
    path = installed / "labels" / "data" / name
    path.write_bytes(damage(path.read_bytes()))
    done = load_in(installed)
    assert done.stdout.startswith(f"SourceError wds_real/labels/data/{name.removesuffix('.gz')}"), done.stderr[-500:]
    assert "install wds_real again" in done.stdout


def test_a_shuffled_walk_keeps_names_and_labels_together() -> None:
    """Asked in random order under mixed spellings, each name gets its own label: nothing goes by position."""
    for number in (np.random.default_rng(0).permutation(NUM_IMAGES)[:500] + 1).tolist():
        original = bundled().original[number - 1]
        name = f"ILSVRC2012_val_{number:08d}_{classes()[original].wnid}.JPEG"
        assert by_file_name(name).original_label == original
