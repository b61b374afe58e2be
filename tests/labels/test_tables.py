"""Label tables: the bundled ones against the released files and rater scores, and other files of ReaL labels."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wds_real.errors import SourceError
from wds_real.labels import (
    NUM_IMAGES,
    Label,
    at_threshold,
    bundled,
    by_file_name,
    classes,
    digest_labels,
    load_real_json,
    parse_real_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = "ILSVRC2012_val_00000001"


def real_json(changes: dict[int, Any] | None = None) -> bytes:
    """Return 50,000 empty lists, some entries replaced, in the released format."""
    entries: list[Any] = [[] for _ in range(NUM_IMAGES)]
    for position, entry in (changes or {}).items():
        entries[position] = entry
    return json.dumps(entries).encode()


def test_the_bundled_labels_are_the_released_files(real_data: Callable[[str], Path]) -> None:
    """Every ReaL list is that of real.json, every original label that of the wnid list."""
    assert [list(labels) for labels in bundled().real] == json.loads(real_data("real.json").read_bytes())
    wnids = real_data("validation_labels.txt").read_text(encoding="ascii").split()
    assert [classes()[label].wnid for label in bundled().original] == wnids


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
    """ReaL labels of rated images are those scored above the threshold, ascending; of others, the original label."""
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
def test_a_threshold_finer_than_the_scores_is_refused(threshold: float) -> None:
    """A threshold outside [0, 1), with more than three decimals or not a number is an error that shows it."""
    with pytest.raises(SourceError, match=f"threshold is {threshold}"):
        at_threshold(threshold)


def test_a_wnid_that_is_not_the_images_is_refused() -> None:
    """A wnid in the name that is not the original label's is an error that names both."""
    with pytest.raises(SourceError, match=r"contains the label n01440764, .* is n01751748"):
        by_file_name(f"{NAME}_n01440764.JPEG")


@given(st.integers(1, NUM_IMAGES))
def test_labels_are_joined_by_the_number_in_the_name(number: int) -> None:
    """Image n has entry n - 1 of both tables and the key of its name."""
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
def test_an_entry_that_is_not_a_list_of_classes_is_refused(entry: object, shown: str) -> None:
    """The error names the file, the entry's index and the image, and shows the entry."""
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
    """The hashed text has one line per sample: key, original label, ReaL labels with commas, newline."""
    text = "a 3 1,2\nb 0 \n"
    assert digest_labels([("a", 3, (1, 2)), ("b", 0, ())]) == hashlib.sha256(text.encode()).hexdigest()


@given(st.data())
def test_every_change_changes_the_digest(data: st.DataObject) -> None:
    """Another key, label, order or number of samples gives another digest."""
    real = st.lists(st.integers(0, 30), max_size=3, unique=True).map(tuple)
    rows = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30), real), max_size=3)
    first, second = data.draw(rows), data.draw(rows)
    assert (digest_labels(first) == digest_labels(second)) == (first == second)


def test_labels_do_not_depend_on_the_order_of_the_names() -> None:
    """In random order and with the wnid in the name, each name has its own label: the order of calls has no effect."""
    for number in (np.random.default_rng(0).permutation(NUM_IMAGES)[:500] + 1).tolist():
        original = bundled().original[number - 1]
        name = f"ILSVRC2012_val_{number:08d}_{classes()[original].wnid}.JPEG"
        assert by_file_name(name).original_label == original
