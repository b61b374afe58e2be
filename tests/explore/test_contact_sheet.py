"""Contact sheets: which images they show, and what stands below them."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from support.damage import damaged_copy

import wds_real
from wds_real.errors import PlanError, ShardError
from wds_real.explore.contact_sheet import show_examples
from wds_real.explore.figures import save_figure
from wds_real.labels import classes
from wds_real.scoring.predictions import Predictions

if TYPE_CHECKING:
    from wds_real.data.dataset import Dataset
    from wds_real.explore.contact_sheet import ContactSheet

TINY = Path(__file__).parents[2] / "shards" / "tiny"
DIFFERS = "real and original not in real"


@pytest.fixture(scope="module")
def ds() -> Dataset:
    return wds_real.open_dataset(TINY)


@pytest.fixture(scope="module")
def originals(ds: Dataset) -> Predictions:
    """A model that answers with the original label."""
    answers = np.repeat(ds.index.original_label[:, None], 5, axis=1)
    return Predictions(
        ds.keys, answers, np.full(answers.shape, np.nan, dtype=np.float32), source="runs/old/predictions.csv"
    )


def texts(sheet: ContactSheet) -> list[str]:
    return [text.get_text() for text in sheet.texts]


def keys(sheet: ContactSheet) -> list[str]:
    """Return the keys below the images, in the order of the sheet."""
    return [f"ILSVRC2012_{text}" for text in texts(sheet) if re.fullmatch(r"val_\d{8}", text)]


def test_the_first_images_are_shown(ds: Dataset) -> None:
    """Each has its key and its original label; the title says how many there are."""
    sheet = show_examples(ds, num_images=7, columns=3)
    assert keys(sheet) == list(ds.keys[:7])
    assert len(sheet.axes) == 7
    assert texts(sheet)[0] == "imagenet2012_real, validation: 7 of 60 images"
    for sample in (ds[place] for place in range(7)):
        assert classes()[sample["original_label"]].name in texts(sheet)


def test_images_are_in_rows(ds: Dataset) -> None:
    """From left to right, from top to bottom, and none over another."""
    boxes = [axes.get_position(original=True) for axes in show_examples(ds, num_images=5, columns=3).axes]
    assert [box.y0 for box in boxes[:3]] == [boxes[0].y0] * 3
    assert boxes[3].y1 < boxes[0].y0
    assert boxes[0].x1 < boxes[1].x0 < boxes[1].x1 < boxes[2].x0
    assert all(box.x0 >= 0 and box.x1 <= 1 and box.y0 >= 0 and box.y1 <= 1 for box in boxes)


def test_the_pixels_are_the_images(ds: Dataset) -> None:
    """Made smaller where they are larger than a tile."""
    (axes,) = show_examples(ds, ["ILSVRC2012_val_00000003"]).axes
    shown = np.asarray(axes.images[0].get_array())
    image = ds["ILSVRC2012_val_00000003"]["image"]
    image.thumbnail((210, 210), Image.Resampling.LANCZOS)
    assert np.array_equal(shown, np.asarray(image))


def test_labels_are_marked(ds: Dataset) -> None:
    """By a sign, as colours alone would not do for everyone; each kind is among the tiny set's images."""
    sheet = show_examples(ds, num_images=60)
    signs = {"=": 0, "≠": 0, "+": 0, "∌": 0, "∅": 0}
    for labels, original in zip(ds.index.real_label, ds.index.original_label.tolist(), strict=True):
        one, several = ("=", "+") if original in labels else ("≠", "∌")
        sign = "∅" if not labels else several if len(labels) > 1 else one
        signs[sign] += 1
    lines = texts(sheet)[2:]
    assert {sign: sum(line.startswith(f"{sign} ") for line in lines) for sign in signs} == signs
    assert min(signs.values()) > 0


def test_answers_are_right_or_wrong_by_the_real_labels(ds: Dataset, originals: Predictions) -> None:
    """An answer on an image without ReaL labels is neither."""
    sheet = show_examples(ds, where=DIFFERS, predictions=[originals])
    answers = [text for text in texts(sheet) if "answer: " in text]
    assert answers
    assert all(text.startswith("✗ answer: ") for text in answers)
    sheet = show_examples(ds, where="not real", predictions=[originals])
    assert {text[0] for text in texts(sheet) if "answer: " in text} == {"?"}
    sheet = show_examples(ds, where="original in real", predictions=[originals], num_images=60)
    assert {text[0] for text in texts(sheet) if "answer: " in text} == {"✓"}


def test_two_models_are_told_apart(ds: Dataset, originals: Predictions) -> None:
    """By the letters that conditions use; the legend names their files, or the folders of their runs."""
    none = Predictions(ds.keys, np.full((60, 5), -1), originals.probabilities, source="new.csv")
    sheet = show_examples(ds, where="A in real and flipped(A, B)", predictions=[originals, none], num_images=2)
    assert "A: old   B: new" in texts(sheet)[1].replace("\n", " ")
    below = texts(sheet)[2:]
    assert sum(line.startswith("✓ A: ") for line in below) == 2
    assert below.count("✗ B: no answer") == 2


def test_a_seed_chooses_at_random_and_the_same_again(ds: Dataset) -> None:
    """Images without repetition, in the data set's order, among those that fit."""
    one, other = (keys(show_examples(ds, where="len(real) > 0", num_images=9, seed=seed)) for seed in (1, 2))
    again = keys(show_examples(ds, where="len(real) > 0", num_images=9, seed=1))
    assert one == again != other
    assert len(set(one)) == 9
    assert one == sorted(one)
    assert all(ds[key]["real_label"] for key in one)


@pytest.mark.parametrize("ending", ["png", "jpg", "svg", "pdf"])
def test_a_sheet_is_saved_in_the_format_of_its_ending(ds: Dataset, tmp_path: Path, ending: str) -> None:
    """With the same bytes each time, but for the identifiers in an SVG."""
    path, again = tmp_path / f"a.{ending}", tmp_path / f"b.{ending.upper()}"
    for one in (path, again):
        save_figure(show_examples(ds, num_images=2), str(one))
    magic = {"png": b"\x89PNG", "jpg": b"\xff\xd8", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    assert path.read_bytes().startswith(magic)
    assert ending == "svg" or path.read_bytes() == again.read_bytes()


def test_a_notebook_gets_a_png(ds: Dataset) -> None:
    """Without pyplot's state."""
    png = show_examples(ds, num_images=1)._repr_png_()
    assert Image.open(io.BytesIO(png)).size[0] == 220


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keys": ["ILSVRC2012_val_00000099"]}, "is not one of the 60 samples"),
        ({"where": "real"}, "expected a condition"),
        ({"where": "len(real) > 99"}, r"no image of .* fits 'len\(real\) > 99'. Try another"),
        ({"num_images": 0}, "expected 1 or more of each"),
        ({"columns": 0}, "expected 1 or more of each"),
    ],
)
def test_what_cannot_be_shown_is_said(ds: Dataset, arguments: dict[str, object], message: str) -> None:
    """In one line."""
    with pytest.raises(PlanError, match=message):
        show_examples(ds, **arguments)  # type: ignore[arg-type]  # of any type here


@pytest.mark.parametrize("name", ["sheet", "sheet.bmp", "missing/sheet.png", "sheet.png/"])
def test_a_file_that_cannot_be_written_is_said(ds: Dataset, tmp_path: Path, name: str) -> None:
    """With the endings that can, or the system's reason."""
    (tmp_path / "sheet.png").mkdir()
    with pytest.raises(PlanError, match=r"expected a file that ends in \.png|cannot be written: "):
        save_figure(show_examples(ds, num_images=1), str(tmp_path / name))


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    """Nothing is drawn in its place."""
    ds = damaged_copy(TINY, tmp_path / "set", position=2)
    with pytest.raises(ShardError, match=ds.keys[2]):
        show_examples(ds, num_images=4)
