"""Predictions: what is written in each format reads back bit for bit, and the bytes depend on the content alone."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.prediction_files import CERTAIN, FORMATS, KEYS, ROW, made, needs_pyarrow, read, same

from wds_real.labels import NUM_CLASSES, NUM_IMAGES
from wds_real.scoring.predictions import TOP, Format, Predictions

if TYPE_CHECKING:
    from pathlib import Path

NAN = float("nan")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("predictions")


@st.composite
def predictions(draw: st.DrawFn) -> Predictions:
    """Draw predictions of up to six images: one to five classes each, with or without probabilities."""
    numbers = sorted(draw(st.sets(st.integers(1, NUM_IMAGES), max_size=6)))
    depth = draw(st.integers(1, TOP))
    label = st.integers(0, NUM_CLASSES - 1)
    rows = [draw(st.lists(label, min_size=depth, max_size=depth, unique=True)) for _ in numbers]
    known = draw(st.booleans())
    share = st.floats(0, 1, width=32) if known else st.just(NAN)
    values = [[draw(share) if place < depth else NAN for place in range(TOP)] for _ in numbers]
    keys = [f"ILSVRC2012_val_{number:08d}" for number in numbers]
    return made(keys, [row + [-1] * (TOP - depth) for row in rows], values)


@pytest.mark.parametrize("form", FORMATS)
@given(content=predictions())
@example(content=CERTAIN)
@example(content=made((), [], []))
@settings(max_examples=40)
def test_what_is_written_reads_back(folder: Path, form: Format, content: Predictions) -> None:
    """Keys, classes and every bit of the probabilities come back, also of no image at all, and give the same bytes."""
    encoded = content.encode(form)
    found = read(folder, f"back.{form}", encoded)
    assert same(found, content)
    assert found.encode(form) == encoded


def test_the_csv_is_pinned() -> None:
    """One line an image: file name, classes, probabilities with the nine digits a float32 needs; nothing if unknown."""
    content = made((KEYS[0], KEYS[292]), [ROW, (9, -1, -1, -1, -1)], [[1 / 3, 0.25, 0.125, 0.0, 1e-12], [NAN] * 5])
    assert content.encode() == content.encode("csv")
    assert content.encode().decode() == (
        "file_name,top1,top2,top3,top4,top5,prob1,prob2,prob3,prob4,prob5\n"
        "ILSVRC2012_val_00000001.JPEG,65,4,3,2,1,0.333333343,0.25,0.125,0,9.99999996e-13\n"
        "ILSVRC2012_val_00000293.JPEG,9,,,,,,,,,\n"
    )


def test_the_npz_holds_no_time_and_no_pickle() -> None:
    """Its bytes depend on the content only, and plain NumPy reads it."""
    encoded = CERTAIN.encode("npz")
    with zipfile.ZipFile(io.BytesIO(encoded)) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    with np.load(io.BytesIO(encoded), allow_pickle=False) as arrays:
        assert {name: arrays[name].dtype.kind for name in arrays.files} == {
            "key": "U", "classes": "i", "probabilities": "f",
        }  # fmt: skip


@needs_pyarrow
def test_the_parquet_is_a_plain_table() -> None:
    """Another reader sees one row an image, under the CSV's column names."""
    table = pytest.importorskip("pyarrow.parquet").read_table(io.BytesIO(CERTAIN.encode("parquet")))
    assert ",".join(table.column_names) == CERTAIN.encode().decode().splitlines()[0]
    assert table.to_pylist()[0]["file_name"] == f"{KEYS[0]}.JPEG"


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("key", ["a,b", 'a"b', '"a"', "a\nb", "a b", "\u00e4\u2028b"])
def test_keys_of_other_data_sets_read_back(folder: Path, form: Format, key: str) -> None:
    """A key that CSV must quote is quoted."""
    content = made([key], [ROW])
    assert same(read(folder, f"back.{form}", content.encode(form)), content)
