"""Cards say what a data set is: the sections of a catalogue page, its counts, and the words of docs/data-card.md."""

from __future__ import annotations

import io
import re
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import wds_real
from wds_real.interop import card, card_text
from wds_real.labels import Labels, bundled
from wds_real.packing.indexer import index_shards
from wds_real.packing.source import open_source
from wds_real.packing.writer import write_shards
from wds_real.storage.local import LocalStore

REPOSITORY = Path(__file__).parent.parent.parent
PAGE = " ".join((REPOSITORY / "docs" / "data-card.md").read_text("utf-8").split())


@pytest.fixture(scope="module")
def tiny() -> wds_real.Dataset:
    return wds_real.open_dataset(REPOSITORY / "shards" / "tiny")


def titles(text: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", text, re.MULTILINE)


def numbers(text: str) -> dict[str, int]:
    """Return the rows of tables that have a name and one number."""
    rows = re.findall(r"^\| ([^|]+) \| ([\d,]+) \|$", text, re.MULTILINE)
    return {name: int(count.replace(",", "")) for name, count in rows}


def test_the_markdown_has_the_sections_of_a_catalogue_page(tiny: wds_real.Dataset) -> None:
    """All of them: from the description and the splits to the known limits, the errata and the citation."""
    text = card(tiny)
    assert titles(text) == [
        "imagenet2012_real",
        "Features",
        "Labels",
        "Images",
        "How the ReaL labels were made",
        "Origin and licence",
        "Known limits",
        "Errors in other sources",
        "Citation",
    ]
    for name in ("Homepage", "Paper", "Version", "Splits", "Size", "Digest", "Images", "Labels"):
        assert f"| **{name}** |" in text
    assert "Supervised keys: `image`, `real_label`" in text
    assert f"`{tiny.digest}`" in text


def test_the_counts_are_those_of_the_data_set(tiny: wds_real.Dataset) -> None:
    """Label and image statistics agree with the index, counted here in another way."""
    found = numbers(card(tiny))
    real, original = tiny.index.real_label, tiny.index.original_label.tolist()
    assert {name: count for name, count in found.items() if name.isdigit()} == {
        str(length): count for length, count in Counter(map(len, real)).items()
    }
    assert (found["all"], found["ReaL labels in all"]) == (60, sum(map(len, real)))
    assert found["with a ReaL label"] + found["without a ReaL label"] == 60
    assert found["the ReaL label is the original label"] == sum(
        [label] == list(labels) for label, labels in zip(original, real, strict=True)
    )
    smallest, largest = min(tiny.index.width.tolist()), max(tiny.index.width.tolist())
    assert re.search(rf"^\| width, pixels \| {smallest} \| \d+ \| {largest} \|$", card(tiny), re.MULTILINE)


def test_a_part_of_the_images_is_called_one(tiny: wds_real.Dataset) -> None:
    """The card of a partial set says so beside the count, for it gives no ImageNet accuracy."""
    assert "`validation`: 60 images (a part of the 50,000 validation images: not for accuracies)" in card(tiny)
    assert "| **Source of this set** | a part of the validation set |" in card(tiny)


def test_the_words_are_those_of_the_documentation() -> None:
    """How labels were made, limits, errata, origin and citation are on the page of the documentation too."""
    for text in (*card_text.LIMITS, *card_text.ERRATA, card_text.ODD_IMAGES, card_text.ANNOTATION, card_text.NOT_FOR):
        assert text in PAGE, text
    for text in (card_text.IMAGES_FROM, card_text.IMAGES_LICENCE, card_text.LABELS_FROM):
        assert text in PAGE, text
    assert " ".join(card_text.BIBTEX.split()) in PAGE


def test_bibtex_is_what_to_cite(tiny: wds_real.Dataset) -> None:
    """Three entries with balanced braces: the labels, under the right arXiv number, the images and this software."""
    text = card(tiny, "bibtex")
    assert re.findall(r"^@(\w+)\{(\w+),$", text, re.MULTILINE) == [
        ("article", "beyer2020imagenet"),
        ("article", "russakovsky2015imagenet"),
        ("software", "wds_real"),
    ]
    assert text.count("{") == text.count("}")
    assert "arXiv:2006.07159" in text
    assert f"version = {{{wds_real.__version__}}}" in text


def test_the_card_says_whether_the_labels_are_the_released_ones(
    tiny: wds_real.Dataset, made_tar: Path, tmp_path: Path
) -> None:
    """A set that was packed with other ReaL labels has a card that counts the images whose labels differ."""
    assert "The labels are the released ones." in card(tiny)
    real = list(bundled().real)
    real[1], real[4] = (7, 8, 9), ()
    with open_source(made_tar, allow_partial=True, labels=Labels(bundled().original, tuple(real))) as source:
        write_shards(source, LocalStore(tmp_path))
    text = card(wds_real.open_dataset(tmp_path))
    assert "The labels of 2 images are not the released ones." in text
    assert "The labels are the released ones." not in text


def test_the_card_of_a_view_is_that_of_the_whole_set(tiny: wds_real.Dataset) -> None:
    """A slice has the card of its data set: the card belongs to the shards."""
    assert card(tiny[:5]) == card(tiny)


@pytest.mark.parametrize("form", ["md", "bibtex", "hf", "croissant"])
def test_a_set_of_other_images_has_no_card(form: Any, tiny: wds_real.Dataset, tmp_path: Path) -> None:
    """Where images are not ImageNet's, nothing is claimed of their origin and licence."""
    dataset = _other_images(tiny, tmp_path)
    with pytest.raises(wds_real.StoreError, match="holds the data set webdataset, expected imagenet2012_real"):
        card(dataset, form)


def test_shards_of_another_tool_have_a_card_in_words_only(packed: Path, tmp_path: Path) -> None:
    """Their members are not known, so the forms that describe them are refused; Markdown works."""
    dataset = _indexed_again(packed, tmp_path)
    assert dataset.manifest.external
    assert "imagenet2012_real" in card(dataset)
    forms: tuple[Any, ...] = ("hf", "croissant")
    for form in forms:
        with pytest.raises(wds_real.StoreError, match="another tool wrote the shards"):
            card(dataset, form)


def _indexed_again(packed: Path, folder: Path) -> wds_real.Dataset:
    """Return the same shards without manifest and index, as another tool would have left them, indexed."""
    for path in packed.glob("*.tar"):
        (folder / path.name).write_bytes(path.read_bytes())
    index_shards(str(folder))
    return wds_real.open_dataset(folder)


def _other_images(dataset: wds_real.Dataset, folder: Path) -> wds_real.Dataset:
    """Return a set of images under names that are not the validation set's, with a class number each."""
    with tarfile.open(folder / "photos-000000.tar", "w") as tar:
        for number in range(5):
            for suffix, data in (("jpg", dataset.reader.read(number)), ("cls", b"7")):
                member = tarfile.TarInfo(f"photo{number:04d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    index_shards(str(folder))
    return wds_real.open_dataset(folder)
