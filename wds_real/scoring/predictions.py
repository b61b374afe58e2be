"""The prediction file: the five best classes of each image, in key order, and their probabilities.

Written as CSV, NPZ or Parquet. Runs without torch.
"""

from __future__ import annotations

import csv
import importlib
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wds_real.errors import PredictionsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PROBABILITY_COLUMNS", "RANKED_COLUMNS", "TOP", "Format", "Predictions", "parquet_module"]

TOP = 5
RANKED_COLUMNS = tuple(f"top{place + 1}" for place in range(TOP))
PROBABILITY_COLUMNS = tuple(f"prob{place + 1}" for place in range(TOP))
Format = Literal["csv", "npz", "parquet"]


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """The predicted classes of images.

    Attributes:
        keys: N strings, ascending.
        classes: int64 (N, 5), class indices 0..999, best first; -1 where the model gave fewer.
        probabilities: float32 (N, 5), of these classes; NaN where unknown.
        source: The file they were read from; "" if there is none.
        origin: Text for people: which columns gave names and classes.
        notes: Sentences for people: what is odd about the predictions.
    """

    keys: tuple[str, ...]
    classes: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    source: str = ""
    origin: str = ""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    def encode(self, form: Format = "csv") -> bytes:
        """Return the bytes of the prediction file: a pure function of the content.

        Raises:
            PredictionsError: Parquet without pyarrow installed.
        """
        if form == "npz":
            file = io.BytesIO()
            np.savez(file, key=np.array(self.keys), classes=self.classes, probabilities=self.probabilities)
            return file.getvalue()
        return self._parquet() if form == "parquet" else self._csv()

    def _csv(self) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("file_name", *RANKED_COLUMNS, *PROBABILITY_COLUMNS))
        for key, row, probabilities in zip(self.keys, self.classes.tolist(), self.probabilities.tolist(), strict=True):
            formatted = ("" if math.isnan(value) else f"{value:.9g}" for value in probabilities)
            writer.writerow((f"{key}.JPEG", *("" if value < 0 else value for value in row), *formatted))
        return text.getvalue().encode("utf-8")

    def _parquet(self) -> bytes:
        parquet = parquet_module()
        columns: dict[str, Any] = {"file_name": [f"{key}.JPEG" for key in self.keys]}
        columns |= {name: self.classes[:, place] for place, name in enumerate(RANKED_COLUMNS)}
        columns |= {name: self.probabilities[:, place] for place, name in enumerate(PROBABILITY_COLUMNS)}
        file = io.BytesIO()
        parquet.write_table(importlib.import_module("pyarrow").table(columns), file)
        return file.getvalue()


def parquet_module() -> Any:  # noqa: ANN401 -- a module of an optional package
    """Return ``pyarrow.parquet``.

    Raises:
        PredictionsError: pyarrow is not installed.
    """
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise PredictionsError("Parquet needs pyarrow. Install it: pip install pyarrow. Or use CSV or NPZ.") from error
