"""Folders of results at paths and URLs: what is a folder, its prediction file, names of models, patterns."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from support.http_server import http_server

from wds_real.errors import PredictionsError, StoreError, UnavailableError
from wds_real.scoring.prediction_reader import read_predictions
from wds_real.scoring.reading.columns import is_prediction_name
from wds_real.scoring.reading.folders import (
    PREDICTION_NAMES,
    expanded,
    find_predictions,
    inside,
    is_folder,
    model_name,
    prediction_file_in,
)
from wds_real.storage.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from wds_real.storage.base import Store

NUMBERS = itertools.count()
CSV = b"file_name,top1\nILSVRC2012_val_00000002.JPEG,795\n"


@pytest.fixture(params=["path", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    """An empty folder, and an empty place of a store."""
    return tmp_path if request.param == "path" else f"memory://folders-{next(NUMBERS)}/runs"


def store(place: str | Path) -> Store:
    return open_store(place)


@pytest.mark.parametrize("name", PREDICTION_NAMES)
def test_the_file_that_a_run_writes_is_found(folder: str | Path, name: str) -> None:
    """In each of its forms, also where the folder ends with a slash; a file is returned as it is."""
    store(folder).put(name, b"")
    found = inside(folder, name)
    assert find_predictions(folder) == prediction_file_in(folder) == find_predictions(found) == found
    assert str(find_predictions(f"{folder}/")) == str(found)


def test_the_first_of_several_files_is_taken(folder: str | Path) -> None:
    """A CSV goes before an NPZ, whatever was written last."""
    for name in reversed(PREDICTION_NAMES):
        store(folder).put(name, b"")
    assert prediction_file_in(folder) == inside(folder, PREDICTION_NAMES[0])


def test_a_folder_is_read_as_its_file(folder: str | Path) -> None:
    """In Python as on the command line; the predictions say where they were read."""
    store(folder).put("predictions.csv", CSV)
    read = read_predictions(folder)
    assert read["ILSVRC2012_val_00000002"][0] == 795
    assert read.source == str(inside(folder, "predictions.csv"))


def test_a_folder_without_predictions_is_refused(folder: str | Path) -> None:
    """An unfinished run is told from what is no run."""
    store(folder).put("other.txt", b"")
    with pytest.raises(PredictionsError, match="is not the --output of a finished"):
        find_predictions(folder)
    store(folder).put("run.json", b"{}")
    with pytest.raises(PredictionsError, match=r"the run in this folder is not finished.*`wds-real merge`"):
        find_predictions(folder)


@pytest.mark.parametrize(
    ("place", "is_one", "name"),
    [
        ("s3://lab/run", True, "run"),
        ("s3://lab/run.v2", True, "run.v2"),
        ("s3://lab", True, "lab"),
        ("s3://lab/a.csv/", True, "a.csv"),
        ("s3://lab/vit.tv_in1k.CSV.GZ", False, "vit.tv_in1k"),
        ("s3://lab/resnet50/predictions.csv", False, "resnet50"),
        ("s3://lab/resnet50/predictions.tsv", False, "predictions"),
        ("https://host/my%20model.parquet?sig=a.b", False, "my model"),
        ("https://host/run?sig=a.csv", True, "run"),
        ("none/there.csv", False, "there"),
        ("none/resnet50/predictions.npz", False, "resnet50"),
        ("predictions.npz", False, "predictions"),
    ],
)
def test_the_end_of_a_url_says_what_it_is(place: str, name: str, *, is_one: bool) -> None:
    """A file has the end of a kind that is read; the model has the name of the file, or of its run's folder."""
    assert is_folder(place) == is_one
    assert model_name(place).lower() == name


def test_kinds_are_those_that_are_read() -> None:
    """Only text may be compressed."""
    assert all(
        map(is_prediction_name, ("a.csv", "a.tsv.gz", "a.txt", "a.json", "a.jsonl", "a.npy", "a.npz", "a.parquet"))
    )
    assert not any(map(is_prediction_name, ("a", "a.gz", "a.npz.gz", "a.xlsx", "csv", "run.json.v1")))


def test_a_star_in_a_url_stands_for_names() -> None:
    """Of prediction files and folders, sorted; other characters have no meaning, and paths are left to the shell."""
    url = f"memory://folders-{next(NUMBERS)}"
    store(url).put("a[1].csv", b"")
    store(url).put("a[2].csv", b"")
    store(url).put("a[3].log", b"")
    store(f"{url}/a_run").put("result.json", b"")
    store(f"{url}/b_run").put("result.json", b"")
    assert expanded(f"{url}/a*") == [f"{url}/a[1].csv", f"{url}/a[2].csv", f"{url}/a_run"]
    assert expanded(f"{url}/a[1].c*") == [f"{url}/a[1].csv"]
    assert expanded(f"{url}/a[1].csv") == [f"{url}/a[1].csv"]
    assert expanded("runs/a*") == ["runs/a*"]
    with pytest.raises(PredictionsError, match=r"no folder and no prediction file fits the pattern"):
        expanded(f"{url}/c*")


def test_a_web_server_has_no_listing(tmp_path: Path) -> None:
    """Its folders are read by the names of files; a pattern is refused in words, without the query."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "predictions.npz").write_bytes(b"")
    with http_server(tmp_path) as web:
        assert find_predictions(f"{web.endpoint}/run?sig=1") == f"{web.endpoint}/run/predictions.npz?sig=1"
        with pytest.raises(UnavailableError, match=r"a web server has no listing. Name the files") as caught:
            expanded(f"{web.endpoint}/*.csv?sig=hidden")
        assert "hidden" not in str(caught.value)


def test_a_url_that_is_none_is_refused_first() -> None:
    """Also as a folder."""
    with pytest.raises(StoreError, match=r"not a URL. Write s3://"):
        find_predictions("s3:/lab/run")
