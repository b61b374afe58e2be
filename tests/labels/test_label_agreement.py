"""The five kinds of agreement: the counts of the data card, and the same names, words and conditions everywhere."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

import wds_real
from wds_real.explore.where import choose
from wds_real.labels import bundled
from wds_real.labels.agreement import AGREEMENTS, agreement

ROOT = Path(__file__).parents[2]
COUNTS = {"agrees": 35_716, "differs": 3_678, "several": 6_448, "several-without": 995, "none": 3_163}


@pytest.fixture(scope="module")
def counted() -> Counter[str]:
    return Counter(map(agreement, bundled().original, bundled().real))


def test_the_released_labels_are_of_five_kinds(counted: Counter[str]) -> None:
    """One other label, and several without the original one, are counted apart."""
    assert list(AGREEMENTS) == list(COUNTS)
    assert counted == COUNTS


def test_the_data_card_has_the_counts_in_these_words(counted: Counter[str]) -> None:
    """The page and the package have one truth."""
    page = (ROOT / "docs" / "data-card.md").read_text()
    for name, words in AGREEMENTS.items():
        assert f"| {words} | {counted[name]:,} |" in page


def test_the_explorer_page_has_the_same_kinds() -> None:
    """In the same order and words, in the code of the page and in the colours that its styles give them."""
    web = ROOT / "wds_real" / "explore" / "page" / "web"
    kinds = re.findall(
        r'\{ id: "([\w-]+)", short: "[^"]+", text: "([^"]+)" \}', (web / "data" / "labels.js").read_text()
    )
    assert dict(kinds) == dict(AGREEMENTS)
    assert [name for name, _ in kinds] == list(AGREEMENTS)
    styles = (web / "views.css").read_text()
    assert [name for name in AGREEMENTS if f".kind-{name}" not in styles] == []


def test_the_page_on_looking_gives_each_kind_as_a_condition() -> None:
    """Each condition chooses just the images of its kind; the tiny set has all five."""
    dataset = wds_real.open_dataset(ROOT / "shards" / "tiny")
    rows = re.findall(
        r"^\| `.` \| `([\w-]+)` \| (.+) \| `(.+)` \|$", (ROOT / "docs" / "look.md").read_text(), re.MULTILINE
    )
    assert {name: words for name, words, _ in rows} == dict(AGREEMENTS)
    labels = list(zip(dataset.index.original_label.tolist(), dataset.index.real_label, strict=True))
    for name, _, condition in rows:
        expected = [place for place, label in enumerate(labels) if agreement(*label) == name]
        assert choose(dataset, where=condition).tolist() == expected
        assert expected
