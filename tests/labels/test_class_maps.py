"""Class maps: the class of each output of a model."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest

from wds_real import SourceError
from wds_real.labels import NUM_CLASSES, classes
from wds_real.labels.class_maps import (
    NUMBERINGS,
    background_map,
    choose_class_map,
    devkit_map,
    read_class_map,
    string_sorted_map,
)

if TYPE_CHECKING:
    from pathlib import Path


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


WNIDS = [info.wnid for info in classes()]


def expect_refused(path: Path, lines: list[str], text: str) -> None:
    path.write_text("\n".join(lines))
    with pytest.raises(SourceError, match=rf"^{path}{text}"):
        read_class_map(path)


@pytest.mark.parametrize("form", ["wnids", "indices", "mixed"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_file_names_the_class_of_each_output(form: str, end: str, tmp_path: Path) -> None:
    """As wnids, class indices or both, in any order, with any line ends; the file's digest identifies the map."""
    order = np.random.default_rng(3).permutation(NUM_CLASSES)
    lines = [
        WNIDS[label] if form == "wnids" or (form == "mixed" and label % 2) else str(label) for label in order.tolist()
    ]
    data = ((end or "\n").join(lines) + end).encode()
    path = tmp_path / "map.txt"
    path.write_bytes(data)
    found = read_class_map(path)
    assert found.num_outputs == NUM_CLASSES
    assert order[found.outputs].tolist() == list(range(NUM_CLASSES))
    assert found.class_of_output().tolist() == order.tolist()
    assert found.description == {"file": "map.txt", "sha256": hashlib.sha256(data).hexdigest()}


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("none", ["-", "-1"])
def test_a_background_in_a_file_is_that_of_the_option(
    place: Literal["first", "last"], none: str, tmp_path: Path
) -> None:
    """A line of - or -1 is an output that is none of the classes."""
    path = tmp_path / "map.txt"
    path.write_text("\n".join([none, *WNIDS] if place == "first" else [*WNIDS, none]))
    found, expected = read_class_map(path), background_map(place)
    assert (found.num_outputs, found.outputs.tolist()) == (1001, expected.outputs.tolist())
    assert found.class_of_output().tolist() == expected.class_of_output().tolist()


def test_the_21841_classes_of_imagenet(tmp_path: Path) -> None:
    """Other wnids are outputs that are left out, in a file of more than 1,000 lines only."""
    path = tmp_path / "map.txt"
    others = [f"n{90_000_000 + number:08d}" for number in range(20_841)]
    path.write_text("\n".join(sorted([*WNIDS, *others])))
    found = read_class_map(path)
    assert found.num_outputs == 21_841
    assert found.outputs.tolist() == list(range(NUM_CLASSES))
    path.write_text("\n".join([*others, *WNIDS]))
    assert read_class_map(path).outputs.tolist() == list(range(20_841, 21_841))
    expect_refused(path, [*WNIDS[:-1], "n90000000"], ", line 1000: 'n90000000' is none of the 1,000 wnids")


def test_a_wrong_file_is_one_line_with_the_place(tmp_path: Path) -> None:
    """Whatever is wrong with it."""
    path = tmp_path / "map.txt"
    for lines, text in [
        ([*WNIDS[:5], "tench", *WNIDS[6:]], ", line 6: 'tench' is neither a wnid nor a class index"),
        (["n01440764 tench", *WNIDS[1:]], ", line 1: 'n01440764 tench' is neither"),
        (["0 n01440764", *WNIDS[1:]], ", line 1: '0 n01440764' is neither"),
        (["", *WNIDS], ", line 1: '' is neither"),
        (["1000", *WNIDS[1:]], ", line 1: '1000' is no class index, expected 0 to 999"),
        (["9" * 5000, *WNIDS[1:]], ", line 1: '9+' is no class index"),
        (["-2", *WNIDS[1:]], ", line 1: '-2' is neither"),
        (["٣", *WNIDS[1:]], ", line 1: '٣' is neither"),
        ([*WNIDS, WNIDS[3]], r", line 1001: class 3 \(n01491361\) is on line 4 too"),
        ([*WNIDS[:-1], "998"], r", line 1000: class 998 .* is on line 999 too"),
        (WNIDS[:999], ": of the 1,000 classes, n15075141 are not named in its 999 lines"),
        (["-"] * 1001, r": of the 1,000 classes, n01440764, n01443537, n01484850 \.\.\. \(1,000\) are not named"),
        ([], r": of the 1,000 classes, n01440764, .* are not named in its 0 lines"),
        (["<html>"], ", line 1: '<html>' is neither"),
    ]:
        expect_refused(path, lines, text)
    path.write_bytes(b"\xff\xfe" + "n01440764\n".encode("utf-16-le"))
    with pytest.raises(SourceError, match=r"byte 0 is not text in UTF-8"):
        read_class_map(path)
    with pytest.raises(SourceError, match=r"none\.txt: No such file"):
        read_class_map(tmp_path / "none.txt")
    with pytest.raises(SourceError, match=r"directory|regular"):
        read_class_map(tmp_path)
    with path.open("wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(SourceError, match="larger than 16,777,216 bytes"):
        read_class_map(path)


def test_one_of_two_options_chooses_the_map(tmp_path: Path) -> None:
    """A path, a map or the place of the background; both, or another word, are errors."""
    path = tmp_path / "map.txt"
    path.write_text("\n".join(WNIDS))
    read = choose_class_map(path, None)
    assert read is not None
    assert read.outputs.tolist() == list(range(NUM_CLASSES))
    assert choose_class_map(read, None) is read
    assert choose_class_map(None, None) is None
    last = choose_class_map(None, "last")
    assert last is not None
    assert last.num_outputs == NUM_CLASSES + 1
    with pytest.raises(ValueError, match="exclude each other"):
        choose_class_map(path, "last")
    with pytest.raises(ValueError, match="background is 'middle'"):
        choose_class_map(None, "middle")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NUMBERINGS)
def test_known_numberings_are_maps_by_name(name: str) -> None:
    """Each class has a number of its own, from 0 or 1; the map leads back from it."""
    found = read_class_map(name)
    assert sorted(found.outputs.tolist()) == list(range(NUMBERINGS[name].first, found.num_outputs))
    assert found.class_of_output()[found.outputs].tolist() == list(range(NUM_CLASSES))
    assert found.description == {"numbering": name}


def test_a_file_called_like_a_numbering_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in the current folder is meant."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devkit").write_text("".join(f"{label}\n" for label in range(NUM_CLASSES)))
    assert read_class_map("devkit").outputs.tolist() == list(range(NUM_CLASSES))
    assert classes()[read_class_map("./devkit").class_of_output()[0]].index == 0
