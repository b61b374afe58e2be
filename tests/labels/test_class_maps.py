"""Class maps: the class of each output of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from wds_real.errors import SourceError
from wds_real.labels import NUM_CLASSES, classes
from wds_real.labels.class_maps import background_map, devkit_map, read_class_map, string_sorted_map

if TYPE_CHECKING:
    from pathlib import Path


def test_a_background_class_moves_the_others() -> None:
    """The background output has no class; all others keep their order."""
    first, last = background_map("first"), background_map("last")
    assert len(first) == len(last) == NUM_CLASSES + 1
    assert first[0] == last[-1] == -1
    assert first[1:].tolist() == last[:-1].tolist() == list(range(NUM_CLASSES))


def test_the_development_kit_numbers_each_class_once() -> None:
    """The ids are a permutation of the classes; some are known from the kit's documentation."""
    ids = devkit_map()
    assert sorted(ids.tolist()) == list(range(NUM_CLASSES))
    named = {
        1: "kit fox",
        2: "English setter",
        211: "German shepherd",
        449: "tench",
        500: "tree frog",
        1000: "dumbbell",
    }
    for number, name in named.items():
        assert classes()[ids[number - 1]].name == name


def test_folders_sorted_as_text() -> None:
    """ImageFolder sorts "10" before "2", so output 2 is class 10."""
    assert string_sorted_map()[[2, 3, 999]].tolist() == [10, 100, 999]
    assert sorted(string_sorted_map().tolist()) == list(range(NUM_CLASSES))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("text", "expected"), [
    ("n01440764\nn01443537\n", [0, 1]),
    ("\ufeffn01443537 goldfish\r\nn01440764 tench\r\n", [1, 0]),
    ("5\n3\n", [5, 3]),
    ("background\n0\n1\n", [-1, 0, 1]),
    ("\n0\n-\n-1\n1", [-1, 0, -1, -1, 1]),
    ("n00004475\nn01440764\n", [-1, 0]),
    ("n01440764: tench, Tinca tinca\n", [0]),
    ('"n01440764",\n', [0]),
])  # fmt: skip
def test_a_file_has_a_class_a_line(tmp_path: Path, text: str, expected: list[int]) -> None:
    """A wnid or an index, with more words behind it; a background and a class of ImageNet-21k have no class."""
    found = read_class_map(write(tmp_path / "map.txt", text))
    assert found.dtype == np.int64
    assert found.tolist() == expected


@pytest.mark.parametrize(("text", "message"), [
    ("", "names none of the 1,000 classes"),
    ("background\n\n", "names none of the 1,000 classes"),
    ("tench\n", "line 1: is 'tench', expected a wnid"),
    ("0\n1000\n", "line 2: is '1000', expected"),
    ("0\n1\n0\n", "lines 1 and 3 both stand for class 0 (n01440764)"),
    ("0\n-7\n", "line 2: is '-7', expected"),
    ("0\n" + "9" * 5000, "line 2: is '9999"),
    ("0\n٣\n", "line 2: is '٣', expected"),
])  # fmt: skip
def test_another_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """The message names the line, and what a line holds."""
    with pytest.raises(SourceError) as caught:
        read_class_map(write(tmp_path / "map.txt", text))
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_missing_or_huge_file_is_refused(tmp_path: Path) -> None:
    """A file that cannot be read, and one of more than 16 MiB, are one line each."""
    with pytest.raises(SourceError, match="No such file"):
        read_class_map(tmp_path / "none.txt")
    huge = tmp_path / "huge.txt"
    with huge.open("wb") as file:
        file.truncate(64 << 20)
    with pytest.raises(SourceError, match="names none"):
        read_class_map(huge)
