"""Class maps: the class of each output of a model."""

from __future__ import annotations

from wds_real.labels import NUM_CLASSES, classes
from wds_real.labels.class_maps import devkit_map, string_sorted_map


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
