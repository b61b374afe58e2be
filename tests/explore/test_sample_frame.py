"""Data sets as DataFrames, and what notebooks show of them."""

from __future__ import annotations

import base64
import io
import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from support.damage import damaged_copy
from torch.utils.data import DataLoader

import wds_real
from wds_real.data.loader import Loader

if TYPE_CHECKING:
    from wds_real.data.dataset import Dataset

TINY = Path(__file__).parents[2] / "shards" / "tiny"


@pytest.fixture(scope="module")
def ds() -> Dataset:
    return wds_real.open_dataset(TINY)


def shown_images(page: str) -> list[tuple[str, Image.Image]]:
    """Return the images in a page with the texts that stand for them."""
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="([^"]*)">', page)
    return [(alt, Image.open(io.BytesIO(base64.b64decode(data)))) for data, alt in found]


def html_of(thing: object) -> str:
    page = thing._repr_html_()  # type: ignore[attr-defined]
    assert isinstance(page, str)
    return page


def test_the_frame_is_read_from_the_index_alone(ds: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the columns of the data set's own, and no image is read for it."""
    monkeypatch.setattr(ds.reader, "read", None)
    frame = wds_real.as_dataframe(ds)
    plain = ds.as_dataframe()
    assert frame.columns.tolist() == plain.columns.tolist()
    assert (frame == plain).all(axis=None)


def test_a_notebook_gets_thumbnails_of_the_rows_that_it_shows(ds: Dataset) -> None:
    """Of the first twenty, each beside its key, small, and with the names of the classes."""
    page = html_of(wds_real.as_dataframe(ds))
    images = shown_images(page)
    assert [key for key, _ in images] == list(ds.keys[:20])
    assert all(max(image.size) <= 96 for _, image in images)
    assert "20 of 60 samples" in page
    assert "65 sea snake" in page


def test_rows_that_are_chosen_keep_their_images(ds: Dataset) -> None:
    """A slice, a condition and a sorted frame show theirs; a frame without keys is a plain table."""
    frame = wds_real.as_dataframe(ds)
    chosen = frame[frame.original_label == 65]
    assert [key for key, _ in shown_images(html_of(chosen))] == ["ILSVRC2012_val_00000001"]
    assert [key for key, _ in shown_images(html_of(frame.iloc[5:7]))] == list(ds.keys[5:7])
    assert shown_images(html_of(frame.sort_values("key", ascending=False)))[0][0] == ds.keys[-1]
    assert shown_images(html_of(frame[["width", "height"]])) == []
    assert "<table" in html_of(frame[["width", "height"]])


def test_the_image_is_the_samples(ds: Dataset) -> None:
    """As near as JPEG allows."""
    (_, image), *_ = shown_images(html_of(wds_real.as_dataframe(ds)))
    expected = ds[0]["image"].resize(image.size, Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(image, dtype=int) - np.asarray(expected, dtype=int)).mean() < 6


def test_a_sample_shows_its_image_and_class_names(ds: Dataset) -> None:
    """It is the dict that it was, also after pickling and in a DataLoader."""
    sample = ds[0]
    page = html_of(sample)
    assert [key for key, _ in shown_images(page)] == ["ILSVRC2012_val_00000001"]
    assert "65 sea snake" in page
    assert "none" in page
    assert isinstance(sample, dict)
    assert pickle.loads(pickle.dumps(sample)) == sample  # noqa: S301 -- made here
    changed = wds_real.open_dataset(TINY, transform=lambda image: np.asarray(image).mean())
    assert not shown_images(html_of(changed[0]))
    (batch,) = DataLoader(changed[:1], batch_size=1)
    assert batch["original_label"].tolist() == [65]
    assert "<table" in html_of(batch)


def test_a_data_set_and_a_loader_show_what_they_are(ds: Dataset) -> None:
    """Counts of agreement add up; texts are short, and hostile names are text."""
    page = html_of(ds)
    counts = {name: int(count) for name, count in re.findall(r"<th>ReaL label ([\w-]+)</th><td>(\d+)</td>", page)}
    assert set(counts) == {"agrees", "differs", "several", "several-without", "none"}
    assert sum(counts.values()) == 60
    loader = Loader(ds, batch_size=16)
    assert repr(loader) == f"Loader({ds!r}, 4 batches of 16, rank 0 of 1)"
    assert "<td>4</td>" in html_of(loader)
    ds_of_hostile = wds_real.open_dataset(TINY)
    ds_of_hostile.root = "<script>alert(1)</script>"
    assert "<script" not in html_of(ds_of_hostile)
    assert "<script" not in html_of(Loader(ds_of_hostile, batch_size=8))


def test_a_damaged_image_is_said_in_its_place(tmp_path: Path) -> None:
    """A table is looked at to find what is wrong."""
    ds = damaged_copy(TINY, tmp_path / "set", position=2)
    page = html_of(wds_real.as_dataframe(ds))
    assert [key for key, _ in shown_images(page)] == [key for key in ds.keys[:20] if key != ds.keys[2]]
    assert "checksum is" in page
