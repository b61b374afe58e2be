"""The facts of a data set: counts that add up, and statistics of its images."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from support.damage import damaged_copy

import wds_real
from wds_real.data.catalogue import catalogue, image_modes
from wds_real.errors import ShardError
from wds_real.packing.source import open_source
from wds_real.packing.writer import write_shards
from wds_real.storage.local import LocalStore
from wds_real.synthetic import encode_image

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.commands import Ended

    from wds_real.data.dataset import Dataset

TINY = Path(__file__).parents[2] / "shards" / "tiny"


@pytest.fixture(scope="module")
def ds() -> Dataset:
    return wds_real.open_dataset(TINY)


def image(width: int, height: int, mode: str) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, "JPEG")
    return file.getvalue()


def test_the_facts_are_those_of_the_samples(ds: Dataset) -> None:
    """Counted again here, from the samples themselves."""
    facts = catalogue(ds)
    samples = list(ds)
    real = [sample["real_label"] for sample in samples]
    assert (facts["num_samples"], facts["splits"], facts["partial"]) == (60, {"validation": 60}, True)
    assert facts["real_labels"] == sum(map(len, real))
    assert facts["images_by_number_of_real_labels"] == {
        str(number): sum(len(labels) == number for labels in real) for number in sorted({*map(len, real)})
    }
    agreements = facts["images_by_agreement"]
    assert agreements["none"] == facts["without_real_label"] == sum(not labels for labels in real)
    assert agreements["agrees"] == sum(sample["real_label"] == [sample["original_label"]] for sample in samples)
    several = [sample for sample in samples if len(sample["real_label"]) > 1]
    assert agreements["several"] == sum(sample["original_label"] in sample["real_label"] for sample in several) > 0
    assert agreements["several-without"] == len(several) - agreements["several"] > 0
    assert agreements["differs"] > 0
    assert sum(agreements.values()) == 60
    widths = [sample["image"].width for sample in samples]
    assert facts["images"]["width"] == {"min": min(widths), "median": int(np.median(widths)), "max": max(widths)}
    assert set(facts["features"]) == {"file_name", "image", "original_label", "real_label"} <= {*samples[0]}
    assert set(facts["supervised_keys"]) <= set(facts["features"])
    assert json.loads(json.dumps(facts)) == facts


def test_sizes_that_are_not_known_are_left_out(ds: Dataset) -> None:
    """As in external shards that were indexed without reading the images."""
    unknown = wds_real.open_dataset(TINY)
    unknown.index.width[3] = 0
    assert catalogue(unknown)["images"]["width"] is None
    assert catalogue(unknown)["images"]["height"] == catalogue(ds)["images"]["height"]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two RGB images, one in grey, one in CMYK."""
    folder = tmp_path_factory.mktemp("mixed")
    files = [encode_image(1), image(70, 30, "RGB"), image(50, 50, "L"), image(40, 60, "CMYK")]
    for number, data in enumerate(files, 1):
        (folder / f"ILSVRC2012_val_{number:08d}.JPEG").write_bytes(data)
    root = tmp_path_factory.mktemp("roots") / "mixed"
    with open_source(folder, allow_partial=True) as source:
        write_shards(source, LocalStore(root))
    return root


def test_modes_are_counted(mixed: Path) -> None:
    """Each image is told to the caller, once."""
    told: list[int] = []
    modes = image_modes(wds_real.open_dataset(mixed), advance=told.append)
    assert modes == {"CMYK": 1, "L": 1, "RGB": 2}
    assert sum(told) == 4


def test_external_shards_may_hold_other_formats(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are counted too."""
    ds = wds_real.open_dataset(mixed)
    read = ds.reader.read
    monkeypatch.setattr(ds.reader, "read", lambda position: b"\x89PNG" if position == 2 else read(position))
    assert image_modes(ds) == {"CMYK": 1, "RGB": 2, "not a JPEG": 1}


def test_a_damaged_image_is_not_counted(mixed: Path, tmp_path: Path) -> None:
    """It is an error, as wherever an image is read."""
    ds = damaged_copy(mixed, tmp_path / "copy", position=1)
    with pytest.raises(ShardError, match=ds.keys[1]):
        image_modes(ds)


def test_info_prints_them(run: Callable[..., Ended], mixed: Path) -> None:
    """As a table, and as JSON with numbers."""
    out = run("info", mixed, "--modes").out
    assert "modes                           CMYK 1, L 1, RGB 2" in out
    assert re.search(r"width +40 to \d+, median \d+", out)
    assert "arXiv:2006.07159" in out
    facts = json.loads(run("info", mixed, "--modes", "--json").out)
    assert facts["images"]["modes"] == {"CMYK": 1, "L": 1, "RGB": 2}
    assert facts["images"]["height"]["min"] == 30
    assert "modes" not in json.loads(run("info", mixed, "--json").out)["images"]


@pytest.mark.parametrize("arguments", [["ILSVRC2012_val_00000001"], ["--env"]])
def test_modes_are_of_the_whole_set(run: Callable[..., Ended], mixed: Path, arguments: list[str]) -> None:
    """With keys or --env the option is a mistake."""
    code, _, err = run("info", mixed, *arguments, "--modes")
    assert code == 2
    assert "--modes is about the whole data set" in err
