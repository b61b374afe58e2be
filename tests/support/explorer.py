"""Content of explorer pages for tests: made-up answers of models, and the page's numbers as node computes them."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from wds_real.explore.page.content import Content, answers_of
from wds_real.labels import NUM_CLASSES
from wds_real.scoring.prediction_reader import read_predictions
from wds_real.scoring.predictions import TOP, Predictions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

REPOSITORY = Path(__file__).parent.parent.parent
PAGE_TESTS = REPOSITORY / "tests" / "explore" / "page"


def node() -> str:
    """Return the path of Node, or skip the test."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed: the page's code cannot run here")
    return found


def made_predictions(content: Content, *, right: float, seed: int, rows: Sequence[int] | None = None) -> Predictions:
    """Return answers whose first class is the original label in a share of about `right` of the images."""
    random = np.random.default_rng(seed)
    chosen = np.arange(len(content.keys)) if rows is None else np.asarray(rows)
    step = random.integers(1, 199, size=len(chosen))
    first = np.where(
        random.random(len(chosen)) < right,
        content.original_label[chosen],
        (content.original_label[chosen] + random.integers(-3, 4, size=len(chosen))) % NUM_CLASSES,
    )
    classes = (first[:, None] + step[:, None] * np.arange(TOP)[None, :]) % NUM_CLASSES  # five different ones
    probabilities = np.tile(np.array([0.5, 0.2, 0.1, 0.05, 0.01], dtype=np.float32), (len(chosen), 1))
    return Predictions(tuple(content.keys[row] for row in chosen), classes, probabilities, source=f"made-{seed}.csv")


def with_models(content: Content, models: Mapping[str, Predictions], *, allow_partial: bool = False) -> Content:
    """Return the content with the answers of models."""
    return replace(content, answers=answers_of(content, models, allow_partial=allow_partial))


def ten_models(content: Content, folder: Path) -> dict[str, Predictions]:
    """Return the answers of the ten real models in `folder`, or of ten made-up ones if it is not there."""
    files = sorted(folder.glob("*.npz"))
    if files:
        return {file.stem: read_predictions(file) for file in files}
    return {f"made{seed}": made_predictions(content, right=0.5 + seed / 25, seed=seed) for seed in range(10)}


def data_of(page: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the header and the columns of a page."""
    block = re.search(rb'id="data">([^<]*)</script>', page)
    assert block is not None
    data = gzip.decompress(base64.b64decode(block[1]))
    length = int.from_bytes(data[:4], "little")
    header = json.loads(data[8 : 8 + length])
    start = 8 + -(-length // 8) * 8
    columns = {
        column["name"]: np.frombuffer(
            data, np.dtype(column["type"]).newbyteorder("<"), column["length"], start + column["offset"]
        )
        for column in header["columns"]
    }
    return header, columns


def numbers_of(page: bytes, folder: Path, *thresholds: str) -> dict[str, Any]:
    """Return the numbers of a page at thresholds in thousandths, or "given", as its own code computes them."""
    path = folder / "page.html"
    path.write_bytes(page)
    command = [node(), str(PAGE_TESTS / "numbers.mjs"), str(path), *thresholds]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
