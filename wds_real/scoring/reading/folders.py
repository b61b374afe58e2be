"""Output folders at a path or a URL: their prediction file, and their subfolders.

An object store has no folders, so the end of a URL decides: a URL that ends like a prediction file, such as
``s3://lab/run/predictions.csv``, is a file, and any other a folder.
"""

from __future__ import annotations

import contextlib
import fnmatch
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from wds_real.errors import MissingError, PredictionsError
from wds_real.scoring.reading.columns import KINDS, is_prediction_name
from wds_real.scoring.reading.places import check_place, is_remote, name_of, parent_of, shown
from wds_real.scoring.run.description import RUN_NAME
from wds_real.storage.store import open_store
from wds_real.storage.url import join_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wds_real.storage.base import Store

__all__ = [
    "PREDICTION_NAMES",
    "expanded",
    "find_predictions",
    "has_file",
    "inside",
    "is_folder",
    "model_name",
    "prediction_file_in",
    "store_at",
]

PREDICTION_NAMES = ("predictions.csv", "predictions.npz", "predictions.parquet")


def is_folder(place: str | Path) -> bool:
    """Return whether a path is that of a folder, or a URL does not end like a prediction file.

    >>> is_folder("s3://lab/run"), is_folder("s3://lab/run/predictions.csv"), is_folder("https://host/a.npz?sig=1")
    (True, False, False)
    """
    if not is_remote(place):
        return Path(place).is_dir()
    return str(place).partition("?")[0].endswith("/") or not is_prediction_name(name_of(place))


def inside(place: str | Path, name: str) -> str | Path:
    """Return the path or URL of a file or folder of this name in a folder."""
    return join_url(str(place), name) if is_remote(place) else Path(place) / name


def model_name(place: str | Path) -> str:
    """Return a name for the model whose predictions are at a place.

    It is the name of the folder of a run, or of the file without its ending; "" for the current folder.

    >>> model_name("s3://lab/resnet50/predictions.csv"), model_name("answers/vit.csv.gz"), model_name("s3://lab/run.v2")
    ('resnet50', 'vit', 'run.v2')
    """
    name = name_of(place)
    if is_folder(place):
        return name
    plain = PurePosixPath(name)
    stem = PurePosixPath(plain.stem).stem if plain.suffix.lower() == ".gz" else plain.stem
    return (name_of(parent_of(place)) or stem) if name in PREDICTION_NAMES else stem


def find_predictions(place: str | Path, *, storage_options: Mapping[str, str] | None = None) -> str | Path:
    """Return the prediction file of an output folder; a file is returned as it is.

    Raises:
        PredictionsError: the folder has no prediction file.
        StoreError: the folder at a URL cannot be read, or an option is not known.
    """
    check_place(place, storage_options)
    if not is_folder(place):
        return place
    found = prediction_file_in(place, storage_options=storage_options)
    if found is None:
        raise PredictionsError(f"{shown(place)}: {_nothing_found(place, storage_options)}")
    return found


def _nothing_found(place: str | Path, storage_options: Mapping[str, str] | None) -> str:
    """Return why there are no predictions in a folder, and what to do."""
    names = " or ".join(PREDICTION_NAMES)
    if has_file(place, RUN_NAME, storage_options=storage_options):
        return f"the run in this folder is not finished: it has no {names}. Run it again, or `wds-real merge`."
    if not is_remote(place):
        return f"this folder has no {names}: it is not the --output of a finished `wds-real eval`."
    return (
        f"is not the --output of a finished `wds-real eval`: there is no {names} in it. The URL of a prediction file "
        f"ends in one of {', '.join(KINDS)}."
    )


def prediction_file_in(folder: str | Path, *, storage_options: Mapping[str, str] | None = None) -> str | Path | None:
    """Return the prediction file that a run wrote to its output folder, or None."""
    names = (name for name in PREDICTION_NAMES if has_file(folder, name, storage_options=storage_options))
    found = next(names, None)
    return None if found is None else inside(folder, found)


def has_file(folder: str | Path, name: str, *, storage_options: Mapping[str, str] | None = None) -> bool:
    """Return whether a folder has a file of this name; at a URL by a request for it, as listing may be denied."""
    if not is_remote(folder):
        return (Path(folder) / name).is_file()
    with contextlib.suppress(MissingError):
        store_at(folder, storage_options).head(name)
        return True
    return False


def store_at(folder: str | Path, storage_options: Mapping[str, str] | None) -> Store:
    """Return the store of a folder; a path takes no options."""
    return open_store(folder, storage_options=storage_options if is_remote(folder) else None)


def expanded(place: str | Path, *, storage_options: Mapping[str, str] | None = None) -> list[str | Path]:
    """Return what the last part of a URL stands for if it has a ``*``: the files and folders that fit, sorted.

    Other places are returned as they are: the shell expands patterns of paths.

    Raises:
        PredictionsError: nothing fits.
        StoreError: the folder cannot be listed.
    """
    check_place(place, storage_options)
    pattern = name_of(place)
    if not is_remote(place) or "*" not in pattern:
        return [place]
    folder = parent_of(place)
    store = store_at(folder, storage_options)
    names = fnmatch.filter([*filter(is_prediction_name, store.list()), *store.folders()], pattern.replace("[", "[[]"))
    if not names:
        raise PredictionsError(f"{shown(place)}: no folder and no prediction file fits the pattern. Check the URL.")
    return [inside(folder, name) for name in sorted(names)]
